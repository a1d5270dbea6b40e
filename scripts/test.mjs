/**
 * `npm test`: everything, from a fresh clone. `-- --only unit` runs one part (`check`, `bun`, a folder of `tests/`,
 * `python`, `demo`); `-- tests/unit/layout.test.ts` gives Bun's test runner that path; `-- --long` runs as many rounds of
 * the random tests as `tests/rounds.json` says.
 */

import "./lib/require-node.mjs";

void Promise.all([import("./lib/process.mjs"), import("./lib/test.mjs")]).then(([{ main }, { runTests }]) =>
  main(() => runTests(process.argv.slice(2))),
);
