/**
 * What do four workers take that have one model of an engine, and when does a fifth answer? sentence-transformers and Transformers, of 5 and
 * of 4, with real weights: as they are, cast to BF16, and by `tensord.torch.share_module`; a session of ONNX Runtime: stock, from files
 * packed by hand, and by `tensord.onnx.session`; a module of torch: cast and quantised, stock and by `share_module`. The answers have to be equal. Bytes, so
 * that others at work do not matter but for the time to the fifth worker's first answer. `BENCH_ENGINES=torch,onnx` is these alone.
 */

import { join } from "node:path";
import { python, repository } from "./lib/places.ts";
import { runAnyway } from "./lib/python.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import { heading, privateMost, type Row, toLine } from "./lib/workers.ts";

const MiB = 2 ** 20;
const roomBytes = 1024 * MiB;

/** What runs where: a script below `engines`, in an environment of `.tmp`. */
const parts = [
  { name: "transformers-5", script: "libraries.py", args: [] },
  { name: "transformers-4", script: "libraries.py", args: [] },
  { name: "onnx", script: "onnx_session.py", args: [String(192 * MiB)] },
  { name: "torch", script: "torch_module.py", args: [String(128 * MiB)] },
];
const asked = process.env.BENCH_ENGINES?.split(",") ?? parts.map(({ name }) => name);

/** torch, ONNX Runtime and numpy are those of the tests' environment. */
async function sitePackages(): Promise<string> {
  const child = Bun.spawn([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]);
  return (await child.stdout.text()).trim();
}

async function measure({ name, script, args }: (typeof parts)[number], server: BenchServer): Promise<readonly Row[]> {
  const searched = [
    join(repository, "clients/python/src"),
    join(repository, "clients/python/tests"),
    await sitePackages(),
  ];
  const environment = {
    PYTHONPATH: searched.join(":"),
    TENSORD_URL: `unix://${server.socket}`,
    HF_HUB_OFFLINE: "1",
    HF_HUB_DISABLE_PROGRESS_BARS: "1",
    TRANSFORMERS_VERBOSITY: "error",
    // What was freed is the system's at once: else it is a worker's own for as long as it lives.
    MALLOC_MMAP_THRESHOLD_: "65536",
    MALLOC_TRIM_THRESHOLD_: "65536",
  };
  const interpreter = join(repository, ".tmp", name === "transformers-4" ? name : "transformers-5", "bin/python");
  return runAnyway<readonly Row[]>(interpreter, `engines/${script}`, args, environment);
}

if (await findRoom(roomBytes)) {
  await using server = await BenchServer.start();
  const rows: Row[] = [];
  for (const line of heading) say(line);
  for (const part of parts.filter(({ name }) => asked.includes(name))) {
    const found = await measure(part, server);
    for (const row of found) say(toLine(row, found));
    rows.push(...found);
  }
  const ratios = rows
    .filter((row) => row.has_target)
    .map(({ engine, way, private_weights, weights }) => {
      const what = `${engine}, ${way}: what of the weights is a worker's own`;
      return { what, ratio: private_weights / weights, target: privateMost };
    });
  const question = "what four workers with one model of an engine take, stock and by tensord, and when a fifth answers";
  report({ benchmark: "engines", question, ratios, details: { rows } });
}
