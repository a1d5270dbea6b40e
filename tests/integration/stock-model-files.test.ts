/** Files that stock libraries wrote, of every dtype: names, shapes and bytes are what these libraries read from them. */

import { expect } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, zstdCompressSync } from "node:zlib";
import { openModelFile } from "../../src/loaders/formats/open-model-file.ts";
import { streamTensor } from "../../src/loaders/formats/stream-content.ts";
import { dtypes } from "../../src/memory/layout/dtype.ts";
import { needsStockPython, stockPython, testWith } from "../harness/instance-needs.ts";
import { readerOf, refusalOf } from "../harness/model-files.ts";
import { runScript } from "../harness/worker.ts";

interface Found {
  readonly tensors: Readonly<Record<string, FoundTensor>>;
  readonly metadata: Readonly<Record<string, string>>;
}

interface FoundTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly sha256: string;
  readonly logical?: unknown;
}

async function read(bytes: Uint8Array, path: string): Promise<Found> {
  const reader = readerOf(bytes);
  const opened = await openModelFile(reader, path);
  const tensors: [string, FoundTensor][] = [];
  for (const tensor of opened.tensors) {
    const hash = createHash("sha256");
    for await (const piece of streamTensor(reader, opened, tensor)) hash.update(piece);
    const { name, dtype, shape, logical } = tensor;
    const found = { dtype, shape, sha256: hash.digest("hex") };
    tensors.push([name, logical === undefined ? found : { ...found, logical }]);
  }
  return { tensors: Object.fromEntries(tensors), metadata: opened.metadata };
}

testWith(needsStockPython)(
  "files of stock libraries have the names, shapes, bytes and metadata that these libraries read, plain and compressed",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "tensord-model-files-"));
    try {
      const all = await runScript<Record<string, Found | null>>(stockPython, "stock_model_files.py", folder);
      const seen = new Set<string>();
      let pickles = 0;
      for (const [file, found] of Object.entries(all)) {
        const bytes = readFileSync(join(folder, file));
        if (found === null) {
          expect((await refusalOf(() => read(bytes, `/models/${file}`))).message).toContain("which are a pickle");
          pickles += 1;
          continue;
        }
        expect(await read(bytes, `/models/${file}`)).toEqual(found);
        for (const { dtype, logical } of Object.values(found.tensors)) seen.add(JSON.stringify(logical ?? dtype));
        // Each call begins at the start of what is compressed: of files with few tensors only.
        if (!file.endsWith(".gz") || Object.keys(found.tensors).length > 2) continue;
        const packed = zstdCompressSync(gunzipSync(bytes));
        expect(await read(packed, `/models/${file.replace(/gz$/, "zst")}`)).toEqual(found);
      }
      for (const dtype of dtypes) expect(seen).toContain(JSON.stringify(dtype));
      expect(pickles).toBe(5);
      expect(Object.keys(all).length).toBeGreaterThan(100);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
);
