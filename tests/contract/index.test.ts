/** What is at `/`: links for programs and a page for people, and who is answered with which. */

import { describe, expect, test } from "bun:test";
import { type TestApp, withApp } from "../harness/app.ts";

const get = (app: TestApp, accept?: string) =>
  app.app.request("/", { headers: accept === undefined ? {} : { accept } });

interface Index {
  readonly name: string;
  readonly version: string;
  readonly links: Readonly<Record<string, string>>;
}

const ofChromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

describe("who asks for", () => {
  for (const [accept, type] of [
    [undefined, "application/json"],
    ["", "application/json"],
    ["*/*", "application/json"],
    ["application/json", "application/json"],
    ["application/json, text/html;q=0.9", "application/json"],
    ["text/html;q=0, */*", "application/json"],
    ["image/png", "application/json"],
    ["a".repeat(4096), "application/json"],
    [",;q=x", "application/json"],
    ["text/html", "text/html; charset=utf-8"],
    ["TEXT/HTML", "text/html; charset=utf-8"],
    ["text/*", "text/html; charset=utf-8"],
    ["text/html, application/json;q=0.9", "text/html; charset=utf-8"],
    [ofChromium, "text/html; charset=utf-8"],
  ] as const) {
    test(
      `${JSON.stringify(accept?.slice(0, 80) ?? "nothing")} is answered in ${type}`,
      withApp(async (app) => {
        const { status, headers } = await get(app, accept);
        expect([status, headers.get("content-type")]).toEqual([200, type]);
        // A cache keeps both apart.
        expect(headers.get("vary")).toBe("Accept");
      }),
    );
  }
});

describe("the links", () => {
  test(
    "lead to what is there, below any prefix, and are the same for people and programs",
    withApp(async (app) => {
      const { name, version, links } = (await (await get(app)).json()) as Index;
      expect({ name, version }).toEqual({ name: "tensord", version: "0.0.0" });
      const page = await (await get(app, "text/html")).text();
      expect(page).toContain(`<h1>tensord ${version}</h1>`);
      const shown = [...page.matchAll(/<a href="([^"]*)">/g)].map(([, href]) => href);
      expect(shown).toEqual(Object.values(links));
      for (const place of ["docs", "openapi", "stats", "doctor"]) expect(Object.keys(links)).toContain(place);
      for (const href of Object.values(links)) {
        const { pathname } = new URL(href, "http://localhost/");
        expect([href, (await app.app.request(pathname)).status]).toEqual([href, 200]);
        expect(new URL(href, "https://gpu.example.com/tensord/").pathname).toBe(`/tensord${pathname}`);
      }
    }),
  );
});

describe("the page", () => {
  test(
    "lets the browser load nothing, and runs no script",
    withApp(async (app) => {
      const response = await get(app, "text/html");
      expect(Object.fromEntries(response.headers)).toMatchObject({
        "content-security-policy":
          "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
      });
      const page = await response.text();
      expect(page).not.toMatch(/<script|<style|style=|\bon\w+=|https?:/);
    }),
  );

  test(
    "is answered to HEAD without its text, and to no other method",
    withApp(async (app) => {
      const head = await app.request("HEAD", "/");
      expect([head.status, head.body]).toEqual([200, undefined]);
      expect((await app.refused("method-not-allowed", "POST", "/")).hint).toBe("Use GET.");
    }),
  );
});
