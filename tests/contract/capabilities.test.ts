/** `/v1/capabilities`: what is told is what the server does. */

import { describe, expect, test } from "bun:test";
import { statfsSync } from "node:fs";
import type { z } from "@hono/zod-openapi";
import { dtypes } from "../../src/memory/layout/dtype.ts";
import { MiB } from "../../src/memory/limits.ts";
import type * as hosts from "../../src/routes/schemas/host.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { tinyUri } from "../harness/load.ts";

type Capabilities = z.infer<typeof hosts.Capabilities>;

const ask = (app: TestApp) => app.ok<Capabilities>(200, "GET", "/v1/capabilities");

describe("capabilities", () => {
  test(
    "name the server, the instance and the directory",
    withApp(async (app) => {
      const { api, version, instance, shm, platform } = await ask(app);
      expect({ api, version, instance }).toEqual({ api: "v1", version: "0.0.0", instance: app.instance });
      expect(platform.os).toBe(process.platform);
      const { blocks, bsize } = statfsSync("/dev/shm");
      expect(shm).toMatchObject({
        path: "/dev/shm",
        filesystem: "tmpfs",
        total_bytes: blocks * bsize,
        page_size: bsize,
      });
    }),
  );

  test(
    "have the storage that a region is made of, and no other that the server gives",
    withApp(async (app) => {
      const { storages } = await ask(app);
      for (const { kind, available, reason } of storages) {
        expect(reason === null).toBe(available);
        // Its regions are files, which are there.
        if (kind === "file") {
          const asked = { uri: tinyUri, mode: "map", ttl_ms: 60_000 };
          const wait = { headers: { prefer: "wait=60" } };
          await app.ok(available ? 200 : 403, "POST", "/v1/models/default/load", asked, wait);
          continue;
        }
        const answer = await app.request("POST", "/v1/regions", { byte_size: 1, ttl_ms: 60_000, storage: kind });
        expect([kind, answer.status]).toEqual([kind, available ? 201 : 501]);
      }
    }),
  );

  test(
    "say what may lie ready, and why nothing does",
    withApp(async (app) => {
      expect((await ask(app)).reserve).toEqual({
        bytes: 0,
        huge_pages: false,
        reason: "The server is told to have none, or regions may take less than 4 GiB.",
      });
    }),
  );

  test(
    "say of a reserve whether it is of huge pages",
    withApp(
      async (app) => {
        await app.start();
        await app.store.reserve.settled();
        const { reserve } = await ask(app);
        expect(reserve).toMatchObject({ bytes: 8 * MiB, huge_pages: reserve.reason === null });
        expect(reserve.huge_pages).toBe(app.store.reserve.givesHugePages);
      },
      { reserve: { settingBytes: 8 * MiB, nice: 0 } },
    ),
  );

  test(
    "have every dtype that a tensor may have",
    withApp(async (app) => {
      expect((await ask(app)).dtypes).toEqual([...dtypes]);
    }),
  );

  test(
    "have limits at which the server takes a request, and beyond which it does not",
    withApp(async (app) => {
      const { limits } = await ask(app);
      const body = (changes: object) => ({ byte_size: 1, ttl_ms: 60_000, ...changes });
      const tensor = (name: string, shape: number[]) => ({ tensors: [{ name, dtype: "U8", shape }], ttl_ms: 60_000 });
      const labels = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, at) => [`l${at}`, "x"]));
      const pairs: Readonly<Record<string, readonly [at: object, beyond: object]>> = {
        name: [
          body({ name: "n".repeat(limits.name_characters) }),
          body({ name: "n".repeat(limits.name_characters + 1) }),
        ],
        ttl: [body({ ttl_ms: limits.ttl_ms }), body({ ttl_ms: limits.ttl_ms + 1 })],
        labels: [body({ labels: labels(limits.labels) }), body({ labels: labels(limits.labels + 1) })],
        key: [
          body({ labels: { ["k".repeat(limits.label_key_characters)]: "" } }),
          body({ labels: { ["k".repeat(limits.label_key_characters + 1)]: "" } }),
        ],
        value: [
          body({ labels: { k: "v".repeat(limits.label_value_characters) } }),
          body({ labels: { k: "v".repeat(limits.label_value_characters + 1) } }),
        ],
        dimensions: [
          tensor("t", new Array(limits.tensor_dimensions).fill(1)),
          tensor("t", new Array(limits.tensor_dimensions + 1).fill(1)),
        ],
        tensorName: [
          tensor("t".repeat(limits.tensor_name_bytes), [1]),
          tensor("t".repeat(limits.tensor_name_bytes + 1), [1]),
        ],
      };
      for (const [what, [at, beyond]] of Object.entries(pairs)) {
        expect([what, (await app.request("POST", "/v1/regions", at)).status]).toEqual([what, 201]);
        expect([what, (await app.request("POST", "/v1/regions", beyond)).status]).toEqual([what, 422]);
      }
      expect((await app.request("GET", `/v1/regions?limit=${limits.list_items}`)).status).toBe(200);
      expect((await app.request("GET", `/v1/regions?limit=${limits.list_items + 1}`)).status).toBe(422);
    }),
  );
});
