/** A model file is opened by bounded reads of its beginning, whatever its format; what keeps it from that names the file. */

import { describe, expect, test } from "bun:test";
import { openModelFile } from "../../src/loaders/formats/open-model-file.ts";
import { fileLimits } from "../../src/loaders/limits.ts";
import { ggufFile, ggufList, readerOf, refusalOf, safetensorsFile } from "../harness/model-files.ts";

const header = '{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,1024],"data_offsets":[0,8192]}}';

describe("a safetensors file", () => {
  test("has its tensors where its header says", async () => {
    const file = safetensorsFile(header, 8192);
    const opened = await openModelFile(readerOf(file), "/models/a.safetensors");
    const dataOffset = 8 + header.length;
    expect(opened).toEqual({
      path: "/models/a.safetensors",
      format: "safetensors",
      compression: "none",
      tensors: [
        {
          name: "w",
          dtype: "F32",
          shape: [2, 1024],
          byteOffset: dataOffset,
          byteSize: 8192,
          aligned: dataOffset % 4 === 0,
        },
      ],
      metadata: { format: "pt" },
      dataOffset,
      byteSize: file.length,
    });
  });

  test("is read as far as its header goes, however large it is", async () => {
    const long = `${header}${" ".repeat(2 * fileLimits.prefixBytes)}`;
    const reader = readerOf(safetensorsFile(long, 8192));
    await openModelFile(reader, "/models/a.safetensors");
    expect(reader.readBytes).toBe(8 + long.length);
    const short = readerOf(safetensorsFile(header.replace("1024", "1048576").replace("8192", "8388608"), 8 << 20));
    await openModelFile(short, "/models/a.safetensors");
    expect(short.readBytes).toBeLessThanOrEqual(fileLimits.prefixBytes);
  });

  test("that is broken is refused by its path, with the broken rule", async () => {
    const refusal = await refusalOf(() =>
      openModelFile(readerOf(safetensorsFile(header, 8191)), "/models/a\n.safetensors"),
    );
    expect(refusal.code).toBe("invalid-model-file");
    expect(refusal.message).toContain(
      'Cannot load "/models/a\\n.safetensors": cannot read safetensors header: the data ends at byte',
    );
    expect(refusal.facts).toMatchObject({ path: "/models/a\n.safetensors", hint: expect.any(String) });
  });

  test("that shrinks while its header is read is refused", async () => {
    const file = safetensorsFile(header, 8192);
    const refusal = await refusalOf(() =>
      openModelFile(readerOf(file.subarray(0, 50), file.length), "/models/a.safetensors"),
    );
    expect(refusal.code).toBe("invalid-model-file");
    expect(refusal.message).toContain(`it ends at byte 50 now, want ${file.length} as when it was opened`);
  });
});

describe("a header of 100 MB", () => {
  /** A file of spaces after these bytes, of which nothing is in memory. */
  const spaces = (begin: Buffer, byteSize: number) => {
    let readBytes = 0;
    return {
      byteSize,
      readBytes: () => readBytes,
      read(byteOffset: number, size: number) {
        readBytes += size;
        const bytes = Buffer.alloc(size, " ");
        begin.copy(bytes, 0, Math.min(byteOffset, begin.length));
        return Promise.resolve(bytes);
      },
    };
  };

  test("of safetensors is read once", async () => {
    const reader = spaces(safetensorsFile("{", 0, 100_000_000n), 1 << 30);
    const refusal = await refusalOf(() => openModelFile(reader, "/models/a.safetensors"));
    expect(refusal.message).toContain("the text is not what it should be");
    expect(reader.readBytes()).toBe(8 + 100_000_000);
  });

  test("of GGUF, and more, is not read", async () => {
    const pair = ["k", ggufList(0, 200_000_000)] as const;
    const reader = spaces(
      ggufFile({ pairs: [pair], tensors: [{ name: "w", extents: [1], type: 0, begin: 0 }], data: 0 }),
      1 << 30,
    );
    const refusal = await refusalOf(() => openModelFile(reader, "/models/a.gguf"));
    expect(refusal.message).toMatch(/its header has 2000\d{5} bytes and more, want at most 100000000/);
    expect(reader.readBytes()).toBe(fileLimits.prefixBytes);
  });
});
