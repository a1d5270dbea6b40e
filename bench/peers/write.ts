/**
 * `npm run bench:figures`: keeps the newest result of the benchmark `peers`, or the file that is named, as
 * `docs/performance/peers.json`, and makes the plots and the tables of `docs/performance.md` from it.
 */

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { repository, resultsDirectory } from "../lib/places.ts";
import { toPlot, toTables } from "./figures.ts";
import type { Measured } from "./measured.ts";

const folder = join(repository, "docs/performance");
const page = join(repository, "docs/performance.md");
const begin = "<!-- figures: npm run bench:figures -->";
const end = "<!-- end of the figures -->";

function findResult(): string {
  const [given] = process.argv.slice(2);
  if (given !== undefined) return given;
  const newest = readdirSync(resultsDirectory)
    .filter((file) => /^peers-.*\.json$/.test(file))
    .toSorted()
    .at(-1);
  if (newest === undefined) throw new Error("Cannot make figures: there is no result yet; run npm run bench -- peers");
  return join(resultsDirectory, newest);
}

const { at, machine, details } = JSON.parse(readFileSync(findResult(), "utf8")) as Measured;
const measured: Measured = { at, machine, details };
writeFileSync(join(folder, "peers.json"), `${JSON.stringify(measured, null, 2)}\n`);
for (const part of details.parts) writeFileSync(join(folder, `${part.name}.svg`), toPlot(part));
const text = readFileSync(page, "utf8");
const [before, after] = [text.indexOf(begin), text.indexOf(end)];
if (before < 0 || after < before) throw new Error(`Cannot write the tables: ${page} lacks the lines around them`);
writeFileSync(page, `${text.slice(0, before + begin.length)}\n\n${toTables(measured)}\n\n${text.slice(after)}`);
