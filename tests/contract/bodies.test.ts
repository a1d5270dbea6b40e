/** How a body travels: its content type, its encoding, and what becomes of one that is not there. */

import { afterAll, describe, expect, test } from "bun:test";
import type { Problem, Region } from "../harness/answers.ts";
import { withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { goodRequest, optionsFor, withBody } from "./support/requests.ts";

const apps = new LentApps();
afterAll(() => apps.end());

const body = JSON.stringify({ byte_size: 64, ttl_ms: 60_000 });
/** Nothing in it is required, so that nobody would miss it if it were not read. */
const sealing = JSON.stringify({ checksum: true });

describe("a content type", () => {
  for (const contentType of [
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON",
    'application/json; charset="utf-8"',
    "application/merge-patch+json",
  ]) {
    test(
      `${contentType} is JSON`,
      apps.with(async (app) => {
        const options = { headers: { "content-type": contentType } };
        const { id } = await app.ok<Region>(201, "POST", "/v1/regions", body, options);
        const sealed = await app.ok<Region>(200, "POST", `/v1/regions/${id}/seal`, sealing, options);
        expect(sealed.checksum).not.toBeNull();
      }),
    );
  }

  for (const contentType of ["application/json ;charset=UTF-8", "application/json;", "application/json; charset"]) {
    test(
      `${contentType} is JSON or refused, but its body is never ignored`,
      apps.with(async (app) => {
        const { id } = await app.create();
        const headers = { "content-type": contentType };
        const { status, body: answer } = await app.request("POST", `/v1/regions/${id}/seal`, sealing, { headers });
        if (status === 415) return;
        expect({ status, isHashed: (answer as Region).checksum !== null }).toEqual({ status: 200, isHashed: true });
      }),
    );
  }

  for (const contentType of [
    "text/plain",
    "text/json",
    "application/jsonp",
    "application/json-seq",
    "application/xml",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "json",
    "",
    "*/*",
    "text/plain, application/json",
    "text/plain; application/json",
  ]) {
    test(
      `${JSON.stringify(contentType)} is not, and a form of a web page is none either`,
      apps.with(async (app) => {
        const options = { headers: { "content-type": contentType } };
        await app.refused("unsupported-media-type", "POST", "/v1/regions", body, options);
        // Nor is it ignored where a body may be left out.
        const { id } = await app.create();
        await app.refused("unsupported-media-type", "POST", `/v1/regions/${id}/seal`, sealing, options);
      }),
    );
  }
});

describe("a content encoding", () => {
  for (const encoding of ["gzip", "x-gzip", "br", "zstd", "deflate", "GZIP", "gzip, identity", "aws-chunked", "none"]) {
    test(
      `${encoding} is refused for JSON and for data, and what is taken instead is told`,
      withApp(async (app) => {
        const { id } = await app.create({ byte_size: 3 });
        const before = app.footprint();
        for (const [method, path, sent, type] of [
          ["POST", "/v1/regions", Bun.gzipSync(body), "application/json"],
          ["POST", "/v1/regions", Buffer.from(body), "application/json"],
          ["POST", `/v1/regions/${id}/seal`, Bun.gzipSync(sealing), "application/json"],
          ["PUT", `/v1/regions/${id}/data`, Buffer.from("abc"), "application/octet-stream"],
          ["PUT", `/v1/regions/${id}/data`, Bun.gzipSync("abc"), "application/octet-stream"],
        ] as const) {
          const headers = { "content-type": type, "content-encoding": encoding };
          const answer = await app.request(method, path, sent, { headers });
          expect(answer).toMatchObject({ status: 415, body: { code: "unsupported-media-type" } });
          expect((answer.body as Problem).detail).toContain(`Content-Encoding is ${JSON.stringify(encoding)}`);
          expect(answer.headers.get("accept-encoding")).toBe("identity");
        }
        expect(app.footprint()).toEqual(before);
        expect(await (await app.app.request(`/v1/regions/${id}/data`)).text()).toBe("\0\0\0");
      }),
    );
  }

  test(
    "identity is none, and one of a body that is not there is nobody's matter",
    apps.with(async (app) => {
      for (const encoding of ["identity", "Identity", " identity , identity", ""]) {
        const options = { headers: { "content-type": "application/json", "content-encoding": encoding } };
        const { id } = await app.ok<Region>(201, "POST", "/v1/regions", body, options);
        await app.ok(200, "PUT", `/v1/regions/${id}/data`, Buffer.alloc(64), options);
        await app.ok(200, "DELETE", `/v1/regions/${id}`, undefined, { headers: { "content-encoding": "gzip" } });
      }
    }),
  );
});

describe("a body that is not there", () => {
  for (const { operationId, requestBody } of withBody) {
    if (requestBody?.required !== true) continue;
    test(
      `is refused by ${operationId}, which requires one, with a content type and without`,
      withApp(async (app) => {
        const { method, path } = await goodRequest(app, operationId);
        const before = app.footprint();
        const revisions = () => [...app.store.books.regions.after(0)].map(({ revision }) => revision);
        const revisionsBefore = revisions();
        const typed = await app.request(method, path, undefined, { headers: { "content-type": "application/json" } });
        expect(typed.body).toMatchObject({ code: "malformed-body" });
        const bare = await app.request(method, path);
        expect({ status: bare.status, isRefused: bare.status >= 400 && bare.status < 500 }).toMatchObject({
          isRefused: true,
        });
        expect(app.footprint()).toEqual(before);
        expect(revisions()).toEqual(revisionsBefore);
      }, optionsFor(operationId)),
    );
  }
});

describe("the text of a body", () => {
  const withName = (name: Uint8Array) =>
    Buffer.concat([
      Buffer.from('{"ttl_ms":60000,"tensors":[{"dtype":"U8","shape":[1],"name":"'),
      name,
      Buffer.from('"}]}'),
    ]);

  test(
    "may be any Unicode, by itself or by an escape, and comes back the same",
    apps.with(async (app) => {
      for (const [sent, name] of [
        [Buffer.from("größe 😀 \u2028 日本"), "größe 😀 \u2028 日本"],
        [Buffer.from("\\u0067\\ud83d\\ude00\\n\\/"), "g😀\n/"],
        [Buffer.from("\ufeff"), "\ufeff"],
        [Buffer.from("../../etc/passwd"), "../../etc/passwd"],
      ] as const) {
        const region = await app.ok<Region>(201, "POST", "/v1/regions", withName(sent));
        expect(region.tensors.map((tensor) => tensor.name)).toEqual([name]);
      }
    }),
  );

  test(
    "is refused if it is not UTF-8, since two names would become one",
    apps.with(async (app) => {
      for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xf8, 0x88, 0x80, 0x80, 0x80]]) {
        await app.refused("malformed-body", "POST", "/v1/regions", withName(Uint8Array.from(bytes)));
      }
    }),
  );

  test(
    "that comes in pieces is one text",
    withApp(async (app) => {
      const bytes = withName(Buffer.from("😀"));
      const stream = new ReadableStream({
        start(controller) {
          for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
          controller.close();
        },
      });
      const headers = { "content-type": "application/json" };
      const request = new Request("http://localhost/v1/regions", { method: "POST", body: stream, headers });
      const region = (await (await app.app.fetch(request, {})).json()) as Region;
      expect(region.tensors[0]?.name).toBe("😀");
    }),
  );
});
