/** A request to load any file of tests/hostile fails by its path and for its reason, and leaves no region, descriptor or file. */

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { withApp } from "../harness/app.ts";
import { ModelFolder, tinyPath } from "../harness/load.ts";
import { openBelow } from "../harness/open-files.ts";
import { load, loadFile } from "./support/load.ts";

const folder = join(import.meta.dirname, "../hostile");
const models = join(folder, "models");
const rowsOf = (readme: string) => [...readFileSync(readme, "utf8").matchAll(/^\| `(.+?)` \| .+ \| `(.+)` \|$/gm)];

/** What the server refuses for a reason of its own: it keeps bytes as they are. */
const ownReasons: Readonly<Record<string, string>> = Object.fromEntries(
  ["checksum-deflated", "inflates-longer"].map((name) => [`npz/${name}.npz`, "its arrays are compressed one by one"]),
);

test("hostile model files are refused, and leave nothing", async () => {
  using headers = new ModelFolder();
  const cases = rowsOf(join(models, "README.md")).map(([, file = "", words = ""]) => {
    return { path: join(models, file), words: ownReasons[file] ?? words };
  });
  for (const [, file = "", words = ""] of rowsOf(join(folder, "README.md")).filter(([, file]) =>
    file?.endsWith(".bin"),
  )) {
    const path = headers.write(`${file}.safetensors`, readFileSync(join(folder, "headers", file)));
    cases.push({ path, words });
  }
  expect(cases.length).toBeGreaterThan(250);
  await withApp(
    async (app) => {
      await load(app, tinyPath);
      const places = [models, headers.path, `${app.shmDirectory}/tensord.${app.instance}`];
      const look = () => [app.footprint(), ...places.map((place) => openBelow(place).length)];
      const before = look();
      for (const { path, words } of cases) {
        const { state, problem } = await loadFile(app, path);
        expect({ path, state }).toEqual({ path, state: "failed" });
        expect(["invalid-model-file", "unsupported-format"]).toContain(problem?.code as string);
        expect(problem?.detail).toStartWith(`Cannot load ${JSON.stringify(path)}: `);
        expect(problem?.detail).toContain(words);
        expect(problem).toMatchObject({ path, hint: expect.any(String) });
      }
      expect(look()).toEqual(before);
      expect(app.store.books.regions.size).toBe(1);
      await load(app, tinyPath);
    },
    { modelRoots: [models, headers.path, join(tinyPath, "..")] },
  )();
});
