/** `npm start`: starts the server from a fresh clone. Arguments after `--` go to `tensord serve`. */

import "./lib/require-node.mjs";

void import("./lib/launch.mjs").then(({ launch }) => launch(["serve", ...process.argv.slice(2)]));
