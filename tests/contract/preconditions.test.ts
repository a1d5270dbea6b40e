/** If-Match and If-None-Match (RFC 9110, section 13), wherever an ETag is: who knows what stood before changes nothing. */

import { describe, expect, test } from "bun:test";
import type { Answer, Deletion, Region } from "../harness/answers.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { readBytes, toDataPath, writeBytes } from "./support/data-requests.ts";
import { lease } from "./support/lease.ts";

type Headers = Readonly<Record<string, string>>;

const bytes = Buffer.from("0123456789abcdef");
const byName = "/v1/models/default/regions/weights";
const toFilePath = (id: string) => `/v1/regions/${id}/file/weights.safetensors`;

async function tagOf(app: TestApp, path: string): Promise<string> {
  const { headers } = await app.request("GET", path);
  return headers.get("etag") ?? "";
}

/** A named region of 16 bytes that was changed since its creation, and its ETag from before and from now. */
async function createChanged(app: TestApp) {
  const { id } = await app.create({ name: "weights", byte_size: bytes.length });
  const path = `/v1/regions/${id}`;
  const stale = await tagOf(app, path);
  await app.ok(200, "PATCH", path, { labels: { changed: "since" } });
  return { id, path, stale, current: await tagOf(app, path) };
}

interface Change {
  readonly what: string;
  readonly ask: (app: TestApp, id: string, headers: Headers) => Promise<Answer>;
}

const changes: readonly Change[] = [
  {
    what: "PATCH",
    ask: (app, id, headers) => app.request("PATCH", `/v1/regions/${id}`, { ttl_ms: 9000 }, { headers }),
  },
  { what: "PATCH by name", ask: (app, _, headers) => app.request("PATCH", byName, { ttl_ms: 9000 }, { headers }) },
  { what: "a seal", ask: (app, id, headers) => app.request("POST", `/v1/regions/${id}/seal`, {}, { headers }) },
  { what: "PUT of data", ask: (app, id, headers) => writeBytes(app, id, bytes, { headers }) },
  { what: "DELETE", ask: (app, id, headers) => app.request("DELETE", `/v1/regions/${id}`, undefined, { headers }) },
  { what: "DELETE by name", ask: (app, _, headers) => app.request("DELETE", byName, undefined, { headers }) },
];

for (const { what, ask } of changes) {
  describe(`${what}`, () => {
    test(
      "by who knows what stood before is refused, and changes nothing",
      withApp(async (app) => {
        const { id, stale, current } = await createChanged(app);
        const before = await app.get(id);
        for (const headers of [
          { "if-match": stale },
          { "if-match": `"other", ${stale}` },
          { "if-match": '"reg_other.2"' },
          { "if-match": '""' },
          { "if-none-match": current },
          { "if-none-match": `"other", W/${current}` },
          { "if-none-match": "*" },
          // Both count.
          { "if-match": current, "if-none-match": "*" },
        ]) {
          const { status, body } = await ask(app, id, headers);
          expect({ headers, status, body }).toMatchObject({
            headers,
            status: 412,
            body: { code: "revision-mismatch" },
          });
        }
        const { last_used_at: _, ...after } = await app.get(id);
        expect(before).toMatchObject(after);
        expect((await readBytes(app, id)).bytes).toEqual(Buffer.alloc(bytes.length));
      }),
    );

    for (const [how, toHeaders] of [
      ["the ETag", (current: string) => ({ "if-match": current })],
      ["the ETag that a proxy weakened", (current: string) => ({ "if-match": `W/${current}` })],
      ["a list with the ETag in it", (current: string) => ({ "if-match": `"a,b" ,, W/"",\t${current},` })],
      ["whatever there is", () => ({ "if-match": " * " })],
      ["other ETags that it must not be", () => ({ "if-none-match": '"other", W/"1"' })],
    ] as const) {
      test(
        `by who knows ${how} is done`,
        withApp(async (app) => {
          const { id, current } = await createChanged(app);
          expect((await ask(app, id, toHeaders(current))).status).toBe(200);
        }),
      );
    }

    for (const garbage of ["1", "", '"', "'1'", "*, *", 'w/"1"', '"1" "2"', ",", '"1", 2', 'W/ "1"']) {
      test(
        `on ${JSON.stringify(garbage)} is refused, and not done by a guess`,
        withApp(async (app) => {
          const { id } = await createChanged(app);
          for (const name of ["if-match", "if-none-match"]) {
            const { body } = await ask(app, id, { [name]: garbage });
            expect(body).toMatchObject({ code: "validation-failed" });
          }
          expect((await app.get(id)).revision).toBe(2);
        }),
      );
    }
  });
}

