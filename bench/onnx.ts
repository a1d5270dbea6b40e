/**
 * What do five workers take that make a session of ONNX Runtime of one model of 192 MiB: stock, stock without packing, stock from files that
 * somebody has packed, and by `tensord.onnx.session`? Bytes, so that others at work do not matter; and when the fifth answers, which they do.
 */

import { join } from "node:path";
import { python, repository } from "./lib/places.ts";
import { report } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { BenchServer } from "./lib/server.ts";

/** Twelve matrices of 2,048 rows: nine layers, the one behind them, and two of which one is used. */
const byteSize = 192 * 2 ** 20;

/** What `onnx.py` prints of one way, in bytes: the sum of all five, or the most of one that came after the first. */
interface Taken {
  readonly private: number;
  readonly proportional: number;
  readonly first_seconds: number;
  readonly last_made_seconds: number;
  readonly last_seconds: number;
  readonly answers: readonly string[];
}

if (await findRoom(4 * byteSize)) {
  await using server = await BenchServer.start();
  const command = [python, join(repository, "bench/onnx.py"), String(byteSize)];
  const paths = ["clients/python/src", "clients/python/tests"].map((path) => join(repository, path));
  const env = { ...process.env, PYTHONPATH: paths.join(":"), TENSORD_URL: `unix://${server.socket}` };
  const child = Bun.spawn(command, { env, stdio: ["ignore", "pipe", "inherit"] });
  const { ways, regions } = JSON.parse(await child.stdout.text()) as { ways: Record<string, Taken>; regions: number };
  if ((await child.exited) !== 0) throw new Error(`onnx.py ended with ${child.exitCode}`);
  const of = (what: "private" | "proportional", name: string) =>
    Object.entries(ways).map(([way, taken]) => ({ what: `${way}: ${name}`, ratio: taken[what] / byteSize }));
  const stock = ways["stock"];
  const ours = ways["with us"];
  if (!stock || !ours || String(stock.answers) !== String(ours.answers)) throw new Error("the answers are not equal");
  report({
    benchmark: "onnx",
    question: "how much five workers with a session of one model take, over the bytes of its weights",
    ratios: [
      ...of("private", "private memory of one worker that came later"),
      ...of("proportional", "all five together"),
      { what: "with us: the region", ratio: regions / byteSize },
      { what: "the fifth's first answer over a stock one's", ratio: ours.last_seconds / stock.last_seconds },
    ],
    details: { byteSize, ways, regions },
  });
}
