/**
 * `npm run check:generators`: makes a client with every generator of `tests/generators`, compiles it and drives a server with
 * it. `-- go ogen` takes those alone, `-- --list` names them all.
 */

import "./lib/require-node.mjs";

void Promise.all([import("./lib/process.mjs"), import("./lib/check-generators.mjs")]).then(
  ([{ main }, { checkGenerators }]) => main(() => checkGenerators(process.argv.slice(2))),
);
