/** GET of a region's data: which bytes, by which names and ranges, in which states, and what the headers say of them. */

import { afterAll, describe, expect, test } from "bun:test";
import { limits, MiB } from "../../src/memory/limits.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { readBytes, toDataPath, writeBytes } from "./support/data-requests.ts";
import { Intruder, lease } from "./support/lease.ts";
import { idInState, slowBytes } from "./support/region-failures.ts";
import { withTcp } from "./support/socket.ts";

const apps = new LentApps();
afterAll(() => apps.end());

const content = Buffer.from("The quick brown fox jumps over the lazy dog.");

/** A region of one tensor `data` with `content` in it. */
async function createFilled(app: TestApp, body: Readonly<Record<string, unknown>> = {}) {
  const region = await app.create({ byte_size: content.length, ...body });
  expect((await writeBytes(app, region.id, content)).status).toBe(200);
  return region;
}

describe("a download", () => {
  test(
    "without a tensor is the bytes of all of them, and of one those of that one",
    apps.with(async (app) => {
      const { id, storage, tensors } = await app.create({
        tensors: [
          { name: "b", dtype: "U8", shape: [5] },
          { name: "w", dtype: "F32", shape: [2, 2] },
          { name: "none", dtype: "F64", shape: [0, 3] },
        ],
      });
      const begin = Math.min(...tensors.map(({ byte_offset }) => byte_offset));
      const all = Buffer.from(Array.from({ length: storage.byte_size - begin }, (_, index) => index + 1));
      using file = new Intruder(storage.path);
      file.write(begin, all);
      expect((await readBytes(app, id)).bytes).toEqual(all);
      for (const { name, byte_offset, byte_size } of tensors) {
        const { bytes, status } = await readBytes(app, id, { tensor: name });
        expect(status).toBe(200);
        expect(bytes, name).toEqual(all.subarray(byte_offset - begin, byte_offset - begin + byte_size));
      }
    }),
  );

  test(
    "of no bytes is empty, of a tensor and of a region",
    apps.with(async (app) => {
      const { id } = await app.create({ tensors: [{ name: "w", dtype: "F32", shape: [0] }] });
      for (const options of [{}, { tensor: "w" }]) {
        const { status, bytes } = await readBytes(app, id, options);
        expect({ status, length: bytes.length }).toEqual({ status: 200, length: 0 });
        const refused = await readBytes(app, id, { ...options, headers: { range: "bytes=0-" } });
        expect(refused.body).toMatchObject({ code: "range-not-satisfiable", complete_length: 0 });
        expect(refused.headers.get("content-range")).toBe("bytes */0");
      }
    }),
  );

  for (const [state, code] of [
    ["creating", "region-busy"],
    ["open", undefined],
    ["sealing", undefined],
    ["sealed", undefined],
    ["draining", "region-draining"],
  ] as const) {
    test(
      `of a region that is ${state} is ${code ?? "answered"}`,
      apps.with(async (app) => {
        const { id, ended } = await bringInto(app, state);
        const answer = await readBytes(app, id, { headers: { range: "bytes=0-0" } });
        if (code === undefined) expect({ ...answer, body: undefined }).toMatchObject({ status: 206 });
        else expect(answer.body).toMatchObject({ code });
        await ended();
      }),
    );
  }

  test(
    "says what it is: bytes, for a file by the region's name, of ranges",
    apps.with(async (app) => {
      const named = await createFilled(app, { name: "weights-7b.v1" });
      const { headers } = await readBytes(app, named.id);
      expect(headers.get("content-type")).toBe("application/octet-stream");
      expect(headers.get("content-disposition")).toBe('attachment; filename="weights-7b.v1.bin"');
      expect(headers.get("accept-ranges")).toBe("bytes");
      expect(headers.get("content-range")).toBeNull();
      const { id } = await createFilled(app);
      expect((await readBytes(app, id)).headers.get("content-disposition")).toBe(`attachment; filename="${id}.bin"`);
    }),
  );
});

