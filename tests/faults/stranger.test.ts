/** Somebody else is busy in the shared directory: names are looked after, and requests answered, all the while. */

import { afterAll, expect } from "bun:test";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { limits } from "../../src/memory/limits.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { exists } from "../harness/instance-content.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

const hour = 3_600_000;
const relinked = /^tensord\.region\.relinked$/;

afterAll(assertNothingLeft);

/** Makes and unlinks files without pause, every other one named as a region of the instance is, until it is killed. */
const busy = `
  const { closeSync, openSync, unlinkSync } = require("node:fs");
  const letters = "abcdefghijklmnopqrstuvwxyz";
  process.stdout.write("begins");
  for (let i = 0; ; i++) {
    let token = "";
    for (let n = i; token.length < 26; n = Math.floor(n / 26)) token += letters[n % 26];
    const path = process.argv[1] + (i % 2 ? "." + token : "-stranger-" + i);
    closeSync(openSync(path, "wx"));
    unlinkSync(path);
  }`;

async function startStranger({ instance }: TestServer): Promise<AsyncDisposable> {
  const child = spawn(process.execPath, ["-e", busy, join(instance.shmDirectory, `tensord.${instance.name}`)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  return {
    async [Symbol.asyncDispose]() {
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      const [, signal] = await ended;
      expect(signal, "the stranger worked to the end").toBe("SIGKILL");
    },
  };
}

testWith()(
  "names come back and requests are answered while a stranger makes and unlinks files without pause",
  async () => {
    await using server = await startServer();
    server.log.expect(relinked);
    const region = await server.api.create({ name: "named", byte_size: 1, persist: true });
    {
      await using _stranger = await startStranger(server);
      for (let round = 0; round < 5; round++) {
        unlinkSync(region.storage.path);
        await until("the name is back, and nobody asked", () => exists(region.storage.path));
        const passing = await server.api.create({ byte_size: 1, ttl_ms: hour });
        expect((await server.api.delete(passing.id)).state).toBe("deleted");
      }
    }
    expect((await server.api.get(region.id)).state).toBe("open");
    // It may have been killed between the two.
    const { shmDirectory, name } = server.instance;
    const ours = [`tensord.${name}`, basename(region.storage.path)];
    const left = readdirSync(shmDirectory).filter((each) => each.startsWith(`tensord.${name}`) && !ours.includes(each));
    for (const each of left) unlinkSync(join(shmDirectory, each));
    await checkBooks(server);
  },
);

testWith()("a name that got lost among more than the kernel keeps is back before the slow sweep", async () => {
  const begin = performance.now();
  await using server = await startServer();
  server.log.expect(relinked);
  const region = await server.api.create({ name: "named", byte_size: 1, persist: true });
  const kept = Number(readFileSync("/proc/sys/fs/inotify/max_queued_events", "utf8"));
  const stranger = join(server.instance.shmDirectory, `tensord.${server.instance.name}-stranger`);
  process.kill(server.pid, "SIGSTOP");
  for (let i = 0; i <= kept; i++) {
    writeFileSync(`${stranger}-${i}`, "");
    unlinkSync(`${stranger}-${i}`);
  }
  unlinkSync(region.storage.path);
  process.kill(server.pid, "SIGCONT");
  const untilSweepMs = limits.sweepIntervalMs - (performance.now() - begin);
  await until("the name is back", () => exists(region.storage.path), untilSweepMs);
  await checkBooks(server);
});
