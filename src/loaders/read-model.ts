/**
 * What is in the file, or in the files of a sharded model, that somebody has opened: its tensors, where they lie, and how the region is laid
 * out. Where the bytes come from it does not know, and it reads no tensor.
 */

import { layOutRegion, type Tensor } from "../memory/layout/layout.ts";
import { toTensorIndex } from "../memory/layout/tensor-index.ts";
import { Tensors } from "../memory/layout/tensors.ts";
import type { LaidOutBytes } from "../memory/storage/layout-lane.ts";
import { isLong } from "../memory/storage/tensor-files.ts";
import type { OpenedBytes, WantedFormat } from "./file-lane.ts";
import { toContent } from "./formats/content.ts";
import type { ModelFile, RangeReader } from "./formats/format.ts";
import { openModelFile } from "./formats/open-model-file.ts";
import { unsupported, withPath } from "./formats/refusal.ts";
import { type OpenShard, openShards } from "./formats/shards.ts";
import { checkMembers } from "./formats/stream-content.ts";

/** More tensors than these go over as one text, which both threads see. */
const fewTensors = 64;

export interface ReadModel extends Pick<OpenedBytes, "pieces" | "compression" | "tensors" | "layout"> {
  /** What stands before the data, file by file. */
  readonly headers: readonly Uint8Array[];
}

/** @throws TensordError `invalid-model-file`, `unsupported-format`; whatever the reader says. */
export async function readModel(reader: RangeReader, path: string, format: WantedFormat): Promise<ReadModel> {
  const found = await openModelFile(reader, path, format === "raw" ? { format } : {});
  refuseDeflated(found);
  await checkMembers(reader, found);
  const { compression, byteSize } = found;
  const tensors = found.tensors.length > 0 ? found.tensors : [toOne(byteSize)];
  await using content = toContent(reader, compression);
  const beginning = await content.read(0, found.dataOffset);
  const isRegion = found.format === "safetensors";
  const [header, dataOffset] = isRegion ? [beginning, found.dataOffset] : [new Uint8Array(0), 0];
  const layout = toLayout(tensors, header, { dataOffset, byteSize });
  return { pieces: undefined, compression, tensors: toAsked(tensors), layout, headers: [beginning] };
}

/**
 * All files of a model become one region, whose header is laid out anew: what is loaded together is there together.
 * @param index of the file that names the others, which `open` opens, in their order. @throws as `readModel`.
 */
export async function readShardedModel(index: RangeReader, path: string, open: OpenShard): Promise<ReadModel> {
  const readers: RangeReader[] = [];
  const { shards } = await openShards(index, path, async (name) => {
    const reader = await open(name);
    readers.push(reader);
    return reader;
  });
  refusePackedShards(shards);
  const specs = shards.flatMap(({ tensors }) => tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })));
  const { tensors, header, ...rest } = layOutRegion(specs, { format: "pt" });
  const places = new Map(tensors.map(({ name, byteOffset }) => [name, byteOffset]));
  const headers: Uint8Array[] = [];
  for (const [at, { dataOffset }] of shards.entries()) {
    headers.push(await (readers[at] as RangeReader).read(0, dataOffset));
  }
  const layout = toLayout(tensors, header, rest);
  return { pieces: toPieces(shards, places), compression: "none", tensors: toAsked(tensors), layout, headers };
}

/** What tells one state of the files from another: who they are, and what stands before their data. */
export function toKey(states: readonly string[], headers: readonly Uint8Array[]): string {
  const hash = headers.reduce((seed, header) => Bun.hash.xxHash3(header, seed), Bun.hash.xxHash3(states.join()));
  return `file-${hash.toString(16).padStart(16, "0")}`;
}

function refusePackedShards(shards: readonly ModelFile[]): void {
  const packed = shards.find(({ compression }) => compression !== "none");
  if (packed === undefined) return;
  const error = unsupported("it is a shard that is compressed", "Decompress the model's files, and load its index.");
  throw withPath(packed.path, error);
}

/** Tensors that follow each other in a file and in the region are one piece. */
function toPieces(shards: readonly ModelFile[], places: ReadonlyMap<string, number>): Float64Array {
  const pieces: [file: number, from: number, byteSize: number, to: number][] = [];
  for (const [at, { tensors }] of shards.entries()) {
    for (const { name, byteOffset: from, byteSize } of tensors.toSorted((a, b) => a.byteOffset - b.byteOffset)) {
      if (byteSize === 0) continue;
      // The index is the first file.
      const [file, to] = [at + 1, places.get(name) ?? 0];
      const last = pieces.at(-1);
      if (last?.[0] === file && last[1] + last[2] === from && last[3] + last[2] === to) last[2] += byteSize;
      else pieces.push([file, from, byteSize, to]);
    }
  }
  return Float64Array.from(pieces.flat());
}

/** Bytes are kept as they are, and so an array that has to be inflated by itself could not be mapped. */
function refuseDeflated({ path, tensors }: ModelFile): void {
  if (!tensors.some(({ member }) => member?.isDeflated)) return;
  const hint = "Save it by numpy.savez, and compress the whole file by zstd or gzip if it is to be small.";
  throw withPath(path, unsupported("its arrays are compressed one by one, want them as they are", hint));
}

function toLayout(
  tensors: readonly Tensor[],
  header: Uint8Array,
  rest: Pick<LaidOutBytes, "dataOffset" | "byteSize">,
): LaidOutBytes {
  const list = Tensors.of(tensors);
  const index = isLong(list) ? toTensorIndex(list) : undefined;
  return { header, ...rest, count: list.count, bytes: list.bytes, index };
}

/** All of the bytes, where nobody says what they are. */
function toOne(byteSize: number): Tensor {
  return { name: "data", dtype: "U8", shape: [byteSize], byteOffset: 0, byteSize, aligned: true };
}

function toAsked(tensors: readonly Tensor[]): OpenedBytes["tensors"] {
  const specs = tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  if (specs.length <= fewTensors) return specs;
  const text = Buffer.from(JSON.stringify(specs));
  const shared = new SharedArrayBuffer(text.byteLength);
  new Uint8Array(shared).set(text);
  return shared;
}
