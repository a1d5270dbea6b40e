/** Mistakes in what lies where: layouts, headers, checksums, uploads, downloads, and the files of the `shm` storage. */

const layout = "src/memory/layout";
const data = "src/memory/regions/data.ts";
const shm = "src/memory/storage/shm";

export const bytesMutations = [
  {
    name: "a shape whose product overflows is laid out",
    file: `${layout}/layout.ts`,
    find: "if (bits > BigInt(limits.regionBytes) * 8n) {",
    replace: "if (bits < 0n) {",
    test: ["tests/unit/layout.test.ts", "tensorByteSize"],
  },
  {
    name: "a region grows beyond what a number holds",
    file: `${layout}/layout.ts`,
    find: "  checkRegionByteSize(dataOffset + dataByteSize);\n",
    replace: "",
    test: ["tests/unit/layout.test.ts", "layOutRegion"],
  },
  {
    name: "a hostile header leaves a hole between tensors",
    file: `${layout}/layout.ts`,
    find: "if (dataOffsets[0] !== end) {",
    replace: "if (dataOffsets[0] < end) {",
    test: ["tests/unit/hostile-headers.test.ts"],
  },
  {
    name: "a checksum's last chunk goes beyond the data",
    file: `${layout}/checksum.ts`,
    find: "byteSize: Math.min(limits.checksumChunkBytes, byteSize - done)",
    replace: "byteSize: limits.checksumChunkBytes",
    test: ["tests/unit/checksum.test.ts", "toChunks"],
  },
  {
    name: "a checksum is not the one that the protocol specifies",
    file: `${layout}/checksum.ts`,
    find: "hashes.writeBigUInt64LE(hash, index * 8);",
    replace: "hashes.writeBigUInt64BE(hash, index * 8);",
    test: ["tests/unit/checksum.test.ts", "agrees with Python's xxhash"],
  },
  {
    name: "an upload that the runtime writes goes on into a file that was truncated and grew back",
    file: data,
    find: "    checkPages(region, file.allocatedBytes, allocatedBytes);\n",
    replace: "",
    test: ["tests/faults/data.test.ts", "truncated and given its size back"],
  },
  {
    name: "an upload that the runtime writes does not see its file's size",
    file: data,
    find: "    checkWritable(region);\n    checkSize(region, file.byteSize);\n    // A file",
    replace: "    checkWritable(region);\n    // A file",
    test: ["tests/faults/data.test.ts", "a file that is extended"],
  },
  {
    name: "an upload in chunks does not see its file's size",
    file: data,
    find: "      checkSize(region, file.byteSize);\n      file.write(",
    replace: "      file.write(",
    test: ["tests/contract/data-upload.test.ts", "when a worker truncates the file"],
  },
  {
    name: "an upload in chunks writes past its part",
    file: data,
    find: "      if (done + chunk.length > slice.byteSize) throw tooLong(region, slice);\n",
    replace: "",
    test: ["tests/contract/data-upload.test.ts", "when its stream is too long"],
  },
  {
    name: "an upload is no writer",
    file: "src/memory/storage/data-file.ts",
    find: `    if (access === "write") tryReadLock(fd, writerByte, 1n);\n`,
    replace: "",
    test: ["tests/contract/data-upload.test.ts", "is a writer: the region cannot be sealed"],
  },
  {
    name: "a download sends a file that a worker truncated",
    file: data,
    find: "  try {\n    checkSize(region, file.byteSize);\n  } catch",
    replace: "  try {\n  } catch",
    test: ["tests/contract/data-download.test.ts", "made shorter or longer is refused"],
  },
  {
    name: "a download's lease ends before its bytes are out",
    file: "src/memory/storage/downloads.ts",
    find: "if (isOpen || mayOpenYet) continue;",
    replace: "if (mayOpenYet) continue;",
    test: ["tests/faults/data.test.ts", "drains until its download has ended"],
  },
  {
    name: "a download's lease never ends",
    file: "src/memory/storage/downloads.ts",
    find: "(open.get(identity) ?? 0) > 1",
    replace: "(open.get(identity) ?? 0) > 0",
    test: ["tests/contract/data-download.test.ts", "a download holds a lease, and no longer than it takes"],
  },
  {
    name: "what still comes of an upload that was ended is written",
    file: "src/memory/storage/inflow.ts",
    find: "    seekToLimit(this.#fd);\n",
    replace: "",
    test: ["tests/unit/inflow.test.ts", "what comes after it is disposed is written nowhere"],
  },
  {
    name: "a region that something else links is forgotten",
    file: `${shm}/shm-memory.ts`,
    find: `  if (kept.nlink > 1) return "hard-link";\n`,
    replace: "",
    test: ["tests/contract/delete.test.ts", "drains as long as something else links its file"],
  },
  {
    name: "a deletion takes a foreign file that stands in the name's place",
    file: `${shm}/shm-names.ts`,
    find: "if (this.isPublished(token, identity)) unlinkSync(",
    replace: "if (identity !== undefined) unlinkSync(",
    test: ["tests/contract/delete.test.ts", "leaves a foreign file alone that took its public name"],
  },
  {
    name: "a sealed region's file may be written to",
    file: `${shm}/shm-files.ts`,
    find: "  sealed: 0o1440,",
    replace: "  sealed: 0o1640,",
    test: ["tests/contract/seal.test.ts", "is read-only by its mode"],
  },
  {
    name: "an allocation takes the last page though somebody fills the file system meanwhile",
    file: `${shm}/shm-memory.ts`,
    find: "      this.#files.checkSpace(byteSize - done);\n",
    replace: "",
    test: ["tests/faults/full-memory.test.ts", "an allocation takes no window more"],
  },
];
