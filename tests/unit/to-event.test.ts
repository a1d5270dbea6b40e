/** An event of a region is written of what was so when it was told, however late somebody reads it, and the same each time. */

import { expect, test } from "bun:test";
import type { Region } from "../../src/memory/state/region.ts";
import type { Store } from "../../src/memory/state/store.ts";
import { toEventText } from "../../src/routes/to-event.ts";

test("an event of a region that is a file has what the file was when it was told", () => {
  let [mtime, change, now]: [string | null, string | null, number] = ["123", null, 1_795_000_000_000];
  const storage = {
    kind: "file",
    memory: { pageSize: 4096, isCharged: false },
    names: { address: () => ({ path: "/models/a.safetensors", shmName: null }) },
    isMappable: true,
    isPrivate: false,
    hugePage: null,
    endsWith: "never",
    device: null,
    origin: { mtimeNs: () => mtime, changeOf: () => change },
  };
  const storages = { has: () => true, of: () => storage };
  const store = { storages, instance: "test", epoch: 3, now: () => now } as unknown as Store;
  const region = {
    token: "00000000000000000000000000",
    model: "m",
    name: "weights",
    version: "1",
    pendingName: null,
    formerName: null,
    state: "sealed",
    reason: null,
    revision: 4,
    owner: { kind: "linger", lingerMs: 5, handoffMs: 6 },
    session: null,
    expiresAt: null,
    evictable: true,
    labels: { "a key": 'a "value"\ud800' },
    storageForm: "file",
    format: "safetensors",
    identity: { dev: "1", ino: "18446744073709551615" },
    byteSize: 5000,
    checksum: { algorithm: "xxh3-64", chunkBytes: 1024, value: "00ff" },
    createdAt: 1_794_000_000_000,
    createdBy: "a token",
    sealedAt: 1_794_000_000_001.5,
    lastUsedAt: 1_794_000_000_002,
    tensors: { count: 7 },
  } as unknown as Region;
  const told = toEventText(store, { type: "tensord.region.deleted", region, actor: undefined }, 42);
  if (typeof told === "string") throw new Error("it is written before anybody reads it");
  const read = () => told.write(told.packed, "tensord.region.deleted", 42);
  const first = read();
  [mtime, change, now] = [null, "replaced", now + 60_000];
  Object.assign(region, { name: null, state: "draining", labels: {}, identity: { dev: "9", ino: "9" } });
  expect(read()).toBe(first);
  expect(Buffer.byteLength(first)).toBeLessThanOrEqual(told.byteSize);
  expect(JSON.parse(first)).toMatchObject({
    id: "42",
    type: "tensord.region.deleted",
    time: new Date(1_795_000_000_000).toISOString(),
    subject: "reg_00000000000000000000000000",
    tensordepoch: "3",
    data: {
      name: "weights",
      state: "sealed",
      revision: 4,
      owner: { kind: "linger", linger_ms: 5, handoff_ms: 6 },
      labels: { "a key": 'a "value"\ud800' },
      storage: { dev: "1", ino: "18446744073709551615", mtime_ns: "123", changed: null, byte_size: 5000 },
      tensor_count: 7,
      checksum: { algorithm: "xxh3-64", chunk_bytes: 1024, value: "00ff" },
      created_by: "a token",
      former_name: null,
      reason: null,
      actor: null,
    },
  });
});
