/** The reference page: served whole from here, and its policy lets nothing else in. A browser is not needed for that. */

import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { type TestApp, withApp } from "../harness/app.ts";
import { withTcp } from "./support/socket.ts";

const packagePath = (name: string) => createRequire(import.meta.url).resolve(`swagger-ui-dist/${name}`);
const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const get = async (app: TestApp, path: string) => app.app.request(path);

/** What the page has the browser load. */
async function listLoads(app: TestApp): Promise<string[]> {
  const page = await (await get(app, "/docs")).text();
  return [...page.matchAll(/\b(?:src|href)="([^"]*)"/g)].map(([, url = ""]) => url);
}

describe("the reference page", () => {
  for (const path of ["/docs", "/docs/"]) {
    test(
      `is at ${path}`,
      withApp(async (app) => {
        const response = await get(app, path);
        expect(response.status).toBe(200);
        expect(response.headers.get("content-type")).toBe("text/html; charset=utf-8");
        expect(response.headers.get("cache-control")).toBe("no-cache");
        expect(await response.text()).toStartWith("<!doctype html>");
      }),
    );
  }

  test(
    "loads what is on this server and nothing else",
    withApp(async (app) => {
      const loads = await listLoads(app);
      expect(loads.toSorted()).toEqual([
        "/docs/reference.js",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
        "data:,",
      ]);
      for (const path of loads.filter((url) => url.startsWith("/"))) expect((await get(app, path)).status).toBe(200);
      const start = await (await get(app, "/docs/reference.js")).text();
      expect(start).not.toMatch(/\bhttps?:/);
      expect(start).toContain('fetch("/openapi.json")');
      expect(start).toContain("validatorUrl: null");
      expect((await (await get(app, "/docs")).text()).match(/\bhttps?:/)).toBeNull();
    }),
  );

  test(
    "lets the browser run no script and ask no server but these",
    withApp(async (app) => {
      for (const path of ["/docs", ...(await listLoads(app)).filter((url) => url.startsWith("/"))]) {
        const { headers } = await get(app, path);
        const policy = headers.get("content-security-policy") ?? "";
        const directives = policy.split("; ").map((directive) => directive.split(" "));
        expect(Object.fromEntries(directives.map(([name, ...sources]) => [name, sources.join(" ")]))).toEqual({
          "default-src": "'none'",
          "script-src": "'self'",
          "style-src": "'self'",
          "img-src": "'self' data:",
          "connect-src": "'self'",
          "base-uri": "'none'",
          "form-action": "'none'",
          "frame-ancestors": "'none'",
        });
        expect(headers.get("x-content-type-options")).toBe("nosniff");
      }
    }),
  );

  for (const [name, type] of [
    ["swagger-ui-bundle.js", "text/javascript; charset=utf-8"],
    ["swagger-ui.css", "text/css; charset=utf-8"],
  ] as const) {
    test(
      `has ${name} as it is in its package, for a cache to keep`,
      withTcp(async ({ url }) => {
        const response = await fetch(`${url}/docs/${name}`);
        expect(response.headers.get("content-type")).toBe(type);
        expect(response.headers.get("cache-control")).toBe("max-age=3600");
        expect(digest(await response.bytes())).toBe(digest(readFileSync(packagePath(name))));
        const head = await fetch(`${url}/docs/${name}`, { method: "HEAD" });
        expect([head.status, await head.text()]).toEqual([200, ""]);
      }),
    );
  }

  test(
    "starts with a script that can be read as a module",
    withApp(async (app) => {
      const start = await (await get(app, "/docs/reference.js")).text();
      expect(() => new Bun.Transpiler({ loader: "js" }).transformSync(start)).not.toThrow();
      expect(await (await get(app, "/docs")).text()).toContain('<script type="module" src="/docs/reference.js">');
    }),
  );

  test(
    "has no other asset, and says so as a problem",
    withApp(async (app) => {
      for (const name of [
        "index.html",
        "swagger-initializer.js",
        "..%2Fpackage.json",
        "__proto__",
        "reference.js.map",
      ]) {
        const problem = await app.refused("route-not-found", "GET", `/docs/${name}`);
        expect(problem.hint).toContain("/docs");
      }
      expect((await get(app, "/docs/a/b")).status).toBe(404);
      expect((await app.app.request("/docs", { method: "POST" })).status).toBe(405);
    }),
  );
});
