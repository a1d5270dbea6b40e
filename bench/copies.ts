/**
 * When does a region save memory, and when not? What four workers take that load one model of 512 MiB in F32: mapped from its
 * file, read from it, in a region; and cast to BF16 by each of them, once, or by a master that
 * forks them. Bytes, so that others at work do not matter.
 */

import { join } from "node:path";
import { python, repository } from "./lib/places.ts";
import { report } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";

const byteSize = 512 * 2 ** 20;

/** What `copies.py` prints: memory that all workers take together, over the bytes that one of them uses. */
type Copies = Readonly<Record<string, number>>;

if (await findRoom(3 * byteSize)) {
  await using server = await BenchServer.start();
  const command = [python, join(repository, "bench/copies.py"), `unix://${server.socket}`, String(byteSize)];
  const env = { ...process.env, PYTHONPATH: join(repository, "clients/python/src") };
  const child = Bun.spawn(command, { env, stdio: ["ignore", "pipe", "inherit"] });
  const copies = JSON.parse(await child.stdout.text()) as Copies;
  if ((await child.exited) !== 0) throw new Error(`copies.py ended with ${child.exitCode}`);
  report({
    benchmark: "copies",
    question: "how many copies of what they use four workers take together",
    ratios: Object.entries(copies).map(([way, ratio]) => ({ what: way.replaceAll("_", " "), ratio })),
    details: { unit: "copies", byteSize, copies },
  });
}
