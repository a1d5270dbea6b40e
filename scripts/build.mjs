/** `npm run build`: the server as one executable, `dist/tensord`, set up when it has to be. */

import "./lib/require-node.mjs";

void Promise.all([
  import("./lib/process.mjs"),
  import("./lib/server-packages.mjs"),
  import("./lib/executable.mjs"),
]).then(([{ main }, { setUpServer }, { buildExecutable, executable }]) =>
  main(async () => {
    await setUpServer();
    await buildExecutable();
    console.log(executable);
    return 0;
  }),
);
