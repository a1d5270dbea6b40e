/** Regions in `heap` storage: their bytes come and go over HTTP, and nobody maps them. */

import { describe, expect, test } from "bun:test";
import { TensordError } from "../../src/memory/error.ts";
import { handOut } from "../../src/memory/regions/hand-out.ts";
import { withApp } from "../harness/app.ts";
import { readBytes, writeBytes } from "./support/data-requests.ts";

describe("a region in heap storage", () => {
  test(
    "says where its bytes are, and takes and gives them there, by tensor; what it is sealed with stays",
    withApp(async (app) => {
      const tensors = ["w", "b"].map((name) => ({ name, dtype: "U8", shape: [8] }));
      const region = await app.create({ storage: "heap", name: "weights", tensors });
      const href = `/v1/regions/${region.id}/data`;
      expect(region.storage).toMatchObject({ kind: "heap", href, path: null, shm_name: null });
      for (const tensor of ["w", "b"]) {
        expect(await writeBytes(app, region.id, Buffer.from(`tensor ${tensor}`), { tensor })).toMatchObject({
          status: 200,
        });
      }
      await app.seal(region.id, { checksum: true });
      expect((await readBytes(app, region.id, { tensor: "b" })).bytes.toString()).toBe("tensor b");
      const whole = await app.app.fetch(new Request(`http://localhost${href}`), {});
      expect(await whole.text()).toBe("tensor wtensor b");
      expect(await app.verify(region.id)).toMatchObject({ ok: true });
      const refusal = await writeBytes(app, region.id, Buffer.from("tensor c"), { tensor: "b" });
      expect(refusal.body).toMatchObject({ code: "region-sealed" });
    }),
  );

  test(
    "is handed out to nobody, whoever asks the broker for it",
    withApp(async (app) => {
      const { id } = await app.create({ storage: "heap" });
      const region = app.store.books.region(id);
      const hand = () => handOut(app.store, region, "read", "consumer", 1);
      expect(hand).toThrow(TensordError);
      expect(hand).toThrow("it is in heap storage, which no process maps");
      expect(await app.get(id)).toMatchObject({ in_use: false });
      expect(await app.remove(id)).toMatchObject({ state: "deleted" });
    }),
  );

  test(
    "is the only one with an href",
    withApp(async (app) => {
      for (const wish of [{}, { private: true }, { storage: "memfd" }]) {
        expect((await app.create(wish)).storage).toMatchObject({ href: null });
      }
    }),
  );

  test(
    "is what regions are made of where no worker shares memory with the server, unless they say another one, which is refused",
    withApp(
      async (app) => {
        const tensors = [{ name: "w", dtype: "U8", shape: [8] }];
        expect((await app.create({ tensors })).storage).toMatchObject({ kind: "heap", path: null });
        expect((await app.create({ tensors, private: true })).storage.kind).toBe("heap");
        const body = { tensors, ttl_ms: 60_000 };
        for (const storage of ["shm", "memfd"]) {
          const refusal = await app.request("POST", "/v1/regions", { ...body, storage });
          expect(refusal).toMatchObject({ status: 501, body: { code: "storage-unavailable" } });
          expect(refusal.body).toMatchObject({ hint: 'Leave "storage" out, or ask for "heap".' });
        }
        const { body: told } = await app.request("GET", "/v1/capabilities");
        const { storages } = told as { storages: { kind: string; available: boolean; reason: string | null }[] };
        // Of files that are there already folders decide.
        const there = storages.filter(({ kind, available }) => available && kind !== "file");
        expect(there.map(({ kind }) => kind)).toEqual(["heap"]);
        expect(storages[0]).toMatchObject({ kind: "shm", reason: expect.stringContaining("TENSORD_STORAGES") });
      },
      { offered: ["heap"] },
    ),
  );
});
