/** A model in several safetensors files is what its index says, whole, or it is refused by the path of what is wrong. */

import { describe, expect, test } from "bun:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { isShardIndex, openShards } from "../../src/loaders/formats/shards.ts";
import { fileLimits } from "../../src/loaders/limits.ts";
import { TensordError } from "../../src/memory/error.ts";
import { readerOf, refusalOf, safetensorsFile } from "../harness/model-files.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";

const path = "/models/m/model.safetensors.index.json";
const [one, two] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;

/** A shard of tensors of a byte each. */
function shard(...names: readonly string[]): Buffer {
  const members = names.map(
    (name, i) => `${JSON.stringify(name)}:{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`,
  );
  return safetensorsFile(`{${members.join(",")}}`, names.length);
}

const files: Readonly<Record<string, Buffer>> = { [one]: shard("a", "__proto__"), [two]: shard("10") };
const index = `{"metadata":{"total_size":3,"format":"pt","x":-1.5e3,"y":null},"weight_map":{"10":"${two}","a":"${one}","__proto__":"${one}"}}`;

function openAll(text: string | Uint8Array, shards: Readonly<Record<string, Buffer>> = files) {
  return openShards(readerOf(Buffer.from(text as string)), path, (file) => {
    const bytes = shards[file];
    return bytes === undefined
      ? Promise.reject(new RangeError(`there is no ${file}`))
      : Promise.resolve(readerOf(bytes));
  });
}

describe("a sharded model", () => {
  test("has the tensors of all its files, in the order of their names", async () => {
    const model = await openAll(index);
    expect(model).toMatchObject({ path, metadata: { total_size: "3", format: "pt", x: "-1.5e3", y: "null" } });
    expect(model.shards.map((file) => [file.path, file.tensors.map(({ name }) => name)])).toEqual([
      [`/models/m/${one}`, ["a", "__proto__"]],
      [`/models/m/${two}`, ["10"]],
    ]);
  });

  test("may have its index compressed, and its files", async () => {
    const packed = { "m.safetensors.zst": zstdCompressSync(shard("a")) };
    const model = await openAll(gzipSync('{"weight_map":{"a":"m.safetensors.zst"}}'), packed);
    expect(model.shards.map(({ compression }) => compression)).toEqual(["zstd"]);
  });

  test("is told by the name of its index", () => {
    expect([path, `${path}.gz`, `${path}.zst`].every(isShardIndex)).toBe(true);
    expect(["/models/config.json", "/models/index.json", `${path}.safetensors`].some(isShardIndex)).toBe(false);
  });

  test("whose file cannot be opened says why", () => {
    expect(openAll(index, { [one]: files[one] as Buffer })).rejects.toThrow(`there is no ${two}`);
  });

  const map = (file: string) => `{"weight_map":{"a":${JSON.stringify(file)}}}`;
  const many = Array.from({ length: fileLimits.shards + 1 }, (_, i) => `"t${i}":"m-${i}.safetensors"`).join(",");
  for (const [why, text, words] of [
    ["that is empty", "", "want {"],
    ["that is no JSON", "weight_map", "want {"],
    ["that is not UTF-8", Buffer.of(0xff), "its index is not UTF-8"],
    ["that goes on after its end", `${map(one)} {}`, "there is more text"],
    ["without a weight_map", '{"metadata":{}}', "names no tensor"],
    ["of no tensor", '{"weight_map":{}}', "names no tensor"],
    ["with a key that it has not", '{"weights":{}}', 'the key "weights"'],
    ["with a tensor twice", `{"weight_map":{"a":"${one}","\\u0061":"${two}"}}`, 'the name "a" occurs again'],
    ["with two weight_maps", `{"weight_map":{"a":"${one}"},"weight_map":{}}`, "occurs again"],
    ["with a number for a file", '{"weight_map":{"a":1}}', 'want "'],
    ["with a list in its metadata", '{"metadata":{"a":[[[[]]]]}}', "there is no single value"],
    ["with a number that is none", '{"metadata":{"a":01}}', "there is no single value"],
    ["with a file in another folder", map("../secret.safetensors"), "in its own folder"],
    ["with a file by its whole path", map("/etc/x.safetensors"), "in its own folder"],
    ["with a file of a name that ends early in C", map("x\0.safetensors"), "in its own folder"],
    ["with a file of another format", map("model.gguf"), "in its own folder"],
    ["of pickles", map("pytorch_model-00001-of-00002.bin"), "which is a pickle"],
    ["of too many files", `{"weight_map":{${many}}}`, `its index names ${fileLimits.shards + 1} files and more`],
    [
      "longer than an index is",
      Buffer.alloc(fileLimits.indexBytes + 1, " "),
      `more than ${fileLimits.indexBytes} bytes`,
    ],
  ] as const) {
    test(`with an index ${why} is refused`, async () => {
      const refusal = await refusalOf(() => openAll(text));
      expect(refusal.message).toStartWith(`Cannot load "${path}": `);
      expect(refusal.message).toContain(words);
      expect(refusal.facts).toMatchObject({ path, hint: expect.any(String) });
    });
  }

  for (const [why, changed, words] of [
    ["lacks a tensor", { [one]: shard("a") }, 'does not have the tensor "__proto__"'],
    ["has a tensor of another file", { [one]: shard("a", "__proto__", "10") }, 'it has the tensor "10"'],
    ["is broken", { [one]: shard("a", "__proto__").subarray(0, -1) }, "the data ends at byte"],
    ["is a pickle", { [one]: Buffer.from("\x80\x04N.", "latin1") }, "it is a pickle"],
  ] as const) {
    test(`of which one file ${why} is refused by that file's path`, async () => {
      const refusal = await refusalOf(() => openAll(index, { ...files, ...changed }));
      expect(refusal.message).toStartWith(`Cannot load "/models/m/${one}": `);
      expect(refusal.message).toContain(words);
    });
  }

  const rounds = roundsOf("model-files");

  test(
    "with any index is opened or refused",
    async () => {
      const any = fc.oneof(
        fc.json({ maxDepth: 3 }),
        fc
          .tuple(fc.nat({ max: index.length }), fc.string({ maxLength: 3 }))
          .map(([at, more]) => index.slice(0, at) + more + index.slice(at + 1)),
      );
      const property = fc.asyncProperty(any, async (text) => {
        await openAll(text).catch((error: unknown) => {
          if (error instanceof RangeError) return;
          expect(error).toBeInstanceOf(TensordError);
          expect((error as TensordError).message).toStartWith("Cannot load ");
        });
      });
      await fc.assert(property, { numRuns: rounds });
    },
    deadlineMsOf(rounds, 20),
  );
});
