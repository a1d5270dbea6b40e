/** The server's log as machines read it: one JSON object a line, whose keys are there once and spelled in one way. */

import { afterAll, expect, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { provokeEveryEvent } from "../contract/support/every-event.ts";
import { assertNothingLeft, createInstance } from "../harness/instance.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { runTensord } from "../harness/server-command.ts";
import { findFaults } from "../harness/server-log.ts";
import { tensord } from "../harness/server-program.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

testWith()("every event and every failure of a start is a line whose keys are there once, in snake_case", async () => {
  await using server = await startServer({ env: { TENSORD_LOG_LEVEL: "debug", TENSORD_PORT: "0" } });
  server.log.expect(/^tensord\.region\.(relinked|lost)$/, /^The journal is damaged/);
  await provokeEveryEvent(server);
  // In order, for a log that a kill cuts off has not said all.
  await server.stop();
  for (const name of readdirSync(server.instance.store).filter((name) => name.startsWith("tensord.sqlite"))) {
    writeFileSync(join(server.instance.store, name), "no journal");
  }
  await server.start();
  await server.stop();
  const { lines } = server.log;
  expect(lines.find(({ err }) => err !== undefined)).toMatchObject({ level: 40, err: { type: expect.any(String) } });
  const pool = { pool: "host", model: "small", limit_bytes: 8192 };
  expect(lines.filter(({ event }) => event === "tensord.pool.pressure")).toMatchObject([
    { level: 40, pressure: "high", used_bytes: 8192, ...pool },
    { level: 30, pressure: "normal", used_bytes: 0, ...pool },
  ]);
  // What is wrong with any line is found at the end of every test of a server, and so of this one.
});

testWith(Bun.which("script") === null ? "needs script(1), for a pseudo terminal" : undefined)(
  "on a terminal the log is for people",
  async () => {
    const { name, shmDirectory } = createInstance();
    const env = {
      PATH: process.env.PATH ?? "",
      TENSORD_INSTANCE: name,
      TENSORD_SHM_DIR: shmDirectory,
      TENSORD_PORT: "",
    };
    const serve = [...tensord, "serve"].map((word) => `'${word}'`).join(" ");
    const child = Bun.spawn(["script", "-qefc", `exec ${serve}`, "/dev/null"], {
      cwd: root,
      env: { ...env, SHELL: "/bin/sh" },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    let text = "";
    const reading = (async () => {
      for await (const chunk of child.stdout) text += Buffer.from(chunk).toString();
    })();
    const [, pid] = await until("it is ready", () => /ready on unix:.+ {2}pid=(\d+)/.exec(text) ?? undefined);
    process.kill(Number(pid), "SIGTERM");
    await reading;
    expect(await child.exited).toBe(0);
    expect(text).toMatch(/^\d\d:\d\d:\d\d {2}info {3}memory limit {2}limit_bytes=[\d.]+ [KMG]iB/m);
    expect(text).toContain("stopping: requests under way may end, regions stay");
    expect(text).not.toContain('{"level"');
    expect((await runTensord(["purge"], env)).status).toBe(0);
  },
);

test.each([
  ['{"level":30,"msg":"x"}', []],
  ['{"level":30,"level":"high","msg":"x"}', ["a key is there twice"]],
  ['{"level":30,"err":{"a":1,"a":1},"msg":"x"}', ["a key is there twice"]],
  ['{"level":30,"err":[{"byteOffset":1}],"msg":"x"}', ["byteOffset is not in snake_case"]],
  ['{"level":30,"used-bytes":1,"msg":"x"}', ["used-bytes is not in snake_case"]],
])("of the line %s that would be said", (text, faults) => {
  expect(findFaults(text)).toEqual(faults);
});