describe("a revision alone", () => {
  test(
    "is enough where the region is asked for by its id, which no other has",
    withApp(async (app) => {
      const { id, path } = await createChanged(app);
      const headers = { "if-match": '"2"' };
      expect((await app.request("PATCH", path, { ttl_ms: 9000 }, { headers })).status).toBe(200);
      expect((await app.request("DELETE", path, undefined, { headers })).status).toBe(412);
      expect((await app.get(id)).revision).toBe(3);
    }),
  );

  test(
    "is not enough by name, where the next build has the same one",
    withApp(async (app) => {
      const first = await app.create({ name: "weights" });
      await app.seal(first.id);
      const known = await tagOf(app, byName);
      const next = await app.create({ name: "weights", if_exists: "replace" });
      await app.seal(next.id);
      expect((await app.get(next.id)).revision).toBe(2);
      for (const stale of [known, '"2"']) {
        const headers = { "if-match": stale };
        expect((await app.request("DELETE", byName, undefined, { headers })).status, stale).toBe(412);
      }
      expect((await app.request("GET", byName, undefined, { headers: { "if-none-match": known } })).status).toBe(200);
      const headers = { "if-match": await tagOf(app, byName) };
      expect((await app.request("DELETE", byName, undefined, { headers })).status).toBe(200);
    }),
  );

  test(
    "is enough for a model, and its ETag tells it from one that was registered anew",
    withApp(async (app) => {
      const path = "/v1/models/llama";
      await app.register("llama");
      const known = await tagOf(app, path);
      const ask = (ifMatch: string) =>
        app.request("PATCH", path, { memory_limit_bytes: 9 }, { headers: { "if-match": ifMatch } });
      await app.ok(200, "DELETE", path);
      const before = Date.now();
      while (Date.now() === before) await Promise.resolve();
      await app.register("llama");
      expect((await ask(known)).status).toBe(412);
      expect((await ask('"1"')).status).toBe(200);
    }),
  );
});

describe("a model", () => {
  const path = "/v1/models/llama";

  test(
    "is unregistered, and its regions with it, only by who knows it as it is",
    withApp(async (app) => {
      await app.register("llama");
      await app.create({ model: "llama" });
      const stale = await tagOf(app, path);
      await app.ok(200, "PATCH", path, { memory_limit_bytes: 1_000_000 });
      const remove = (ifMatch: string) =>
        app.request("DELETE", `${path}?drain=true`, undefined, { headers: { "if-match": ifMatch } });
      expect((await remove(stale)).body).toMatchObject({ code: "revision-mismatch" });
      expect((await app.stats()).regions.open).toBe(1);
      expect((await remove(await tagOf(app, path))).body).toMatchObject({ state: "deleted" });
    }),
  );
});

