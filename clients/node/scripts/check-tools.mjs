/**
 * Packs the client, installs it as a user does, beside the tools that people build and test with, and runs what each makes
 * of a small program. By hand, since it installs some hundred packages: `node clients/node/scripts/check-tools.mjs`, with the
 * client built and a server up (`TENSORD_INSTANCE` or `TENSORD_URL` names it).
 */

import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const client = fileURLToPath(new URL("../", import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "tensord-tools-"));
process.on("exit", () => rmSync(directory, { recursive: true }));

const tools = [
  "esbuild@0.28.2",
  "webpack@5.113.0",
  "webpack-cli@7.3.1",
  "@vercel/ncc@0.45.0",
  "jest@30.5.2",
  "@types/node@20.19.26",
];
/** The oldest that the README names, and the last of the compilers that were written in JavaScript. */
const compilers = { oldest: "typescript@5.7.3", newest: "typescript@5.9.3" };

function run(title, command, ...args) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: directory, encoding: "utf8" });
  console.log(status === 0 ? "ok    " : "FAILED", title, status === 0 ? "" : `\n${stdout}${stderr}`);
  if (status !== 0) process.exitCode = 1;
}

const bin = (name) => join(directory, "node_modules/.bin", name);
const write = (name, text) => writeFileSync(join(directory, name), text);

const use = `async () => {
  const client = await connect();
  const region = await client.create(null, new Float32Array([1, 2]), { ttlMs: 60_000 });
  if (region.tensor().array("F32")[1] !== 2) throw new Error("another value");
  region.close();
  client.close();
}`;
write("package.json", JSON.stringify({ private: true }));
write("module.mjs", `import { connect } from "@tensord/client";\nawait (${use})();\n`);
write("common.cjs", `const { connect } = require("@tensord/client");\nvoid (${use})();\n`);
write("use.test.js", `const { connect } = require("@tensord/client");\ntest("maps", ${use});\n`);
cpSync(join(client, "scripts/check-tools.ts.txt"), join(directory, "use.ts"));

run("npm pack", "npm", "pack", client, "--silent");
const aliases = Object.entries(compilers).map(([name, version]) => `${name}@npm:${version}`);
run("npm install", "npm", "install", "--no-audit", "--no-fund", "./tensord-client-0.1.0.tgz", ...tools, ...aliases);

for (const source of ["module.mjs", "common.cjs"]) {
  const format = source === "module.mjs" ? "esm" : "cjs";
  const out = (tool) => `${tool}-${source}`;
  run(`${source} in Node`, process.execPath, source);
  const node = ["--bundle", "--platform=node", `--format=${format}`, `--outfile=${out("esbuild")}`];
  run(`esbuild ${source}`, bin("esbuild"), source, ...node);
  run(`  which runs`, process.execPath, out("esbuild"));
  run(
    `webpack ${source}`,
    bin("webpack"),
    "--mode=production",
    "--target=node",
    "--entry",
    `./${source}`,
    "-o",
    out("webpack"),
  );
  run(`  which runs`, process.execPath, join(out("webpack"), "main.js"));
  run(`ncc ${source}`, bin("ncc"), "build", source, "-o", out("ncc"));
  run(`  which runs`, process.execPath, join(out("ncc"), `index${source.slice(source.indexOf("."))}`));
}
run("Jest as it comes", bin("jest"));

const resolutions = [
  ["commonjs", "node10", "commonjs"],
  ["node16", "node16", "commonjs"],
  ["node16", "node16", "module"],
  ["nodenext", "nodenext", "module"],
  ["esnext", "bundler", "module"],
];
for (const name of Object.keys(compilers)) {
  for (const [module, moduleResolution, type] of resolutions) {
    const project = join(directory, `${name}-${moduleResolution}-${type}`);
    mkdirSync(project);
    cpSync(join(directory, "use.ts"), join(project, "use.ts"));
    writeFileSync(join(project, "package.json"), JSON.stringify({ type }));
    const target = { target: "es2022", lib: ["es2022", "esnext.disposable"], types: ["node"] };
    const compilerOptions = { module, moduleResolution, ...target, strict: true, noEmit: true, skipLibCheck: false };
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions }));
    const compiler = join(directory, "node_modules", name, "bin/tsc");
    run(`TypeScript ${compilers[name]}, ${moduleResolution}, ${type}`, process.execPath, compiler, "-p", project);
  }
}
