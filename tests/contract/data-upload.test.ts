/** PUT of a region's data: where the bytes go, how long the body must be, and what a refusal leaves untouched. */

import { afterAll, describe, expect, test } from "bun:test";
import { limits, MiB } from "../../src/memory/limits.ts";
import type { Region } from "../harness/answers.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { type DataOptions, readBytes, sendStream, toDataPath, writeBytes } from "./support/data-requests.ts";
import { Intruder, lease } from "./support/lease.ts";
import { slowBytes } from "./support/region-failures.ts";

const apps = new LentApps();
afterAll(() => apps.end());

const before = Buffer.from("................");
const bytes = Buffer.from("0123456789abcdef");

/** A region of 16 dots. */
async function createDotted(app: TestApp): Promise<Region> {
  const region = await app.create({ byte_size: before.length });
  expect((await writeBytes(app, region.id, before)).status).toBe(200);
  return region;
}

async function expectContent(app: TestApp, id: string, expected: string): Promise<void> {
  expect((await readBytes(app, id)).bytes.toString()).toBe(expected);
}

describe("an upload", () => {
  test(
    "lies in the file where the descriptor says, and nowhere else",
    apps.with(async (app) => {
      const { id, storage, tensors } = await app.create({
        tensors: ["a", "b", "c"].map((name) => ({ name, dtype: "U16", shape: [3] })),
      });
      const [, middle] = tensors.toSorted((a, b) => a.byte_offset - b.byte_offset);
      if (middle === undefined) throw new Error("three tensors");
      using file = new Intruder(storage.path);
      const header = file.read(0, 4096);
      const { status, body } = await writeBytes(app, id, Buffer.from("tensor"), { tensor: middle.name });
      expect({ status, body }).toEqual({ status: 200, body: { written_bytes: 6 } });
      expect(file.read(4096, 18).toString()).toBe("\0\0\0\0\0\0tensor\0\0\0\0\0\0");
      expect(file.read(0, 4096)).toEqual(header);
      expect((await app.get(id)).revision).toBe(1);
    }),
  );

  test(
    "may have any content type, or none",
    apps.with(async (app) => {
      const { id } = await createDotted(app);
      for (const type of ["application/octet-stream", "application/json", "text/plain; charset=utf-16", "x/y", ""]) {
        const { status } = await writeBytes(app, id, bytes, { headers: { "content-type": type } });
        expect({ type, status }).toEqual({ type, status: 200 });
      }
      await expectContent(app, id, bytes.toString());
    }),
  );

  test(
    "may be longer than any other body",
    withApp(async (app) => {
      const large = Buffer.alloc(limits.requestBodyBytes + MiB + 1, "tensor");
      const { id } = await app.create({ byte_size: large.length });
      for (const slash of ["", "/"]) {
        const { status } = await app.request("PUT", `${toDataPath(id)}${slash}`, large);
        expect(status).toBe(200);
      }
      expect((await readBytes(app, id)).bytes.equals(large)).toBeTrue();
    }),
  );

  test(
    "of no bytes fills a tensor of none",
    apps.with(async (app) => {
      const { id } = await app.create({
        tensors: [
          { name: "none", dtype: "F32", shape: [0] },
          { name: "w", dtype: "U8", shape: [2] },
        ],
      });
      for (const body of [undefined, new Uint8Array(0)]) {
        const answer = await writeBytes(app, id, body, { tensor: "none" });
        expect(answer).toMatchObject({ status: 200, body: { written_bytes: 0 } });
        expect((await writeBytes(app, id, body, { tensor: "w" })).body).toMatchObject({ code: "validation-failed" });
      }
      expect((await writeBytes(app, id, Buffer.of(1), { tensor: "none" })).body).toMatchObject({
        code: "payload-too-large",
      });
    }),
  );

  test(
    "of a part fills that part",
    apps.with(async (app) => {
      const { id } = await createDotted(app);
      for (const [range, part] of [
        ["bytes 0-0/16", "A"],
        ["bytes 15-15/*", "Z"],
        ["bytes 4-7/*", "part"],
      ] as const) {
        const answer = await writeBytes(app, id, Buffer.from(part), { headers: { "content-range": range } });
        expect(answer).toMatchObject({ status: 200, body: { written_bytes: part.length } });
      }
      await expectContent(app, id, "A...part.......Z");
    }),
  );

  test(
    "in pieces is one",
    apps.with(async (app) => {
      const { id } = await createDotted(app);
      const upload = sendStream(app, id);
      for (const byte of bytes) upload.send(Buffer.of(byte));
      upload.send(new Uint8Array(0));
      upload.end();
      expect(await upload.answer).toMatchObject({ status: 200 });
      await expectContent(app, id, bytes.toString());
    }),
  );
});

