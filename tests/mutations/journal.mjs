/** Mistakes in what is written down and in what a start makes of it: rows, migrations, adoption, orphans, lost regions. */

const journal = "src/memory/journal";
const start = "src/memory/start";

export const journalMutations = [
  {
    name: "two rows that belong together are written one by one",
    file: `${journal}/journal.ts`,
    find: "this.#freeing(records.length === 1 ? update : this.#database.transaction(update));",
    replace: "this.#freeing(update);",
    test: ["tests/contract/if-exists.test.ts", "whose second row cannot be written"],
  },
  {
    name: "a change is in the books though its row could not be written",
    file: "src/memory/state/store.ts",
    find: `    this.journal.updateRegions(revised.map(([region, change]) => ({ ...region, ...change })));
    this.step(step);
    for (const [region, change] of revised) this.books.change(region, change);`,
    replace: `    for (const [region, change] of revised) this.books.change(region, change);
    this.journal.updateRegions(revised.map(([region]) => region));
    this.step(step);`,
    test: ["tests/contract/change.test.ts", "a row that cannot be written"],
  },
  {
    name: "the tensors of a region that is gone stay in the journal",
    file: `${journal}/journal.ts`,
    find: "    this.#freeing(() => this.#deleteTensors.run(key));\n    this.#ballast",
    replace: "    this.#ballast",
    test: ["tests/faults/killed-at-step.test.ts", "during the deletion of a small region, after delete.row-deleted"],
  },
  {
    name: "tensors whose region was never entered stay in the journal",
    file: `${journal}/journal.ts`,
    find: "    this.#dropTensors(content.strayTensors);\n",
    replace: "",
    test: ["tests/faults/lost-store.test.ts", "tensors whose region was never entered"],
  },
  {
    name: "a write that frees memory is not given the ballast's pages",
    file: `${journal}/journal.ts`,
    find: "() => this.makeRoom() || this.#ballast.giveUp()",
    replace: "this.makeRoom",
    test: ["tests/faults/full-memory.test.ts", "DELETE works with not a page free"],
  },
  {
    name: "a write of the journal is refused though the reserve has pages",
    file: `${journal}/journal.ts`,
    find: "if (!isFull(error) || !makeRoom()) throw translate(error);",
    replace: "if (!isFull(error) || makeRoom === this.makeRoom || !makeRoom()) throw translate(error);",
    test: ["tests/contract/reserve.test.ts", "takes its pages where nobody else has any"],
  },
  {
    name: "a list is refused though the reserve has pages",
    file: "src/memory/storage/tensor-files.ts",
    find: "if (isWithoutPage(error) && (await this.makeRoom())) continue;",
    replace: "if (isWithoutPage(error) && !(await this.makeRoom())) continue;",
    test: ["tests/contract/reserve.test.ts", "takes its pages where nobody else has any"],
  },
  {
    name: "what happens while a server stops is told by nobody",
    file: "src/memory/start/open-store.ts",
    find: "opened.defer(() => store.close());",
    replace:
      "opened.defer(() => { store.close(); keepEvents(journal, events, options.onWarning); events = undefined; });",
    test: ["tests/contract/events-at-stop.test.ts"],
  },
  {
    name: "a damaged journal is used as it is",
    file: `${journal}/journal-content.ts`,
    find: `  if (found !== "ok") throw new JournalDamage(found);\n`,
    replace: "  if (found === undefined) throw new JournalDamage(found);\n",
    test: ["tests/faults/lost-store-damage.test.ts"],
  },
  {
    name: "a migration loses the limits of models",
    file: `${journal}/journal-schema-3.ts`,
    find: "const ofPools = limitBytes === null ? [] : [{ pool: hostPool, limitBytes }];",
    replace: "const ofPools = limitBytes === null ? [{ pool: hostPool, limitBytes: 0 }] : [];",
    test: ["tests/faults/migration.test.ts", "is brought forward"],
  },
  {
    name: "a migration is done again at the next start",
    file: `${journal}/journal-schema.ts`,
    find: `    database.run(\`PRAGMA user_version = \${schemaVersion}\`);\n`,
    replace: "",
    test: ["tests/faults/migration.test.ts", "over the next start too"],
  },
  {
    name: "a start adopts what nobody was told of",
    file: `${start}/recover.ts`,
    find: "    if (isAdopting) await adoptRegion(store, storage, file, undefined);\n    else drainOrphan(store, storage, file);",
    replace: "    await adoptRegion(store, storage, file, undefined);",
    test: ["tests/faults/lost-store.test.ts", "that no row knows and no name shows is drained"],
  },
  {
    name: "a start without its journal drains what has lost its name, too",
    file: `${start}/recover.ts`,
    find: "    if (isAdopting) await adoptRegion(store, storage, file, undefined);\n    else drainOrphan(store, storage, file);",
    replace: "    drainOrphan(store, storage, file);",
    test: ["tests/faults/lost-store.test.ts", "hostile headers in the keeper do not keep"],
  },
  {
    name: "a start takes another file under the same token for the region's",
    file: `${start}/recover.ts`,
    find: "if (file === undefined || storage === undefined || file.identity.ino !== record.identity.ino) {",
    replace: "if (file === undefined || storage === undefined) {",
    test: ["tests/faults/lost-store.test.ts", "a row whose file is another one by now"],
  },
  {
    name: "a seal that a crash cut short keeps the region sealing",
    file: `${start}/revive.ts`,
    find: `state: record.state === "sealing" ? nextState(record, "seal-refused") : record.state,`,
    replace: "state: record.state,",
    test: ["tests/faults/lost-store.test.ts", "a seal that was under way when the server died"],
  },
  {
    name: "a seal that a crash cut short leaves the file read-only",
    file: `${start}/revive.ts`,
    find: "  if (file.access !== access) store.storages.of(region).memory.setAccess(region.token, access);\n",
    replace: "",
    test: ["tests/faults/killed-at-step.test.ts", "during a seal, after seal.mode-set"],
  },
  {
    name: "a file with a sealed mode is adopted as sealed though somebody writes to it",
    file: `${start}/adopt.ts`,
    find: "return storage.memory.usage(file.token)?.written === false;",
    replace: "return storage.memory.usage(file.token) !== undefined;",
    test: ["tests/faults/lost-store-log.test.ts", "a sealed mode that a writer outlived"],
  },
  {
    name: "a region whose session ended just before a crash stays for ever",
    file: `${start}/recover.ts`,
    find: "  endAbandoned(store);\n",
    replace: "",
    test: [
      "tests/faults/killed-at-step.test.ts",
      "during the end of a session whose regions others use, after session.row-deleted",
    ],
  },
  {
    name: "a file that has lost its public name keeps the name that its proof says",
    file: `${start}/recover.ts`,
    find: "if (isAdopting) await adoptRegion(store, storage, file, undefined);",
    replace: "if (isAdopting) await adoptRegion(store, storage, file, store.proofs.find(file.token));",
    test: ["tests/faults/lost-store-names.test.ts", "what nothing proves has no name"],
  },
  {
    name: "a mode proves a seal against the proof that knows of none",
    file: `${start}/adopt.ts`,
    find: "  if (proof?.isSealed === false) return false;\n",
    replace: "",
    test: ["tests/faults/lost-store-names.test.ts", "a group whose seal was cut after seal.mode-set"],
  },
  {
    name: "of two proofs the earlier wins",
    file: `${start}/recover.ts`,
    find: "age(one) - age(other)",
    replace: "age(other) - age(one)",
    test: ["tests/faults/lost-store-names.test.ts", "of two regions with a proof"],
  },
  {
    name: "a proof is not renewed with its row",
    file: "src/memory/state/store.ts",
    find: "      else this.proofs.put(region);\n",
    replace: "",
    test: ["tests/faults/lost-store-names.test.ts", "a change of the owner"],
  },
  {
    name: "a region that ends keeps its proof",
    file: "src/memory/state/store.ts",
    find: "if (hasEnded(region.state)) this.proofs.remove(region.token);\n      else ",
    replace: "",
    test: ["tests/faults/lost-store-names.test.ts", "what was replaced while"],
  },
  {
    name: "a region is created without a proof",
    file: "src/memory/regions/create.ts",
    find: "    store.proofs.put(region);\n",
    replace: "",
    test: ["tests/faults/lost-store-names.test.ts", "are the server's to prove"],
  },
  {
    name: "a file of proofs that others could write is believed",
    file: `${journal}/proofs.ts`,
    find: "if ((stat.mode & 0o022) !== 0)",
    replace: "if ((stat.mode & 0o7000) !== 0)",
    test: ["tests/unit/proofs.test.ts"],
  },
  {
    name: "a start where others took every inode is given none of the spare ones",
    file: "src/memory/storage/inodes.ts",
    find: "if (!this.#giveUp()) throw",
    replace: "if (this.#isKept || !this.#isKept) throw",
    test: ["tests/faults/few-inodes.test.ts", "others take every inode"],
  },
  {
    name: "a first start makes what it has inodes for, and fails after that",
    file: "src/memory/storage/instance-directory.ts",
    find: "  if (free >= limits.firstStartInodes) return;\n",
    replace: "  if (free >= 0) return;\n",
    test: ["tests/faults/few-inodes.test.ts", "a first start without the inodes"],
  },
];