describe("a tensor's name", () => {
  const names = [
    "größe 😀 日本",
    "a/b/c",
    "..",
    "../../etc/passwd",
    "100%",
    "%2e%2e",
    "%00",
    "a+b c",
    "a&tensor=b",
    "=",
    "#fragment",
    "?",
    "\n",
    "__proto__",
    "n".repeat(limits.tensorNameBytes),
    "😀".repeat(limits.tensorNameBytes / 4),
  ];

  test(
    "finds its bytes whatever it is",
    apps.with(async (app) => {
      const tensors = names.map((name) => ({ name, dtype: "U8", shape: [1] }));
      const { id } = await app.create({ tensors });
      for (const [index, name] of names.entries()) {
        expect((await writeBytes(app, id, Buffer.of(index + 1), { tensor: name })).status, name).toBe(200);
      }
      for (const [index, name] of names.entries()) {
        expect([...(await readBytes(app, id, { tensor: name })).bytes], name).toEqual([index + 1]);
      }
    }),
  );

  for (const name of ["", "Data", "data ", "constructor", "../data", "n".repeat(512)]) {
    test(
      `${JSON.stringify(name).slice(0, 20)} that no tensor has is refused, in both directions`,
      apps.with(async (app) => {
        const { id } = await createFilled(app);
        for (const { body } of [
          await readBytes(app, id, { tensor: name }),
          await writeBytes(app, id, content, { tensor: name }),
        ]) {
          expect(body).toMatchObject({ code: "tensor-not-found" });
        }
      }),
    );
  }

  test(
    "that is too long or there twice is refused",
    withApp(async (app) => {
      const { id } = await createFilled(app);
      const path = toDataPath(id);
      for (const query of [`?tensor=${"n".repeat(limits.tensorNameBytes + 1)}`, "?tensor=data&tensor=data"]) {
        await app.refused("validation-failed", "GET", `${path}${query}`);
      }
    }),
  );
});

describe("a range", () => {
  for (const [range, from, to] of [
    ["bytes=0-0", 0, 1],
    ["bytes=4-8", 4, 9],
    ["bytes=40-", 40, content.length],
    ["bytes=40-9999", 40, content.length],
    ["bytes=-4", content.length - 4, content.length],
    ["bytes=-9999", 0, content.length],
  ] as const) {
    test(
      `${range} is answered with 206, its bytes and where they are`,
      apps.with(async (app) => {
        const { id } = await createFilled(app);
        for (const tensor of [undefined, "data"]) {
          const options = tensor === undefined ? {} : { tensor };
          const { status, headers, bytes } = await readBytes(app, id, { ...options, headers: { range } });
          expect(status).toBe(206);
          expect(bytes.toString()).toBe(content.subarray(from, to).toString());
          expect(headers.get("content-range")).toBe(`bytes ${from}-${to - 1}/${content.length}`);
        }
      }),
    );
  }

  for (const range of ["bytes=44-", "bytes=-0", "bytes=3-1", "bytes=44-,-0", "bytes=0-1,x", "bytes=x", "bytes"]) {
    test(
      `${range} is refused, with the length of all`,
      apps.with(async (app) => {
        const { id } = await createFilled(app);
        const { status, headers, body } = await readBytes(app, id, { headers: { range } });
        expect(status).toBe(416);
        expect(headers.get("content-range")).toBe(`bytes */${content.length}`);
        expect(body).toMatchObject({ code: "range-not-satisfiable", complete_length: content.length });
        for (const name of ["etag", "content-disposition"]) expect(headers.get(name)).toBeNull();
      }),
    );
  }

  test(
    "of another unit is ignored",
    apps.with(async (app) => {
      const { status, bytes } = await readBytes(app, (await createFilled(app)).id, { headers: { range: "rows=0-1" } });
      expect({ status, text: bytes.toString() }).toEqual({ status: 200, text: content.toString() });
    }),
  );
});

describe("several ranges", () => {
  test(
    "come in one answer, each with where it is, in the order in which they were asked for",
    apps.with(async (app) => {
      const { id } = await createFilled(app);
      const { status, headers, bytes } = await readBytes(app, id, { headers: { range: "bytes=40-,0-2,99-,10-14" } });
      expect(status).toBe(206);
      expect(headers.get("content-range")).toBeNull();
      expect(readParts(headers, bytes)).toEqual([
        { range: "bytes 40-43/44", text: "dog." },
        { range: "bytes 0-2/44", text: "The" },
        { range: "bytes 10-14/44", text: "brown" },
      ]);
    }),
  );

  test(
    "that overlap or touch are one, and one is no multipart",
    apps.with(async (app) => {
      const { id } = await createFilled(app);
      for (const range of ["bytes=0-4,3-8", "bytes=4-8,0-3", "bytes=0-8,99-", "bytes=0-8,"]) {
        const { status, headers, bytes } = await readBytes(app, id, { headers: { range } });
        expect({ status, range: headers.get("content-range"), text: bytes.toString() }).toEqual({
          status: 206,
          range: "bytes 0-8/44",
          text: "The quick",
        });
      }
    }),
  );

  test(
    "that are together more than is read at once are answered with all of it",
    withApp(async (app) => {
      const byteSize = 3 * limits.downloadCopyBytes;
      const { id } = await app.create({ byte_size: byteSize });
      const half = limits.downloadCopyBytes / 2;
      const ask = (last: number) =>
        readBytes(app, id, { headers: { range: `bytes=0-${half - 1},${byteSize - half}-${last}` } });
      const parts = await ask(byteSize - 1);
      expect(readParts(parts.headers, parts.bytes).map(({ text }) => text.length)).toEqual([half, half]);
      const more = await readBytes(app, id, { headers: { range: `bytes=0-${half},${byteSize - half}-` } });
      expect([more.status, more.bytes.length]).toEqual([200, byteSize]);
    }),
  );
});

