#!/usr/bin/env node
/** The `tensord` command: the command line of `src/main.ts`, set up when it has to be. */

import "./lib/require-node.mjs";

void import("./lib/launch.mjs").then(({ launch }) => launch(process.argv.slice(2)));
