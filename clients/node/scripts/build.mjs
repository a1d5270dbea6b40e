/**
 * Makes `dist`: modules by tsc, and of these two files an entry, one module, and one CommonJS file with the same declarations beside it, for
 * `require`, for CommonJS TypeScript and for Jest. Prints what a tool that fails says.
 */

import { spawnSync } from "node:child_process";
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { main } from "../../../scripts/lib/process.mjs";
import { setUpPackages } from "../../../scripts/lib/server-packages.mjs";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const dist = "clients/node/dist";

function run(command, ...args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  if (error !== undefined) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

// Who only started the server has no compiler yet.
await main(setUpPackages);
if (process.exitCode !== 0) process.exit();
rmSync(`${root}${dist}`, { recursive: true, force: true });
run("node_modules/.bin/tsc", "-p", "clients/node");
cpSync(`${root}${dist}`, `${root}.tmp/node-client-declarations`, { recursive: true });
cpSync(`${root}.tmp/node-client-declarations`, `${root}${dist}/cjs`, {
  recursive: true,
  filter: (path) => !path.endsWith(".js"),
});
rmSync(`${root}.tmp/node-client-declarations`, { recursive: true });
const forms = [
  { format: "cjs", to: `${dist}/cjs`, options: ["--define=import.meta.url=undefined"] },
  // In the place of the module by itself: to load all of those one by one takes five times as long.
  { format: "esm", to: dist, options: [] },
];
for (const entry of ["index", "testing"]) {
  for (const { format, to, options } of forms) {
    const file = `${to}/${entry}.js`;
    run(
      "node_modules/.bin/bun",
      ...["build", `${dist}/${entry}.js`, "--target=node", `--format=${format}`, ...options],
      // There is one client in a program, and one class of errors.
      ...(entry === "index" ? [] : ["--external=@tensord/client"]),
      `--outfile=${file}`,
    );
    // The bundler writes down where it ran, in the place of where the file is.
    const text = readFileSync(`${root}${file}`, "utf8").replace(/^var __filename = .*;$/m, "");
    if (text.includes(root)) throw new Error(`Cannot build ${file}: it names ${root}, want no place of the build`);
    writeFileSync(`${root}${file}`, text);
  }
}
writeFileSync(`${root}${dist}/cjs/package.json`, `${JSON.stringify({ type: "commonjs" })}\n`);
