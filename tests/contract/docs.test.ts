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

/** What the page has the browser load, as it stands in a page that the browser has from `at`. */
async function listLoads(app: TestApp, at = "http://localhost/docs"): Promise<string[]> {
  const page = await (await get(app, at.endsWith("/") ? "/docs/" : "/docs")).text();
  const urls = [...page.matchAll(/\b(?:src|href)="([^"]*)"/g)].map(([, url = ""]) => new URL(url, at));
  return urls.map((url) => (url.protocol === "data:" ? url.href : url.pathname));
}

/** What its script asks for, and where what is tried out on it goes, on a page below `prefix`. */
async function runStart(app: TestApp, prefix: string) {
  const start = await (await get(app, "/docs/reference.js")).text();
  const asked: string[] = [];
  let servers: unknown;
  const body = start.replaceAll("import.meta.url", "url").replace("await fetch", "await load");
  const run = new Function("load", "SwaggerUIBundle", "url", `return (async () => { ${body} })();`);
  const load = async (url: URL) => {
    asked.push(url.href);
    return new Response('{"servers":[{"url":"http://127.0.0.1:7411"}]}');
  };
  await run(
    load,
    ({ spec }: { spec: { servers: unknown } }) => (servers = spec.servers),
    `${prefix}/docs/reference.js`,
  );
  return { asked, servers };
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
      expect(start).toContain("validatorUrl: null");
      expect((await (await get(app, "/docs")).text()).match(/\bhttps?:/)).toBeNull();
    }),
  );

  for (const prefix of ["", "/tensord", "/a/b"]) {
    test(
      `works below ${prefix || "/"}: what it loads, asks for and tries out is below it`,
      withApp(async (app) => {
        for (const slash of ["", "/"]) {
          expect((await listLoads(app, `https://gpu.example.com${prefix}/docs${slash}`)).toSorted()).toEqual([
            ...["reference.js", "swagger-ui-bundle.js", "swagger-ui.css"].map((name) => `${prefix}/docs/${name}`),
            "data:,",
          ]);
        }
        expect(await runStart(app, `https://gpu.example.com${prefix}`)).toEqual({
          asked: [`https://gpu.example.com${prefix}/openapi.json`],
          servers: [{ url: prefix || "/" }],
        });
      }),
    );
  }

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
      expect(await (await get(app, "/docs")).text()).toContain('<script type="module" src="docs/reference.js">');
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

describe("the served document", () => {
  const serversOf = async (app: TestApp, prefix?: string) => {
    const headers = prefix === undefined ? {} : { "x-forwarded-prefix": prefix };
    return ((await (await app.app.request("/openapi.json", { headers })).json()) as { servers: { url: string }[] })
      .servers;
  };

  test(
    "names the prefix that a proxy says it took off, else the default address",
    withApp(async (app) => {
      expect((await serversOf(app)).map(({ url }) => url)).toEqual(["http://127.0.0.1:7411"]);
      for (const prefix of ["/tensord", "/tensord/", "/a/b-c/d.e_f~g"]) {
        expect((await serversOf(app, prefix)).map(({ url }) => url)).toEqual([prefix.replace(/\/$/, "")]);
      }
    }),
  );

  for (const prefix of [
    "",
    "/",
    "tensord",
    "//evil.example",
    "/a//b",
    "https://evil.example",
    "/a b",
    "/a?b",
    "/%2e",
    "/..",
    "/a/../b",
  ]) {
    test(
      `takes ${JSON.stringify(prefix)} for no prefix`,
      withApp(async (app) =>
        expect((await serversOf(app, prefix)).map(({ url }) => url)).toEqual(["http://127.0.0.1:7411"]),
      ),
    );
  }
});