describe("the whole file", () => {
  const path = "/v1/models/default/regions/weights/file/weights.safetensors";

  test(
    "is what workers map, header first, by the region's id and by its name, under any name that ends as the reader likes",
    withApp(async (app) => {
      const { id, storage } = await createFilled(app, { name: "weights" });
      const file = await Bun.file(storage.path).bytes();
      for (const url of [path, `/v1/regions/${id}/file/x.bin`, `/v1/regions/${id}/file/weights.safetensors`]) {
        const response = await app.app.request(url);
        expect(Buffer.from(await response.bytes()).equals(file)).toBeTrue();
        expect(response.headers.get("content-disposition")).toBe(`attachment; filename="${url.split("/").at(-1)}"`);
      }
      const header = await app.app.request(path, { headers: { range: "bytes=0-7" } });
      expect(header.headers.get("content-range")).toBe(`bytes 0-7/${file.length}`);
      expect(Buffer.from(await header.bytes()).readBigUInt64LE()).toBe(4088n);
    }),
  );

  test(
    "by name is that of the version that is meant, and its ETag tells one from the other",
    apps.with(async (app) => {
      const tags: (string | null)[] = [];
      for (const version of ["1", "2"]) {
        await app.seal((await createFilled(app, { name: "weights", version })).id);
        tags.push((await app.request("GET", path)).headers.get("etag"));
      }
      expect(new Set(tags).size).toBe(2);
      expect((await app.request("GET", `${path}?version=1`)).headers.get("etag")).toBe(tags[0] ?? "");
      const stale = { range: "bytes=0-7", "if-range": tags[0] ?? "" };
      expect((await app.request("GET", path, undefined, { headers: stale })).status).toBe(200);
    }),
  );
});

describe("an ETag", () => {
  test(
    "comes with a sealed region only, whose bytes are final",
    apps.with(async (app) => {
      const { id } = await createFilled(app);
      expect((await readBytes(app, id)).headers.get("etag")).toBeNull();
      await app.seal(id);
      expect((await readBytes(app, id)).headers.get("etag")).toBe(`"${id}"`);
      expect((await readBytes(app, id, { headers: { range: "bytes=0-1" } })).headers.get("etag")).toBe(`"${id}"`);
    }),
  );

  test(
    "in If-Range gives the range if it is the region's, else all",
    apps.with(async (app) => {
      const { id } = await createFilled(app);
      const statusOf = async (ifRange: string, range = "bytes=0-1") => {
        const { status, bytes } = await readBytes(app, id, { headers: { range, "if-range": ifRange } });
        expect(bytes.length).toBe(status === 206 ? 2 : content.length);
        return status;
      };
      // An open region may have changed since.
      expect(await statusOf(`"${id}"`)).toBe(200);
      await app.seal(id);
      expect(await statusOf(`"${id}"`)).toBe(206);
      for (const other of ['"other"', `W/"${id}"`, id, "Wed, 21 Oct 2015 07:28:00 GMT", "*"]) {
        expect(await statusOf(other), other).toBe(200);
      }
      // A range of something else is not even looked at.
      expect(await statusOf('"other"', "bytes=99-")).toBe(200);
    }),
  );
});

