/** The server's log as machines read it: one JSON object a line, whose keys are there once and spelled in one way. */

import { afterAll, expect, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { provokeEveryEvent } from "../contract/support/every-event.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { findFaults } from "../harness/server-log.ts";

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

test.each([
  ['{"level":30,"msg":"x"}', []],
  ['{"level":30,"level":"high","msg":"x"}', ["a key is there twice"]],
  ['{"level":30,"err":{"a":1,"a":1},"msg":"x"}', ["a key is there twice"]],
  ['{"level":30,"err":[{"byteOffset":1}],"msg":"x"}', ["byteOffset is not in snake_case"]],
  ['{"level":30,"used-bytes":1,"msg":"x"}', ["used-bytes is not in snake_case"]],
])("of the line %s that would be said", (text, faults) => {
  expect(findFaults(text)).toEqual(faults);
});
