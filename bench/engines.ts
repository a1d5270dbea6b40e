/**
 * What do five workers take that have one model of sentence-transformers or of Transformers, of 5 and of 4: as it is, cast to BF16,
 * and by `tensord.torch.share_module`? Real weights, real libraries; the answers have to be equal. Bytes, so that others at work do
 * not matter but for the time to the last worker's first answer.
 */

import { join } from "node:path";
import { python, repository } from "./lib/places.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import type { Taken } from "./lib/workers.ts";

type Found = Record<string, Record<string, Taken>>;

const versions = ["transformers-5", "transformers-4"];
const byteSize = 128 * 2 ** 20;

const asMiB = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

/** torch and numpy are those of the tests' environment. */
async function sitePackages(): Promise<string> {
  const child = Bun.spawn([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]);
  return (await child.stdout.text()).trim();
}

async function measure(version: string, server: BenchServer) {
  const searched = [join(repository, "clients/python/src"), await sitePackages()];
  const env = {
    ...process.env,
    PYTHONPATH: searched.join(":"),
    TENSORD_URL: `unix://${server.socket}`,
    HF_HUB_OFFLINE: "1",
    HF_HUB_DISABLE_PROGRESS_BARS: "1",
    TRANSFORMERS_VERBOSITY: "error",
    // What was freed is the system's at once: else it is a worker's own for as long as it lives.
    MALLOC_MMAP_THRESHOLD_: "65536",
    MALLOC_TRIM_THRESHOLD_: "65536",
  };
  const interpreter = join(repository, `.tmp/${version}/bin/python`);
  const child = Bun.spawn([interpreter, join(repository, "bench/engines/module.py")], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const output = await child.stdout.text();
  if ((await child.exited) !== 0) throw new Error(`engines/module.py ended with ${child.exitCode}, of ${version}`);
  return JSON.parse(output) as { transformers: string; found: Found };
}

if (await findRoom(4 * byteSize)) {
  await using server = await BenchServer.start();
  const details = [];
  say("| each worker | weights | private, of one | of that weights | five together | the fifth's first answer |");
  say("|---|---|---|---|---|---|");
  for (const version of versions) {
    const { transformers, found } = await measure(version, server);
    details.push({ transformers, found });
    for (const [library, ways] of Object.entries(found))
      for (const [way, taken] of Object.entries(ways)) {
        if (taken.answers !== 1) throw new Error(`${library}, ${way}: ${taken.answers} different answers`);
        const sizes = [taken.weights, taken.private, taken.private_by_module, taken.proportional].map(asMiB);
        const name = `${library} (Transformers ${transformers}), ${way}`;
        say(`| ${[name, ...sizes, `${taken.last_seconds.toFixed(2)} s`].join(" | ")} |`);
      }
  }
  const ratios = details.flatMap(({ transformers, found }) =>
    Object.entries(found).map(([library, ways]) => {
      const { weights, private_by_module } = ways["cast to bf16, share_module"] as Taken;
      const what = `${library} (Transformers ${transformers}), share_module: private weights of a worker over the weights`;
      return { what, ratio: private_by_module / weights, target: 0.15 };
    }),
  );
  const question = "how much five workers with one model of a library take, as it is, cast, and by share_module";
  report({ benchmark: "engines", question, ratios, details });
}
