/** Mistakes in memory without a name: what the kernel is told to refuse, what stays private, and what a start takes for told. */

const memfd = "src/memory/storage/memfd";
const shm = "src/memory/storage/shm";
const contract = "tests/contract/memfd.test.ts";
const restart = "tests/contract/memfd-restart.test.ts";
const birth = "can neither shrink nor grow from its birth";

export const unnamedMutations = [
  {
    name: "memory that no process maps is handed out",
    file: "src/memory/storage/heap/heap-storage.ts",
    find: "override openDescription(token: string): never {",
    replace: "refuse(token: string): never {",
    test: ["tests/contract/heap.test.ts", "is handed out to nobody"],
  },
  {
    name: "a memfd may shrink under its readers",
    file: `${memfd}/memfds.ts`,
    find: `addSeals(fd, "shrink", "grow");`,
    replace: `addSeals(fd, "grow");`,
    test: [contract, birth],
  },
  {
    name: "a memfd is opened by any uid that has a descriptor",
    file: `${memfd}/memfds.ts`,
    find: "      fchmodSync(fd, privateModes.open);\n",
    replace: "",
    test: [contract, birth],
  },
  {
    name: "the kernel's refusal to seal is taken for a seal",
    file: `${memfd}/memfd-memory.ts`,
    find: `if ((error as NodeJS.ErrnoException).code === "EBUSY") return false;`,
    replace: `if ((error as NodeJS.ErrnoException).code === "EBUSY") return true;`,
    test: [contract, "writes it without a lock"],
  },
  {
    name: "a seal leaves the kernel out",
    file: "src/memory/regions/seal.ts",
    find: "if (!(await store.storages.of(region).memory.seal(region.token))) throw hasWriters(region);",
    replace: "",
    test: [contract, "writes it without a lock"],
  },
  {
    name: "memory without a name is left writable for stock readers",
    file: "src/memory/storage/access-modes.ts",
    find: "const mode = modes[access];",
    replace: "const mode = modes[access] ?? modes.sealed;",
    test: [contract, "is not sealed for stock readers"],
  },
  {
    name: "huge pages that cannot be had are made of small ones",
    file: "src/memory/storage/storages.ts",
    find: "storage.hugePage === (hugePage ?? null)",
    replace: "storage.hugePage === null",
    test: [contract, "huge pages"],
  },
  {
    name: "what lies in a memfd is taken for others' in the file system",
    file: "src/memory/state/stats.ts",
    find: "pool.takenBytes - elsewhereOf(store, pool)",
    replace: "pool.takenBytes",
    test: [contract, "is nothing that others have"],
  },
  {
    name: "a private region has a public name",
    file: `${shm}/shm-storage.ts`,
    find: "new (isPrivate ? PrivateNames : ShmNames)(files, directory)",
    replace: "new ShmNames(files, directory)",
    test: ["tests/contract/private.test.ts", "has a file in the keeper alone"],
  },
  {
    name: "a start takes memory for told that nothing proves",
    file: "src/memory/start/recover.ts",
    find: "names.isPublished(token, identity) ?? store.proofs.find(token) !== undefined",
    replace: "names.isPublished(token, identity) ?? true",
    test: [restart, "died before it told"],
  },
  {
    name: "a start takes no memory for told that has no public name",
    file: "src/memory/start/recover.ts",
    find: "names.isPublished(token, identity) ?? store.proofs.find(token) !== undefined",
    replace: "names.isPublished(token, identity) === true",
    test: [restart, "where the journal is gone"],
  },
  {
    name: "who asks for a private region is given one with a name",
    file: "src/memory/regions/create.ts",
    find: "request.isStorageSaid && existing.storageForm !== request.storage",
    replace: "false",
    test: ["tests/contract/private.test.ts", "is not given that"],
  },
];