describe("If-None-Match of a GET", () => {
  for (const [what, find] of [
    ["a region", async (app: TestApp) => `/v1/regions/${(await app.create()).id}`],
    ["a region by name", async (app: TestApp) => (await app.create({ name: "weights" })) && byName],
    ["a model", async () => "/v1/models/default"],
    ["data", async (app: TestApp) => toDataPath((await app.seal((await app.create()).id)).id)],
    ["a file", async (app: TestApp) => toFilePath((await app.seal((await app.create()).id)).id)],
  ] as const) {
    test(
      `of ${what} is answered with 304 and no body if the client has it, and else with all of it`,
      withApp(async (app) => {
        const path = await find(app);
        const tag = await tagOf(app, path);
        expect(tag).toMatch(/^"[^"]+"$/);
        for (const known of [tag, `W/${tag}`, `"other", ${tag}`, "*"]) {
          for (const method of ["GET", "HEAD"]) {
            const { status, headers, body } = await app.request(method, path, undefined, {
              headers: { "if-none-match": known },
            });
            expect({ known, status, body, tag: headers.get("etag"), type: headers.get("content-type") }).toEqual({
              known,
              status: 304,
              body: undefined,
              tag,
              type: null,
            });
          }
        }
        const { status } = await app.request("GET", path, undefined, { headers: { "if-none-match": '"other"' } });
        expect(status).toBe(200);
        await app.refused("revision-mismatch", "GET", path, undefined, { headers: { "if-match": '"other"' } });
      }),
    );
  }

  test(
    "knows nothing of the bytes of an open region, which workers change without a word",
    withApp(async (app) => {
      const { id } = await app.create();
      for (const path of [toDataPath(id), toFilePath(id)]) {
        const { status } = await app.request("GET", path, undefined, { headers: { "if-none-match": `"${id}"` } });
        expect(status).toBe(200);
        await app.refused("revision-mismatch", "GET", path, undefined, { headers: { "if-match": `"${id}"` } });
      }
    }),
  );

  test(
    "comes before a range, which is then not looked at",
    withApp(async (app) => {
      const { id } = await app.seal((await app.create()).id);
      const headers = { "if-none-match": `"${id}"`, range: "bytes=9999-" };
      expect((await readBytes(app, id, { headers })).status).toBe(304);
    }),
  );

  test(
    "is asked by nobody's cache: what is measured at the moment is not in the ETag",
    withApp(async (app) => {
      const { id, storage } = await app.create();
      const path = `/v1/regions/${id}`;
      const tag = await tagOf(app, path);
      using _ = lease(storage.path);
      const { headers, body } = await app.request("GET", path);
      expect(body).toMatchObject({ in_use: true });
      expect([headers.get("etag"), headers.get("cache-control")]).toEqual([tag, "no-store"]);
      expect((await app.request("GET", "/v1/models/default")).headers.get("cache-control")).toBe("no-store");
    }),
  );
});

describe("a request that would fail anyhow", () => {
  test(
    "says how, and not that its condition does not hold",
    withApp(async (app) => {
      const headers = { "if-match": '"other"' };
      const { id } = await app.create();
      await app.seal(id);
      await app.refused("region-sealed", "POST", `/v1/regions/${id}/seal`, {}, { headers });
      expect((await writeBytes(app, id, Buffer.alloc(64), { headers })).body).toMatchObject({ code: "region-sealed" });
      await app.refused("model-in-use", "DELETE", "/v1/models/default", undefined, { headers });
      await app.refused("region-not-found", "DELETE", "/v1/regions/reg_none", undefined, { headers });
    }),
  );

  test(
    "of a region that is deleted already deletes it, so that a lost answer can be asked for again",
    withApp(async (app) => {
      const { id, path, current } = await createChanged(app);
      const { storage } = await app.get(id);
      using _ = lease(storage.path);
      const headers = { "if-match": current };
      const remove = () => app.ok<Deletion>(200, "DELETE", path, undefined, { headers });
      expect(await remove()).toMatchObject({ state: "draining" });
      expect(await remove()).toMatchObject({ state: "draining" });
    }),
  );
});

test(
  "a seal answers with the ETag that the next change is to name",
  withApp(async (app) => {
    const { id, path, current } = await createChanged(app);
    const { headers, body } = await app.request("POST", `${path}/seal`, {}, { headers: { "if-match": current } });
    expect((body as Region).state).toBe("sealed");
    expect(headers.get("etag")).toBe(await tagOf(app, path));
    expect(headers.get("etag")).toBe(`"${id}.3"`);
  }),
);
