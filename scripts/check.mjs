/** `npm run check`: the gate that every commit passes. `-- --fix` writes what can be fixed by itself. */

import "./lib/require-node.mjs";

void Promise.all([
  import("./lib/check.mjs"),
  import("./lib/process.mjs"),
  import("./lib/python-packages.mjs"),
  import("./lib/server-packages.mjs"),
]).then(([{ runChecks }, { Failure, main }, { setUpPython }, { setUpPackages }]) =>
  main(async () => {
    const unknown = process.argv.slice(2).find((argument) => argument !== "--fix");
    if (unknown) throw new Failure(`Cannot check: ${unknown} is no option, want --fix or nothing.`);
    await setUpPackages();
    await setUpPython();
    return (await runChecks({ fix: process.argv.includes("--fix") })) ? 0 : 1;
  }),
);
