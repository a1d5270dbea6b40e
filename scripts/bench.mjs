/**
 * `npm run bench`: every benchmark of `bench/`, one after another; `npm run bench -- attach scale` only those. Results go
 * to the terminal and to `bench/results/`.
 */

import "./lib/require-node.mjs";

void Promise.all([import("./lib/process.mjs"), import("../bench/run.mjs")]).then(([{ main }, { runBenchmarks }]) =>
  main(() => runBenchmarks(process.argv.slice(2))),
);
