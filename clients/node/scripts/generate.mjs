/**
 * Writes `src/generated/openapi.ts` from the repository's `openapi.yaml`. With `--check` it writes nothing and fails if
 * the file is not what it would write.
 */

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const target = fileURLToPath(new URL("../src/generated/openapi.ts", import.meta.url));

const run = (command, args, input) =>
  execFileSync(command, args, { cwd: root, input, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });

const cli = "tests/generated/node_modules/openapi-typescript/bin/cli.js";
const types = run(process.execPath, [cli, "openapi.yaml", "--immutable"]);
const text = run("node_modules/.bin/biome", ["check", "--write", `--stdin-file-path=${target}`], types);

if (!process.argv.includes("--check")) writeFileSync(target, text);
else if (readFileSync(target, "utf8") !== text) {
  console.error("src/generated/openapi.ts is not what openapi.yaml makes: run `npm run generate -w clients/node`");
  process.exitCode = 1;
}
