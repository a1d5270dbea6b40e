/** Where no operation is: unknown paths, other methods, HEAD, and paths that try to be something else. */

import { afterAll, describe, expect, test } from "bun:test";
import { limits } from "../../src/memory/limits.ts";
import { operations } from "../harness/answers.ts";
import { withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { bareRequest, goodRequest, optionsFor, withoutBody } from "./support/requests.ts";

const apps = new LentApps();
afterAll(() => apps.end());

const methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const tooMuch = " ".repeat(limits.requestBodyBytes + 1);

/** What `Allow` names where these operations are. */
function toAllowed(operationMethods: readonly string[]): readonly string[] {
  const head = operationMethods.includes("GET") ? ["HEAD"] : [];
  return [...operationMethods, ...head, "OPTIONS"].toSorted();
}

const paths = [...new Set(operations.map(({ path }) => path))];

describe("a path that no operation has", () => {
  for (const path of [
    "/v1",
    "/v2/regions",
    "/v1//regions",
    "//v1/regions",
    "/V1/regions",
    "/v1/regions/reg_x/unseal",
    "/v1/regions/reg_x/seal/again",
    "/v1/models/default/regions/weights/data",
    "/v1/regions;x=1",
    "/openapi.yaml",
    "/etc/passwd",
  ]) {
    test(
      `${path} is a problem for every method`,
      apps.with(async (app) => {
        const methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        for (const method of methods) {
          const problem = await app.refused("route-not-found", method, path);
          expect(problem.hint).toContain("/openapi.json");
        }
        expect((await app.request("HEAD", path)).status).toBe(404);
      }),
    );
  }

  test(
    "is shown only in part if it is long",
    apps.with(async (app) => {
      const problem = await app.refused("route-not-found", "GET", `/v1/${"a".repeat(4096)}`);
      expect(problem.detail.length).toBeLessThan(300);
    }),
  );
});

describe("a method that an operation does not take", () => {
  for (const path of paths) {
    const taken = operations.filter((operation) => operation.path === path);
    const allowed = toAllowed(taken.map(({ method }) => method));
    const [first] = taken;
    if (first === undefined) continue;
    const bare = bareRequest(first).path;
    const others = [...methods.filter((method) => method !== "HEAD"), "PURGE", "PROPFIND", "LOCK"].filter(
      (method) => !allowed.includes(method),
    );

    test(
      `${others.join(", ")} ${path} name ${allowed.join(", ")} instead, and so does OPTIONS`,
      apps.with(async (app) => {
        for (const method of others) {
          const { status, headers, body } = await app.request(method, bare);
          expect({ status, body }).toMatchObject({ status: 405, body: { code: "method-not-allowed" } });
          expect(headers.get("allow")?.split(", ").toSorted().join()).toBe(allowed.join());
        }
        const { status, headers, body } = await app.request("OPTIONS", bare);
        expect({ status, body }).toEqual({ status: 204, body: undefined });
        expect(headers.get("allow")?.split(", ").toSorted().join()).toBe(allowed.join());
      }),
    );
  }

  test(
    "with a body is not asked what the body is",
    apps.with(async (app) => {
      for (const [body, type] of [
        ["{}", "application/json"],
        ["a=b", "text/plain"],
        [tooMuch, "application/json"],
      ] as const) {
        const answer = await app.request("PUT", "/v1/regions", body, { headers: { "content-type": type } });
        expect(answer.body).toMatchObject({ code: "method-not-allowed" });
        await app.refused("route-not-found", "POST", "/nowhere", body, { headers: { "content-type": type } });
      }
    }),
  );
});

describe("OPTIONS", () => {
  test(
    "of what is in no document names what it takes, too",
    withApp(async (app) => {
      for (const path of ["/docs", "/docs/", "/docs/reference.js", "/openapi.json", "/v1/events/ws"]) {
        const { status, headers } = await app.request("OPTIONS", path);
        expect({ path, status, allow: headers.get("allow") }).toEqual({
          path,
          status: 204,
          allow: "GET, HEAD, OPTIONS",
        });
      }
    }),
  );

  test(
    "allows no page of another origin anything, and minds no body",
    apps.with(async (app) => {
      const headers = {
        origin: "https://evil.example",
        "access-control-request-method": "POST",
        "content-type": "x/y",
      };
      const answer = await app.request("OPTIONS", "/v1/regions", "no JSON", { headers });
      expect(answer.status).toBe(204);
      expect([...answer.headers.keys()].toSorted()).toEqual(["allow", "x-request-id"]);
    }),
  );

  test(
    "of / is what haproxy asks unless told otherwise: it is answered for as long as requests are welcome",
    withApp(async (app) => {
      const { status, headers } = await app.request("OPTIONS", "/");
      expect({ status, allow: headers.get("allow") }).toEqual({ status: 204, allow: "GET, HEAD, OPTIONS" });
      app.store.stop();
      const late = await app.app.request("/", { method: "OPTIONS" });
      expect([late.status, await late.json()]).toMatchObject([503, { code: "shutting-down" }]);
    }),
  );
});

describe("HEAD", () => {
  for (const { operationId } of operations.filter(({ method }) => method === "GET")) {
    test(
      `of ${operationId} answers as GET does, without the body`,
      withApp(async (app) => {
        const { path } = await goodRequest(app, operationId);
        const get = await app.request("GET", path);
        const head = await app.request("HEAD", path);
        expect(head.status).toBe(get.status);
        expect(head.body).toBeUndefined();
        for (const name of ["content-type", "etag"]) expect(head.headers.get(name)).toBe(get.headers.get(name));
      }, optionsFor(operationId)),
    );
  }

  test(
    "of what takes POST alone is not allowed",
    apps.with(async (app) => {
      const { status, headers } = await app.request("HEAD", "/v1/regions/reg_x/seal");
      expect({ status, allow: headers.get("allow") }).toEqual({ status: 405, allow: "POST, OPTIONS" });
    }),
  );
});

describe("a name in a path", () => {
  const hostile = {
    "a slash": "a%2Fb",
    "a slash escaped twice": "a%252Fb",
    "a NUL": "a%00b",
    "a line break": "a%0A",
    "a space": "a%20b",
    "a backslash": "a%5Cb",
    "4 KiB": "n".repeat(4096),
    "129 characters": "n".repeat(129),
    "an emoji": "%F0%9F%98%80",
    "an emoji without escapes": "😀",
    "half a character": "%F0%9F",
    "an escape that is none": "%zz",
    "a percent sign": "%25",
    "dots escaped twice": "%252e%252e",
    "three dots": "...",
    "a leading dot": ".weights",
    "a question mark": "a%3Fb",
    "a label's value": "a=b",
  };

  for (const [what, name] of Object.entries(hostile)) {
    test(
      `with ${what} is refused for a model and for a region, and nothing is touched`,
      apps.with(async (app) => {
        for (const [method, path] of [
          ["GET", `/v1/models/${name}`],
          ["DELETE", `/v1/models/${name}?drain=true`],
          ["GET", `/v1/models/${name}/regions/weights`],
          ["GET", `/v1/models/default/regions/${name}`],
          ["GET", `/v1/regions?model=${name}`],
          ["GET", `/v1/regions?name=${name}`],
        ] as const) {
          const problem = await app.refused("validation-failed", method, path);
          expect(problem.detail.length).toBeLessThan(300);
        }
      }),
    );
  }

  // A URL parser takes these for "the directory above" before anybody sees a name.
  for (const dots of ["..", "%2e%2e", "%2E.", ".%2e"]) {
    test(
      `that is ${dots} leads to another route and never above it`,
      apps.with(async (app) => {
        for (const path of [
          `/v1/models/${dots}`,
          `/v1/models/${dots}/${dots}/${dots}/etc/passwd`,
          `/${dots}/etc/passwd`,
        ]) {
          await app.refused("route-not-found", "GET", path);
        }
        await app.refused("region-not-found", "GET", `/v1/models/${dots}/regions/weights`);
      }),
    );
  }

  test(
    "is a region's id only if it is one whole",
    apps.with(async (app) => {
      const { id } = await app.create();
      const ids = [
        id.slice(4),
        id.slice(0, -1),
        `${id}a`,
        id.toUpperCase(),
        `${id}%00`,
        `reg_${"1".repeat(26)}`,
        "reg_",
      ];
      for (const other of [...ids, `..%2F${id}`, `%20${id}`, "tensord.default.x", "__proto__"]) {
        await app.refused("region-not-found", "GET", `/v1/regions/${other}`);
        await app.refused("region-not-found", "DELETE", `/v1/regions/${other}`);
      }
      await app.refused("validation-failed", "GET", `/v1/regions/${"r".repeat(65)}`);
      expect((await app.get(id)).id).toBe(id);
    }),
  );
});

describe("a body that the operation does not take", () => {
  const bodies = {
    "no JSON": { body: "not JSON", contentType: "text/plain" },
    "more bytes than any may have": { body: " ".repeat(limits.requestBodyBytes + 1), contentType: "application/json" },
    "more levels than any may have": { body: "[".repeat(100), contentType: "application/json" },
  };
  for (const { operationId, method } of withoutBody) {
    if (method === "GET") continue;
    for (const [what, { body, contentType }] of Object.entries(bodies)) {
      test(
        `of ${what} is ignored by ${operationId}, or refused as declared`,
        withApp(async (app) => {
          const { path } = await goodRequest(app, operationId);
          const before = app.footprint();
          const { status } = await app.request(method, path, body, { headers: { "content-type": contentType } });
          if (status < 400) return;
          expect(app.footprint()).toEqual(before);
          expect((await app.request(method, path)).status).toBe(200);
        }, optionsFor(operationId)),
      );
    }
  }
});
