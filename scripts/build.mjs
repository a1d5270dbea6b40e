/** `npm run build`: the server as one executable, `dist/tensord`, set up when it has to be; `-- --arch arm64` for another processor. */

import "./lib/require-node.mjs";

void Promise.all([
  import("node:util"),
  import("./lib/process.mjs"),
  import("./lib/server-packages.mjs"),
  import("./lib/executable.mjs"),
]).then(([{ parseArgs }, { main }, { setUpPackages }, { buildExecutable, executableFor }]) =>
  main(async () => {
    const { arch } = parseArgs({ options: { arch: { type: "string", default: process.arch } } }).values;
    await setUpPackages();
    await buildExecutable(arch);
    console.log(executableFor(arch));
    return 0;
  }),
);