describe("an upload that is refused beforehand writes nothing", () => {
  const cases: readonly (readonly [what: string, body: Buffer, options: DataOptions, code: string])[] = [
    ["one byte too many", Buffer.alloc(17), {}, "payload-too-large"],
    ["one byte too few", Buffer.alloc(15), {}, "validation-failed"],
    ["a part of another length", Buffer.alloc(4), { headers: { "content-range": "bytes 0-4/*" } }, "validation-failed"],
    ["more than its part", Buffer.alloc(16), { headers: { "content-range": "bytes 0-4/*" } }, "payload-too-large"],
    ["a part past the end", bytes, { headers: { "content-range": "bytes 1-16/*" } }, "range-not-satisfiable"],
    ["a part of another whole", bytes, { headers: { "content-range": "bytes 0-15/17" } }, "range-not-satisfiable"],
    ["a part that is none", bytes, { headers: { "content-range": "0-15" } }, "range-not-satisfiable"],
    ["a Range", bytes, { headers: { range: "bytes=0-15" } }, "validation-failed"],
    ["a Range of another unit", bytes, { headers: { range: "rows=0-1" } }, "validation-failed"],
  ];
  for (const [what, body, options, code] of cases) {
    test(
      what,
      apps.with(async (app) => {
        const { id } = await createDotted(app);
        const headers = { "content-length": String(body.length), ...options.headers };
        expect((await writeBytes(app, id, body, { headers })).body).toMatchObject({ code });
        await expectContent(app, id, before.toString());
      }),
    );
  }

  test(
    "to a region that is sealed, or is being sealed",
    apps.with(async (app) => {
      const sealed = await createDotted(app);
      await app.seal(sealed.id);
      expect((await writeBytes(app, sealed.id, bytes)).body).toMatchObject({ code: "region-sealed" });
      await expectContent(app, sealed.id, before.toString());
      const slow = await app.create({ byte_size: slowBytes });
      const seal = app.seal(slow.id, { checksum: true });
      await until("the seal is under way", async () => (await app.get(slow.id)).state === "sealing");
      const part = { headers: { "content-range": "bytes 0-15/*" } };
      expect((await writeBytes(app, slow.id, bytes, part)).body).toMatchObject({ code: "region-busy" });
      await seal;
      expect(await app.verify(slow.id)).toMatchObject({ ok: true });
    }),
  );
});

