/** Aliases over HTTP: told in the descriptor, counted once, read and written by every route that takes a tensor's name. */

import { describe, expect, test } from "bun:test";
import { type TestApp, toCharge, withApp } from "../harness/app.ts";
import { readBytes, writeBytes } from "./support/data-requests.ts";
import { Intruder } from "./support/lease.ts";

const tied = {
  name: "tied",
  tensors: [
    { name: "head.weight", dtype: "F32", shape: [1000, 64], alias_of: "embedding.weight" },
    { name: "embedding.weight", dtype: "F32", shape: [1000, 64] },
    { name: "row", dtype: "F32", shape: [64], alias_of: "embedding.weight", alias_byte_offset: 256 },
    { name: "bias", dtype: "F32", shape: [3] },
  ],
};
const once = 4096 + 4 * 64_000 + 12;

describe("an alias", () => {
  test(
    "is a tensor of the descriptor, in the order asked for, over the bytes of the one that it names",
    withApp(async (app) => {
      const { id, tensors } = await app.create(tied);
      const [head, embedding, row, bias] = tensors;
      expect(tensors.map(({ name, alias_of }) => [name, alias_of])).toEqual([
        ["head.weight", "embedding.weight"],
        ["embedding.weight", null],
        ["row", "embedding.weight"],
        ["bias", null],
      ]);
      expect(head).toEqual({ ...embedding, name: "head.weight", alias_of: "embedding.weight" } as typeof head);
      expect(row).toMatchObject({ byte_offset: (embedding?.byte_offset ?? 0) + 256, byte_size: 256, aligned: true });
      expect(bias?.byte_offset).toBe((embedding?.byte_offset ?? 0) + 256_000);
      expect((await app.get(id)).tensors).toEqual(tensors);
      expect(await app.ok(200, "GET", "/v1/regions")).toMatchObject({ items: [{ tensor_count: 4 }] });
    }),
  );

  test(
    "takes no memory: file, quota, model and checksum count its bytes once",
    withApp(async (app) => {
      // The region fits once, and not with one byte of the alias more.
      await app.register("small", toCharge(once));
      const { id, storage } = await app.create({ ...tied, model: "small" });
      expect(storage.byte_size).toBe(once);
      expect(await hostBytes(app, "small")).toBe(toCharge(once));
      const untied = { tensors: tied.tensors.map(({ alias_of: _, alias_byte_offset: __, ...rest }) => rest) };
      await app.remove(id);
      await app.refused("model-limit-exceeded", "POST", "/v1/regions", { ...untied, model: "small", ttl_ms: 60_000 });
      const again = await app.create({ ...tied, model: "small" });
      const plain = await app.create({ tensors: tied.tensors.filter(({ alias_of }) => alias_of === undefined) });
      for (const region of [again, plain]) {
        using file = new Intruder(region.storage.path);
        file.write(4096, Buffer.alloc(once - 4096, "tied weights"));
      }
      const sealed = await app.seal(again.id, { checksum: true });
      expect(sealed.checksum).toEqual((await app.seal(plain.id, { checksum: true })).checksum);
      expect(await app.verify(again.id)).toMatchObject({ ok: true });
    }),
  );

  test(
    "is read and written by its name like any tensor, and shows what is written by the other name",
    withApp(async (app) => {
      const { id } = await app.create(tied);
      const content = Buffer.alloc(256_000, "0123456789abcde");
      expect((await writeBytes(app, id, content, { tensor: "embedding.weight" })).status).toBe(200);
      expect((await readBytes(app, id, { tensor: "head.weight" })).bytes).toEqual(content);
      expect((await readBytes(app, id, { tensor: "row" })).bytes).toEqual(content.subarray(256, 512));
      const { bytes } = await readBytes(app, id, { tensor: "row", headers: { range: "bytes=-6" } });
      expect(bytes).toEqual(content.subarray(506, 512));
      const row = Buffer.alloc(256, "row");
      expect((await writeBytes(app, id, row, { tensor: "row" })).status).toBe(200);
      row.copy(content, 256);
      expect((await readBytes(app, id, { tensor: "embedding.weight" })).bytes).toEqual(content);
      const all = await readBytes(app, id);
      expect(all.bytes).toEqual(Buffer.concat([content, Buffer.alloc(12)]));
      // The region that stands has the names and types that are asked for, whoever has the bytes.
      const attached = await app.request("POST", "/v1/regions", { ...tied, ttl_ms: 60_000, if_exists: "attach" });
      expect(attached).toMatchObject({
        status: 200,
        body: { id, tensors: [{ alias_of: "embedding.weight" }, {}, {}, {}] },
      });
    }),
  );

  test(
    "that cannot be is refused with the reason, and leaves nothing",
    withApp(async (app) => {
      const w = { name: "w", dtype: "U8", shape: [12] };
      const alias = { name: "a", dtype: "U8", shape: [1], alias_of: "w" };
      for (const [tensor, words] of [
        [{ ...alias, alias_of: "x" }, 'Cannot make tensor "a" an alias of "x": there is no such tensor'],
        [{ ...alias, alias_byte_offset: 12 }, "it has bytes 12 to 13, want at most 12"],
        [{ ...alias, dtype: "F32", alias_byte_offset: 2 }, "want multiples of 4"],
        [{ ...alias, alias_of: undefined, alias_byte_offset: 0 }, "it has alias_byte_offset and no alias_of"],
      ] as const) {
        const body = { tensors: [w, tensor], ttl_ms: 60_000 };
        expect((await app.refused("validation-failed", "POST", "/v1/regions", body)).detail).toContain(words);
      }
      for (const wrong of [
        { alias_byte_offset: -1 },
        { alias_byte_offset: 0.5 },
        { alias_of: "" },
        { alias_of: null },
      ]) {
        const body = { tensors: [w, { ...alias, ...wrong }], ttl_ms: 60_000 };
        await app.refused("validation-failed", "POST", "/v1/regions", body);
      }
    }),
  );
});

async function hostBytes(app: TestApp, model: string): Promise<number | undefined> {
  const { pools } = await app.ok<{ pools: { pool: string; used_bytes: number }[] }>(200, "GET", `/v1/models/${model}`);
  return pools.find(({ pool }) => pool === "host")?.used_bytes;
}
