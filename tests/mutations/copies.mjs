/** Mistakes in operations, in copies between storages, and in the processes that copy to a device. */

const contract = "tests/contract/copy.test.ts";
const onDevice = "tests/faults/device-copies.test.ts";
const wholeCopy = "has the bytes and the checksum of its source";
const hanging = "a copier that hangs is ended";

export const copiesMutations = [
  {
    name: "a copy is not compared with what it was made of",
    file: "src/memory/regions/copy.ts",
    find: "if (source.checksum !== null && source.checksum.value !== expected.value) {",
    replace: "if (source.checksum === undefined) {",
    test: [contract, "of bytes that changed after the seal"],
  },
  {
    name: "an open region is copied",
    file: "src/memory/regions/copy.ts",
    find: 'nextState(source, "copy");\n  store.books.touch',
    replace: "store.books.touch",
    test: [contract, "of a region that is not sealed is refused"],
  },
  {
    name: "a copy goes on when it is cancelled",
    file: "src/memory/regions/copy.ts",
    find: "    signal.throwIfAborted();\n  };",
    replace: "  };",
    test: [contract, "into memfd that is cancelled in the middle"],
  },
  {
    name: "what a copy takes the name of stays",
    file: "src/memory/regions/fill.ts",
    find: "void freeAll(store, [holder], actor);",
    replace: "",
    test: [contract, "takes a name over"],
  },
  {
    name: "an operation of one caller is found by another's key",
    file: "src/memory/operations/run.ts",
    find: "one.requestKey === requestKey && one.createdBy === createdBy;",
    replace: "one.requestKey === requestKey;",
    test: [contract, "asked for again under its key"],
  },
  {
    name: "an operation that has ended counts among those that run",
    file: "src/memory/operations/run.ts",
    find: "store.operations.running -= 1;",
    replace: "",
    test: [contract, "beyond the most that may run"],
  },
  {
    name: "the device takes a chunk from where the one before lay",
    file: "src/cuda/copier.ts",
    find: "readWhole(sourceDescriptor, bytes, sourceOffset + byteOffset);",
    replace: "readWhole(sourceDescriptor, bytes, byteOffset);",
    test: [onDevice, wholeCopy],
  },
  {
    name: "a copier that was told of an error is taken for done",
    file: "src/cuda/copiers.ts",
    find: "} else throw toFailure(line, work.what);",
    replace: "} else isDone = true;",
    test: [onDevice, "at any of its calls"],
  },
  {
    name: "a copier that hangs is waited for",
    file: "src/cuda/copiers.ts",
    find: "if (performance.now() - heardAt > this.#answerMs) end(",
    replace: "if (heardAt < 0) end(",
    test: [onDevice, hanging],
  },
];
