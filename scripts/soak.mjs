/**
 * `npm run soak`: everything at once for half an hour, or `npm run soak -- --minutes 3`: workers that are killed in all
 * states, clients of every operation, subscribers that come and go. Fails if anything is lost, left over or leaked.
 * `npm run soak -- --web`: gunicorn's workers, recycled for five minutes, on one copy of their weights.
 * `npm run soak -- --server`: the server, killed at random again and again for about five minutes.
 * `npm run soak -- --connections`: 100,000 connections that never ask, up to a server's limit at once, in about a minute.
 */

import "./lib/require-node.mjs";

void Promise.all([import("./lib/process.mjs"), import("../bench/soak/run.mjs")]).then(([{ main }, { runSoak }]) =>
  main(() => runSoak(process.argv.slice(2))),
);