describe("over a socket", () => {
  test(
    "a download says how long it is, and HEAD says the same without it",
    withTcp(async ({ app, url }) => {
      const { id } = await createFilled(app);
      for (const [headers, status, length] of [
        [{}, 200, content.length],
        [{ range: "bytes=4-8" }, 206, 5],
      ] as const) {
        const got = await fetch(url + toDataPath(id), { headers });
        const head = await fetch(url + toDataPath(id), { method: "HEAD", headers });
        expect((await got.bytes()).length).toBe(length);
        expect((await head.bytes()).length).toBe(0);
        for (const { status: is, headers: answered } of [got, head]) {
          expect({ status: is, length: answered.get("content-length") }).toEqual({ status, length: String(length) });
        }
        expect(head.headers.get("content-range")).toBe(got.headers.get("content-range"));
      }
    }),
  );

  test(
    "no bytes are no bytes",
    withTcp(async ({ app, url }) => {
      const { id } = await app.create({ tensors: [{ name: "w", dtype: "F32", shape: [0] }] });
      const response = await fetch(url + toDataPath(id));
      expect([response.headers.get("content-length"), (await response.bytes()).length]).toEqual(["0", 0]);
    }),
  );
});

test(
  "a download that the kernel sends holds a lease, and no longer than it takes",
  withApp(async (app) => {
    const { id, storage } = await app.create({ byte_size: limits.downloadCopyBytes + 1 });
    await readBytes(app, id);
    expect((await app.get(id)).in_use).toBeTrue();
    await until("the lease has ended", async () => !(await app.get(id)).in_use);
    expect((await app.remove(id)).state).toBe("deleted");
    expect(await Bun.file(storage.path).exists()).toBeFalse();
  }),
);

test(
  "a download of a file that a worker made shorter or longer is refused, and holds no lease",
  withApp(async (app) => {
    for (const byteSize of [content.length, limits.downloadCopyBytes + 1]) {
      const { id, storage } = await app.create({ byte_size: byteSize });
      using intruder = new Intruder(storage.path);
      for (const change of [-1, 1]) {
        intruder.truncate(storage.byte_size + change);
        for (const range of ["bytes=0-", "bytes=0-3", "bytes=0-3,8-9"]) {
          expect((await readBytes(app, id, { headers: { range } })).body).toMatchObject({ code: "io-error" });
        }
        expect((await app.get(id)).in_use).toBeFalse();
      }
    }
  }),
);

test(
  "other verbs are told which there are",
  apps.with(async (app) => {
    const { id } = await createFilled(app);
    for (const method of ["POST", "DELETE", "PATCH"]) {
      const { status, headers, body } = await app.request(method, toDataPath(id));
      expect([status, body]).toMatchObject([405, { code: "method-not-allowed" }]);
      expect(headers.get("allow")?.split(", ").toSorted()).toEqual(["GET", "HEAD", "OPTIONS", "PUT"]);
    }
    expect((await readBytes(app, id)).bytes).toEqual(content);
  }),
);

/** A region in `state`, and what waits for its way there to end. */
async function bringInto(app: TestApp, state: "creating" | "open" | "sealing" | "sealed" | "draining") {
  const ended = async () => {};
  if (state === "creating") {
    const creation = app.create({ byte_size: slowBytes });
    return { id: await idInState(app, state), ended: async () => void (await creation) };
  }
  if (state === "sealing") {
    const { id } = await app.create({ byte_size: slowBytes });
    const seal = app.seal(id, { checksum: true });
    expect(await idInState(app, state)).toBe(id);
    return { id, ended: async () => void (await seal) };
  }
  const { id, storage } = await app.create({ byte_size: MiB });
  if (state === "sealed") await app.seal(id);
  if (state !== "draining") return { id, ended };
  const held = lease(storage.path);
  await app.remove(id);
  return { id, ended: async () => held[Symbol.dispose]() };
}

/** The parts of an answer with several ranges, as a reader of RFC 2046 finds them: each behind a delimiter on a line of its own. */
function readParts(headers: Headers, bytes: Buffer): { range: string; text: string }[] {
  const boundary = /^multipart\/byteranges; boundary=([\w-]{1,70})$/.exec(headers.get("content-type") ?? "")?.[1];
  const [before, ...parts] = `\r\n${bytes.toString("latin1")}`.split(`\r\n--${boundary}`);
  expect([before, parts.pop()]).toEqual(["", "--\r\n"]);
  return parts.map((part) => {
    const end = part.indexOf("\r\n\r\n");
    const [first, ...lines] = part.slice(0, end).split("\r\n");
    const fields = new Headers(lines.map((line) => line.split(": ", 2) as [string, string]));
    expect([first, fields.get("content-type")]).toEqual(["", "application/octet-stream"]);
    return { range: fields.get("content-range") ?? "", text: part.slice(end + 4) };
  });
}
