/**
 * `npm run test:gpu`: looks at this machine's card, row by row, and prints what `docs/gpu-verification.md` takes; `REQUIRE_GPU=1`
 * makes it a failure that there is none. `-- --only "elastic"` looks at rows with that in their names alone. `npm run test:gpu -- --pack`: the same for a machine without a network, as one file below
 * `dist`; `--python 3.12` for that Python, `--fast` without compressing it.
 */

import "./lib/require-node.mjs";

void Promise.all([import("./lib/process.mjs"), import("./lib/gpu-package.mjs")]).then(([{ main }, { testGpu }]) =>
  main(() => testGpu(process.argv.slice(2))),
);
