/** Regions of every kind, what becomes of the journal about them, and what a start without it owes them. */

import { expect } from "bun:test";
import { createHash } from "node:crypto";
import { readdirSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { type Content, readContent, writeContent } from "../harness/instance-content.ts";
import type { TestServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";

/** Files that came back have no public names until the start links them. */
export const relinked = /^tensord\.region\.relinked$/;

export const MiB = 2 ** 20;
export const hour = 3_600_000;
const tensors = [
  { name: "w", dtype: "F32" as const, shape: [100, 10] },
  { name: "b", dtype: "BF16" as const, shape: [7] },
];

export interface Made {
  readonly region: Region;
  readonly content: Content;
}

/** A named open region, a named sealed one of another model, and one without a name. */
export async function makeRegions({ api }: TestServer): Promise<{ open: Made; sealed: Made; nameless: Made }> {
  await api.call("POST", "/v1/models", { name: "llama" });
  const make = async (request: Parameters<typeof api.create>[0], seal: boolean) => {
    const region = await api.create(request);
    writeContent(region, region.storage.byte_size);
    if (seal) await api.seal(region.id, { checksum: true });
    return { region, content: readContent(region.storage.path) };
  };
  return {
    open: await make({ name: "open", tensors, persist: true, labels: { a: "1" } }, false),
    sealed: await make({ name: "sealed", model: "llama", tensors, ttl_ms: hour }, true),
    nameless: await make({ byte_size: 3 * MiB, ttl_ms: hour }, false),
  };
}

export function forgetStore({ instance }: TestServer): void {
  for (const name of readdirSync(instance.store)) {
    if (name.startsWith("tensord.sqlite")) unlinkSync(join(instance.store, name));
  }
}

/** Asserts that each region is back from its own file. */
export async function checkAdopted({ api }: TestServer, made: Awaited<ReturnType<typeof makeRegions>>): Promise<void> {
  for (const { region, content } of Object.values(made)) {
    const now = await api.get(region.id);
    expect(now).toMatchObject({ model: region.model, name: region.name, storage: region.storage });
    expect(now.tensors).toEqual(region.tensors);
    expect(now.labels).toEqual({ "tensord.recovered": "true" });
    expect(readContent(region.storage.path)).toEqual(content);
  }
  expect((await api.get(made.open.region.id)).state).toBe("open");
  expect(await api.get(made.sealed.region.id)).toMatchObject({ state: "sealed", checksum: null });
  for (const { region } of Object.values(made)) {
    const { owner, expires_at, created_at } = await api.get(region.id);
    expect({ owner, expires_at, created_at }, "its owner is proved, and ends it when it would have").toEqual({
      owner: region.owner,
      expires_at: region.expires_at,
      created_at: region.created_at,
    });
  }
}

/** A token that follows from a word. */
export function toToken(word: string): string {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567";
  return [...createHash("sha256").update(word).digest().subarray(0, 26)].map((byte) => alphabet[byte & 31]).join("");
}

/** A safetensors file of one byte, with the given `__metadata__`. */
export function withMetadata(metadata: Record<string, string>): Buffer {
  const header = JSON.stringify({ __metadata__: metadata, data: { dtype: "U8", shape: [1], data_offsets: [0, 1] } });
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, Buffer.from(header), Buffer.from([42])]);
}
