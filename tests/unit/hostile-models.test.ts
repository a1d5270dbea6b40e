/** Every file under tests/hostile/models is refused, for the reason that its README gives, and with a bounded effort. */

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { openModelFile } from "../../src/loaders/formats/open-model-file.ts";
import { streamContent, streamTensor } from "../../src/loaders/formats/stream-content.ts";
import { readerOf, refusalOf } from "../harness/model-files.ts";

const folder = join(import.meta.dirname, "../hostile");
const models = join(folder, "models");
const files = readdirSync(models, { recursive: true, encoding: "utf8" }).filter((file) =>
  statSync(join(models, file)).isFile(),
);
const rows = [...readFileSync(join(models, "README.md"), "utf8").matchAll(/^\| `(.+?)` \| .+ \| `(.+)` \|$/gm)];
const headerRows = [
  ...readFileSync(join(folder, "README.md"), "utf8").matchAll(/^\| `(.+?\.bin)` \| .+ \| `(.+)` \|$/gm),
];

/** Does all that a loader does. */
async function load(bytes: Buffer, path: string): Promise<void> {
  const reader = readerOf(bytes);
  const opened = await openModelFile(reader, path);
  for await (const _ of streamContent(reader, opened));
  for (const tensor of opened.tensors) for await (const _ of streamTensor(reader, opened, tensor));
}

async function expectRefused(bytes: Buffer, path: string, words: string): Promise<void> {
  const refusal = await refusalOf(() => load(bytes, path));
  expect(refusal.message).toContain(words);
  expect(refusal.message).toStartWith(`Cannot load ${JSON.stringify(path)}: `);
  expect(refusal.message).toMatch(/, want .+$/);
  expect(refusal.message.length).toBeLessThan(1500);
  expect(["invalid-model-file", "unsupported-format"]).toContain(refusal.code);
  expect(refusal.facts).toMatchObject({ path, hint: expect.any(String) });
}

describe("hostile model files", () => {
  test("the README names every file, and no other", () => {
    expect(rows.map(([, file]) => file).toSorted()).toEqual(files.filter((file) => file !== "README.md").toSorted());
    expect(files.length).toBeGreaterThan(150);
  });

  for (const [, file = "", words = ""] of rows) {
    test(`${file} is refused: ${words}`, () =>
      expectRefused(readFileSync(join(models, file)), `/models/${file}`, words));
  }

  for (const [, file = "", words = ""] of headerRows) {
    test(`${file} is refused as a safetensors file: ${words}`, () =>
      expectRefused(readFileSync(join(folder, "headers", file)), `/models/${file}.safetensors`, words));
  }
});
