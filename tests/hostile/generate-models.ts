/**
 * Writes the hostile model files of `models/` and the README that says what each one tries. Run it with
 * `bun tests/hostile/generate-models.ts` after a change; the files are committed, so that other loaders can use them.
 */

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ggufRows } from "./rows/gguf.ts";
import { npyRows, npzRows } from "./rows/numpy.ts";
import { foreignRows, packedRows } from "./rows/packed.ts";

const folder = join(import.meta.dirname, "models");
const rows = [
  ...[...ggufRows, ...npyRows, ...npzRows].map(
    ([file, ...rest]) => [`${file.split(".").at(-1)}/${file}`, ...rest] as const,
  ),
  ...packedRows.map(([file, ...rest]) => [`compressed/${file}`, ...rest] as const),
  ...foreignRows.map(([file, ...rest]) => [`foreign/${file}`, ...rest] as const),
];

rmSync(folder, { recursive: true, force: true });
for (const [file, , , bytes] of rows) {
  mkdirSync(join(folder, file, ".."), { recursive: true });
  writeFileSync(join(folder, file), bytes);
}
const table = rows.map(([file, tries, words]) => `| \`${file}\` | ${tries} | \`${words}\` |`).join("\n");
writeFileSync(
  join(folder, "README.md"),
  `# Hostile model files

Each file here is broken, hostile, or no model file at all. \`openModelFile\` refuses it, or who reads its bytes after that, with
\`invalid-model-file\` or \`unsupported-format\`, by its path, and for the reason that it was made for: the sentence contains the words on
the right (\`tests/unit/hostile-models.test.ts\`). Headers of safetensors files are in \`../headers\`. Written by \`../generate-models.ts\`.

| file | what it tries | words of the refusal |
|---|---|---|
${table}
`,
);
