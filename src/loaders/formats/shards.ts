/**
 * A model in several safetensors files: its index (`*.safetensors.index.json`, as Transformers and Diffusers write it), and the
 * files that it names, which have to hold what it says. All of them together are the model, or none is.
 */

import { Cursor } from "../../memory/layout/header-text.ts";
import { limits } from "../../memory/limits.ts";
import { quote } from "../../memory/naming.ts";
import { fileLimits } from "../limits.ts";
import { compressionOf, toContent } from "./content.ts";
import { pickleHint } from "./foreign.ts";
import type { ModelFile, RangeReader } from "./format.ts";
import { openModelFile } from "./open-model-file.ts";
import { invalid, unsupported, withPath } from "./refusal.ts";

export interface ShardedModel {
  /** Of the index. */
  readonly path: string;
  /** What the index says of the model, as text. */
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of their names; no tensor is in two of them. */
  readonly shards: readonly ModelFile[];
}

/** Opens a file beside the index by its name, which has no folder in it. Closing it is the caller's business. */
export type OpenShard = (file: string) => Promise<RangeReader>;

/** Whether a file of this name is opened by `openShards`. */
export function isShardIndex(path: string): boolean {
  return /\.index\.json(\.gz|\.zst)?$/i.test(path);
}

/**
 * Opens the model of an index, one file after the other. As `openModelFile`, it is not for the event loop.
 * @throws TensordError `invalid-model-file` or `unsupported-format` with the path of the index or the shard; whatever `open` says.
 */
export async function openShards(reader: RangeReader, path: string, open: OpenShard): Promise<ShardedModel> {
  const { metadata, files } = await readIndex(reader, path);
  const shards: ModelFile[] = [];
  for (const [file, names] of files) {
    const shard = await openModelFile(await open(file), `${path.slice(0, path.lastIndexOf("/") + 1)}${file}`);
    checkShard(shard, names);
    shards.push(shard);
  }
  return { path, metadata, shards };
}

interface Index {
  readonly metadata: Readonly<Record<string, string>>;
  /** The names of each file's tensors. */
  readonly files: readonly (readonly [file: string, names: ReadonlySet<string>])[];
}

async function readIndex(reader: RangeReader, path: string): Promise<Index> {
  try {
    const begin = await toContent(reader, "none").read(0, fileLimits.sniffedBytes);
    await using content = toContent(reader, compressionOf(begin));
    const bytes = await content.read(0, fileLimits.indexBytes + 1);
    if (bytes.length > fileLimits.indexBytes) {
      throw invalid(`its index has more than ${fileLimits.indexBytes} bytes, want at most that`);
    }
    return parseIndex(bytes);
  } catch (error) {
    throw withPath(path, error);
  }
}

function parseIndex(bytes: Uint8Array): Index {
  const cursor = new Cursor(decode(bytes), "index of shards");
  let metadata: Readonly<Record<string, string>> = {};
  let files: Index["files"] | undefined;
  cursor.object((key) => {
    if (key === "metadata") metadata = readMetadata(cursor);
    else if (key === "weight_map") files = readWeightMap(cursor);
    else cursor.refuse(`it has the key ${quote(key)}`, "metadata and weight_map alone");
  });
  cursor.end();
  if (files === undefined || files.length === 0) throw invalid("its index names no tensor, want a weight_map");
  return { metadata, files };
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw invalid("its index is not UTF-8, want JSON", undefined, cause);
  }
}

function readMetadata(cursor: Cursor): Readonly<Record<string, string>> {
  const pairs: [string, string][] = [];
  cursor.object((key) => {
    if (pairs.length === limits.headerMetadataEntries) {
      cursor.refuse("metadata has one entry more than allowed", `at most ${limits.headerMetadataEntries}`);
    }
    pairs.push([key, cursor.scalar()]);
  });
  // Unlike an assignment, fromEntries makes "__proto__" a key like any other.
  return Object.fromEntries(pairs);
}

function readWeightMap(cursor: Cursor): Index["files"] {
  const files = new Map<string, Set<string>>();
  let count = 0;
  cursor.object((name) => {
    const file = cursor.string();
    count += 1;
    if (count > fileLimits.shardedTensors) {
      cursor.refuse("there is one tensor more than allowed", `at most ${fileLimits.shardedTensors}`);
    }
    const names = files.get(file) ?? new Set();
    files.set(file, names.add(name));
    if (names.size === 1) checkFileName(file, files.size);
  });
  return [...files].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** A file beside the index, and no way to another folder. */
function checkFileName(file: string, count: number): void {
  if (count > fileLimits.shards)
    throw invalid(`its index names ${count} files and more, want at most ${fileLimits.shards}`);
  if (/\.(bin|pt|pth|ckpt)$/i.test(file)) {
    throw unsupported(`its index names ${quote(file)}, which is a pickle, want safetensors files`, pickleHint);
  }
  if (!file.includes("/") && !file.includes("\0") && /\.safetensors(\.gz|\.zst)?$/i.test(file)) return;
  throw invalid(`its index names ${quote(file)}, want safetensors files in its own folder`);
}

function checkShard(shard: ModelFile, names: ReadonlySet<string>): void {
  try {
    const other = shard.tensors.find(({ name }) => !names.has(name));
    if (other !== undefined) {
      throw invalid(`it has the tensor ${quote(other.name)}, want those that the index says it has`, mixed);
    }
    if (shard.tensors.length === names.size) return;
    const there = new Set(shard.tensors.map(({ name }) => name));
    const missing = [...names].find((name) => !there.has(name)) ?? "";
    throw invalid(`it does not have the tensor ${quote(missing)}, want it as the index says`, mixed);
  } catch (error) {
    throw withPath(shard.path, error);
  }
}

const mixed = "Get all files of the model anew, from one place: these are of different ones.";
