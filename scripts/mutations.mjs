/**
 * `npm run mutations`: breaks the code on purpose, in a copy, one mistake at a time, and wants a test to fail for each.
 * `-- --only "part of a name"` tries those alone, `-- --list` names them all.
 */

import "./lib/require-node.mjs";

void Promise.all([import("./lib/process.mjs"), import("./lib/mutations.mjs")]).then(([{ main }, { runMutations }]) =>
  main(() => runMutations(process.argv.slice(2))),
);
