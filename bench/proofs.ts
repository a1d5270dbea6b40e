/**
 * What does the proof of its name add to an allocation? Creations and deletions of 64 KiB with their proofs and without, one
 * by one in turns, in this process: without a transport, whose time would hide it.
 */

import { FileLane } from "../src/loaders/file-lane.ts";
import { openStore } from "../src/memory/start/open-store.ts";
import { createApp } from "../src/routes/app.ts";
import { toEventText } from "../src/routes/to-event.ts";
import { purge } from "../src/server/cli/purge.ts";
import { createHost } from "../src/server/host.ts";
import { Metrics } from "../src/server/metrics.ts";
import { round } from "./lib/machine.ts";
import { report, say } from "./lib/result.ts";
import { findRoom } from "./lib/room.ts";
import { summarize } from "./lib/statistics.ts";

const regionsAtOnce = 200;
const warmUpRounds = 10;
const rounds = 50;
const body = JSON.stringify({ tensors: [{ name: "data", dtype: "F32", shape: [128, 128] }], ttl_ms: 600_000 });

/** Nobody else is there who could want a descriptor. */
const alone = {
  descriptors: () => undefined,
  undisturbed: <Result>(work: () => Result) => work(),
  devices: () => Promise.reject(new Error("nobody asks for devices")),
};

type Turn = "with" | "without";
const turns: readonly Turn[] = ["with", "without"];

const location = { instance: `bench-${process.pid}`, shmDirectory: "/dev/shm" };

async function measure(): Promise<void> {
  const fail = (what: unknown) => {
    throw new Error(`the server said: ${what}`);
  };
  await using opened = await openStore({
    ...location,
    memoryLimitBytes: 2 ** 28,
    toEventText,
    onWarning: fail,
  });
  const { store, directory } = opened;
  const metrics = new Metrics("0.0.0");
  const host = createHost({
    store,
    directory,
    holder: undefined,
    settingBytes: undefined,
    urls: () => [],
    brokerPath: () => null,
    allowedHosts: [],
    ...alone,
    metrics,
  });
  const loading = { roots: [], files: new FileLane() };
  const traffic = { requests: 0, receivedBytes: 0, sentBytes: 0 };
  const app = createApp({ store, host, version: "0.0.0", loading, traffic, observe: () => {}, onUnexpected: fail });
  const request = async (method: string, path: string, rest: RequestInit = {}) => {
    const response = await app.request(path, { method, ...rest }, {});
    const text = await response.text();
    if (!response.ok) fail(text);
    return text;
  };
  const { proofs } = store;
  const real = { put: proofs.put.bind(proofs), remove: proofs.remove.bind(proofs) };
  const none: typeof real = { put: () => {}, remove: () => {} };
  const us = {
    create: { with: [] as number[], without: [] as number[] },
    delete: { with: [] as number[], without: [] as number[] },
  };
  for (let at = -warmUpRounds; at < rounds; at++) {
    const ids: string[] = [];
    const time = async (what: keyof typeof us, turn: Turn, run: () => Promise<string>) => {
      Object.assign(proofs, turn === "with" ? real : none);
      const begin = performance.now();
      const text = await run();
      if (at >= 0) us[what][turn].push((performance.now() - begin) * 1000);
      return text;
    };
    const turnOf = (index: number) => turns[(index + at + warmUpRounds) % 2] as Turn;
    for (let index = 0; index < regionsAtOnce; index++) {
      const post = () => request("POST", "/v1/regions", { headers: { "content-type": "application/json" }, body });
      ids.push((JSON.parse(await time("create", turnOf(index), post)) as { id: string }).id);
    }
    for (const [index, id] of ids.entries()) {
      await time("delete", turnOf(index), () => request("DELETE", `/v1/regions/${id}`));
      real.remove(id.slice("reg_".length));
    }
  }
  const details = Object.entries(us).map(([what, times]) => {
    const [proved, bare] = [summarize(times.with), summarize(times.without)];
    say(
      `${what}: p50 ${round(proved.p50, 1)} µs with a proof, ${round(bare.p50, 1)} µs without, of ${bare.samples} each`,
    );
    return { what, proved, bare };
  });
  report({
    benchmark: "proofs",
    question: "POST and DELETE of 64 KiB with the proof of a name, over the same without",
    ratios: details.map(({ what, proved, bare }) => ({
      what: `p50, ${what} with over without`,
      ratio: proved.p50 / bare.p50,
      ...(what === "create" ? { target: 1.03 } : {}),
    })),
    details: { unit: "µs", details },
  });
}

if (await findRoom(2 ** 28)) {
  try {
    await measure();
  } finally {
    await purge(location, false, true);
  }
  process.exit(0);
}
