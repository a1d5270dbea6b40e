/** Mistakes with pages of elastic pools: who is waited for, what is undone, what is charged, and what is told. */

const pages = "tests/contract/elastic-pages.test.ts";
const budget = "tests/contract/elastic-budget.test.ts";
const restart = "tests/contract/elastic-restart.test.ts";

export const elasticMutations = [
  {
    name: "pages go though a worker has them",
    file: "src/cuda/elastic/departing.ts",
    find: "if (departure.outstanding > 0 || departure.isCommitted) return;",
    replace: "if (departure.isCommitted) return;",
    test: [pages, "unmap waits for each worker"],
  },
  {
    name: "an unmapping is undone after its pages are free",
    file: "src/cuda/elastic/departing.ts",
    find: "    if (departure.isCommitted) return false;\n",
    replace: "",
    test: [pages, "that nobody keeps is not undone"],
  },
  {
    name: "a mapping that fails leaves the pages that it made",
    file: "src/cuda/elastic/mapping.ts",
    find: "    for (const page of made.toReversed()) await this.#departing.freeUndone(pool, page);\n",
    replace: "",
    test: [pages, "or none"],
  },
  {
    name: "a page that is not given back is charged no longer",
    file: "src/cuda/elastic/departing.ts",
    find: "        else this.#owe(pool, page, false, failure);\n",
    replace:
      "        else this.#owe(pool, page, false, failure);\n        if (failure !== undefined) this.#discharge(pool);\n",
    test: [pages, "does not take back"],
  },
  {
    name: "a driver that does not answer is waited for page by page",
    file: "src/cuda/elastic/departing.ts",
    find: "const failure = silence ?? (await",
    replace: "const failure = (await",
    test: [pages, "waited for once"],
  },
  {
    name: "a worker whose connection has ended counts as dead",
    file: "src/cuda/elastic/departing.ts",
    find: "if (!isSlotLocked(pool, worker.slot)) this.removeWorker(worker);",
    replace: "if (!worker.isConnected) this.removeWorker(worker);",
    test: [pages, "keeps what it has as long as it lives"],
  },
  {
    name: "a slot is anybody's who names it",
    file: "src/cuda/elastic/attending.ts",
    find: "if (worker?.isConnected === true) throw",
    replace: "if (worker?.slot === -1) throw",
    test: [pages, "a slot is for who has locked it"],
  },
  {
    name: "holes are closed under a worker that has not agreed to it",
    file: "src/cuda/elastic/compact.ts",
    find: "if (unwilling.length > 0) throw",
    replace: "if (unwilling.length > 8) throw",
    test: [pages, "compact closes holes"],
  },
  {
    name: "trim takes pages that a worker has",
    file: "src/cuda/elastic/unmapping.ts",
    find: "each < run.count && !takers.has(run.firstPage + each);",
    replace: "each < run.count && takers.size >= 0;",
    test: [pages, "trim gives back what no worker has"],
  },
  {
    name: "a minimum is charged to nobody",
    file: "src/cuda/elastic/pool-books.ts",
    find: "return Math.max(pages * this.pageSize, this.isClosed ? 0 : this.minimumBytes);",
    replace: "return pages * this.pageSize;",
    test: [budget, "a minimum is charged"],
  },
  {
    name: "what leaves already does not count for who makes room",
    file: "src/memory/regions/evict.ts",
    find: "return pages.isLeaving || store.now()",
    replace: "return !pages.isLeaving && store.now()",
    test: [budget, "whoever asked waits for that"],
  },
  {
    name: "one that waits under his own maximum holds up the others",
    file: "src/memory/state/room-queue.ts",
    find: `shortage.code === "pool-full" && shortage.own === undefined`,
    replace: `shortage.code === "pool-full"`,
    test: [budget, "a maximum is the pool's own limit"],
  },
  {
    name: "a model is unregistered under its pool",
    file: "src/memory/sessions/models.ts",
    find: "if (model.elasticPools > 0) {",
    replace: "if (model.elasticPools > 8) {",
    test: [budget, "charged to the model's pool"],
  },
  {
    name: "numbers of pages come twice after a restart",
    file: "src/cuda/elastic/mapping.ts",
    find: "{ pool: pool.toRow(), put: [toRunRow(run)] }",
    replace: "{ put: [toRunRow(run)] }",
    test: [restart, "no number comes twice"],
  },
  {
    name: "who lived through a restart has nothing until he says so",
    file: "src/cuda/elastic/reopen.ts",
    find: "    for (const page of pool.runOf.keys()) pool.addTaken(worker, page);\n",
    replace: "",
    test: [restart, "keeps everything until it says what it has"],
  },
  {
    name: "pages of a session that did not come back stay",
    file: "src/cuda/elastic/reopen.ts",
    find: "  for (const pool of revived) pools.endAbandoned(pool);\n",
    replace: "",
    test: [restart, "leaves at the start"],
  },
];
