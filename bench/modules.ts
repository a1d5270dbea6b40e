/**
 * What do four workers take that make one module of torch of 128 MiB: cast to BF16, and quantised; stock, and
 * by `tensord.torch.share_module`? Bytes, so that others at work do not matter.
 */

import { join } from "node:path";
import { python, repository } from "./lib/places.ts";
import { report } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";
import type { Taken } from "./lib/workers.ts";

const byteSize = 128 * 2 ** 20;

if (await findRoom(6 * byteSize)) {
  await using server = await BenchServer.start();
  const command = [python, join(repository, "bench/modules.py"), String(byteSize)];
  const env = {
    ...process.env,
    PYTHONPATH: join(repository, "clients/python/src"),
    TENSORD_URL: `unix://${server.socket}`,
  };
  const child = Bun.spawn(command, { env, stdio: ["ignore", "pipe", "inherit"] });
  const ways = JSON.parse(await child.stdout.text()) as Record<string, Taken>;
  if ((await child.exited) !== 0) throw new Error(`modules.py ended with ${child.exitCode}`);
  const of = (what: keyof Taken, name: string) =>
    Object.entries(ways).map(([way, taken]) => ({ what: `${way}: ${name}`, ratio: taken[what] / byteSize }));
  report({
    benchmark: "modules",
    question: "how much four workers with one module take, over the bytes of its file",
    ratios: [...of("private", "private memory of one worker"), ...of("proportional", "all four together")],
    details: { byteSize, ways },
  });
}
