/**
 * How soon has a second worker the tensors of a model that another one has loaded, and what do workers that have it take of the memory? 10 GiB of 600
 * and of 30,000 tensors, in sparse files, since opening looks at no element; and 1 GiB (`BENCH_GIB`) of real bytes, as it is and cast to BF16.
 * Beside it the stock `safetensors.torch.load_file`, and what it reads assigned to a module.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { round } from "./lib/machine.ts";
import { python } from "./lib/places.ts";
import { runAnyway, runPython } from "./lib/python.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";

const GiB = 2 ** 30;
const realBytes = Number(process.env.BENCH_GIB ?? 1) * GiB;
const targetMs = 5;

interface Opened {
  readonly bytes: number;
  readonly count: number;
  readonly mode: "map" | "copy";
  readonly way: string;
  readonly ms: number;
  readonly cpu_ms: number;
}

/** In bytes: the most of one worker that came later, and all four together. */
interface Taken {
  readonly way: string;
  readonly weights: number;
  readonly private: number;
  readonly proportional: number;
  readonly fifth_ms: number;
  readonly answers: number;
}

const asMiB = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

if (await findRoom(3 * Math.max(realBytes, GiB))) {
  // No tmpfs: a sparse file of 10 GiB takes nothing there either, but what is read of one stays.
  const folder = mkdtempSync(join(tmpdir(), "tensord-bench-second-"));
  try {
    await using server = await BenchServer.start({
      settings: { TENSORD_RESERVE_BYTES: "0", TENSORD_MODEL_ROOTS: folder },
    });
    const environment = { BENCH_FOLDER: folder, TENSORD_URL: `unix://${server.socket}` };
    const opened = await runPython<readonly Opened[]>("second_worker.py", ["open"], [server.pid], environment);
    say("| model | a second worker, by | ms to tensors of torch | of its processor |");
    say("|---|---|---|---|");
    for (const { bytes, count, mode, way, ms, cpu_ms } of opened) {
      const model = `${bytes / GiB} GiB, ${count} tensors, ${mode === "map" ? "mapped" : "copied"}`;
      say(`| ${model} | ${way} | ${round(ms)} | ${round(cpu_ms)} |`);
    }
    const memory = await runAnyway<readonly Taken[]>(python, "second_worker.py", ["memory"], environment);
    say("");
    say("| each worker | it uses | private, of one | four together | ms to the fifth's tensors |");
    say("|---|---|---|---|---|");
    for (const { way, weights, private: own, proportional, fifth_ms, answers } of memory) {
      if (answers !== 1) throw new Error(`${way}: ${answers} different answers`);
      say(`| ${[way, asMiB(weights), asMiB(own), asMiB(proportional), round(fifth_ms)].join(" | ")} |`);
    }
    const ms = (bytes: number, count: number, mode: string, way: string) =>
      opened.find((each) => each.bytes === bytes && each.count === count && each.mode === mode && each.way === way)
        ?.ms ?? Number.NaN;
    const large = ms(10 * GiB, 600, "map", "attach by name");
    report({
      benchmark: "second-worker",
      question: "ms from a model that is loaded to a second worker's tensors of torch; memory of four workers",
      ratios: [
        { what: "ms to 600 tensors of 10 GiB, mapped", ratio: large, target: targetMs },
        { what: "ms to 600 tensors of 1 GiB, copied", ratio: ms(GiB, 600, "copy", "attach by name"), target: targetMs },
        {
          what: "10 GiB over 1 GiB, of 600 tensors",
          ratio: large / ms(GiB, 600, "map", "attach by name"),
          target: 1.2,
        },
        { what: "600 tensors of 10 GiB over load_file", ratio: large / ms(10 * GiB, 600, "map", "load_file") },
        {
          what: "30,000 tensors of 10 GiB over load_file",
          ratio: ms(10 * GiB, 30_000, "map", "attach by name") / ms(10 * GiB, 30_000, "map", "load_file"),
        },
      ],
      details: { realBytes, opened, memory },
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
