/** Mistakes in what is kept while no server runs: who gets it, how long it stays, and what stays with it. */

const folder = "src/memory/storage/fd-holder";
const test = (claim) => ["tests/faults/fd-holder.test.ts", claim];

export const holderMutations = [
  {
    name: "an fd holder keeps the lock that it was shown",
    file: `${folder}/hold.ts`,
    find: "    } finally {\n      closeSync(lock);\n    }\n    if (!isOwner)",
    replace: "    }\n    if (!isOwner)",
    test: test("what was kept is there again after a crash"),
  },
  {
    name: "an fd holder serves who shows a descriptor of the lock file that does not own the lock",
    file: `${folder}/hold.ts`,
    find: " && tryLockFile(lock);",
    replace: ";",
    test: test("serves only who shows the descriptor"),
  },
  {
    name: "who only looks has the fd holder wait anew",
    file: `${folder}/hold.ts`,
    find: "if (connection.ttlMs !== undefined) this.#deadlineMs = performance.now() + connection.ttlMs;",
    replace: "this.#deadlineMs = performance.now() + (connection.ttlMs ?? 3_600_000);",
    test: test("frees everything when its time is over"),
  },
  {
    name: "an fd holder that keeps nothing stays without a server",
    file: `${folder}/hold.ts`,
    find: "    return this.#kept.size === 0 && this.#connections.size === 0;",
    replace: "    return false;",
    test: test("ends at once when it holds nothing"),
  },
  {
    name: "those who say nothing keep a server out",
    file: `${folder}/hold.ts`,
    find: "if (this.#connections.size >= limits.holderConnections) this.#closeOldestStranger();",
    replace:
      "if (this.#connections.size >= limits.holderConnections) {\n        closeSync(socket);\n        continue;\n      }",
    test: test("who connect and say nothing"),
  },
  {
    name: "a new fd holder is not given what the last one had",
    file: `${folder}/held-descriptors.ts`,
    find: "    else await this.#giveAgain(connection);\n",
    replace: "",
    test: test("is replaced at once"),
  },
  {
    name: "an fd holder keeps what it took too late",
    file: `${folder}/holder-connection.ts`,
    find: 'if (question.op === "keep") this.ask({ op: "drop", token: question.token }).catch(() => {});',
    replace: "",
    test: test("keeps nothing that nobody waits for"),
  },
  {
    name: "an fd holder ends with what Bun ends below the server",
    file: `${folder}/start-holder.ts`,
    find: '["/bin/sh", "-c", \'"$@" &\', "sh"]',
    replace: "[]",
    test: test("made to end all that it started"),
  },
  {
    name: "a start takes a lock that the fd holder has still to read for a running server's",
    file: "src/memory/storage/instance-lock.ts",
    find: "    if (!isGone(pid)) {",
    replace: "    if (pid !== undefined) {",
    test: test("where the fd holder stays stopped"),
  },
  {
    name: "a memfd region is answered for before anybody keeps it",
    file: "src/memory/storage/memfd/memfd-memory.ts",
    find: "      await memfds.holder?.keep(token, fd);\n",
    replace: "",
    test: ["tests/faults/memfd-crash.test.ts", "takes nothing along while the server lives"],
  },
];