describe("an upload that goes wrong midway leaves what came, and the region open", () => {
  test(
    "when its stream is too short",
    apps.with(async (app) => {
      const { id } = await createDotted(app);
      const upload = sendStream(app, id);
      upload.send(Buffer.from("short"));
      upload.end();
      expect((await upload.answer).body).toMatchObject({ code: "validation-failed" });
      await expectContent(app, id, "short...........");
    }),
  );

  test(
    "when its stream is too long: nothing is written past the part, and the rest is left to whoever brought it",
    apps.with(async (app) => {
      const { id } = await createDotted(app);
      const upload = sendStream(app, id, { headers: { "content-range": "bytes 0-7/*" } });
      upload.send(Buffer.from("long"));
      upload.send(Buffer.from("er than"));
      expect((await upload.answer).body).toMatchObject({ code: "payload-too-large" });
      expect([upload.isRead, upload.isCancelled]).toEqual([false, false]);
      await expectContent(app, id, "long............");
    }),
  );

  test(
    "when the sender goes away, which is no mistake of ours",
    withApp(async (app) => {
      const { id } = await createDotted(app);
      const upload = sendStream(app, id);
      upload.send(Buffer.from("gone"));
      await until(
        "the bytes are written",
        async () => (await readBytes(app, id)).bytes.toString() === "gone............",
      );
      upload.leave();
      expect((await upload.answer).body).toMatchObject({ code: "cancelled" });
      expect(await app.get(id)).toMatchObject({ state: "open", has_writers: false });
    }),
  );

  test(
    "when the server stops, even if nothing comes any more",
    withApp(async (app) => {
      const { id, storage } = await createDotted(app);
      const upload = sendStream(app, id);
      upload.send(Buffer.from("stop"));
      await until("the upload is a writer", async () => (await app.get(id)).has_writers);
      app.store.stop();
      expect((await upload.answer).body).toMatchObject({ code: "shutting-down" });
      using file = new Intruder(storage.path);
      expect(file.read(storage.byte_size - 16, 16).toString()).toMatch(/^(stop|\.{4})\.{12}$/);
    }),
  );

  test(
    "when a worker truncates the file: its pages do not grow back",
    apps.with(async (app) => {
      const { id, storage } = await createDotted(app);
      const upload = sendStream(app, id);
      upload.send(Buffer.from("trunc"));
      await until("the bytes are written", async () => (await readBytes(app, id)).bytes.toString().startsWith("trunc"));
      using intruder = new Intruder(storage.path);
      intruder.truncate(100);
      upload.send(Buffer.from("ated"));
      expect((await upload.answer).body).toMatchObject({ code: "io-error" });
      expect(Bun.file(storage.path).size).toBe(100);
    }),
  );
});

describe("an upload under way", () => {
  test(
    "is a writer: the region cannot be sealed, and a delete drains it and ends the upload",
    apps.with(async (app) => {
      const { id } = await createDotted(app);
      const upload = sendStream(app, id);
      upload.send(Buffer.from("half"));
      await until("the upload is a writer", async () => (await app.get(id)).has_writers);
      await app.refused("region-has-writers", "POST", `/v1/regions/${id}/seal`, {});
      expect((await app.remove(id)).state).toBe("draining");
      upload.send(Buffer.from("rest"));
      expect((await upload.answer).body).toMatchObject({ code: "cancelled" });
      await until("the region is freed", async () => {
        return (await app.request("GET", `/v1/regions/${id}`)).status === 404;
      });
    }),
  );

  test(
    "survives a seal that is refused because of it",
    apps.with(async (app) => {
      const { id } = await createDotted(app);
      const upload = sendStream(app, id);
      upload.send(bytes.subarray(0, 8));
      await until("the upload is a writer", async () => (await app.get(id)).has_writers);
      await app.refused("region-has-writers", "POST", `/v1/regions/${id}/seal`, { checksum: true });
      upload.send(bytes.subarray(8));
      upload.end();
      expect(await upload.answer).toMatchObject({ status: 200 });
      await app.seal(id);
      await expectContent(app, id, bytes.toString());
    }),
  );

  test(
    "goes together with others, of downloads, uploads and workers",
    apps.with(async (app) => {
      const { id, storage } = await createDotted(app);
      using _ = lease(storage.path, "write");
      const uploads = [0, 4, 8, 12].map((first) => {
        return sendStream(app, id, { headers: { "content-range": `bytes ${first}-${first + 3}/*` } });
      });
      await expectContent(app, id, before.toString());
      for (const [index, upload] of uploads.entries()) {
        upload.send(bytes.subarray(4 * index, 4 * index + 4));
        upload.end();
      }
      for (const { answer } of uploads) expect(await answer).toMatchObject({ status: 200 });
      await expectContent(app, id, bytes.toString());
    }),
  );
});
