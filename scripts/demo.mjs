/** `npm run demo`: one copy of a real model's weights for several processes, and what becomes of it when they are killed. */

import "./lib/require-node.mjs";

void Promise.all([import("./lib/process.mjs"), import("../demo/story.mjs")]).then(([{ main }, { tellStory }]) =>
  main(tellStory),
);
