/** `npm run release`: every artefact that is published, in `dist/release`, each tried as people install it. Publishes nothing. */

import "./lib/require-node.mjs";

void Promise.all([import("./lib/process.mjs"), import("./lib/release/release.mjs")]).then(([{ main }, { release }]) =>
  main(() => release(process.argv.slice(2))),
);
