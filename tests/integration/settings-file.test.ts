/** Settings from a file, as people name it: by a flag or by a variable, to the server and to the commands that look for it. */

import { afterAll, expect } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { runTensord } from "../harness/server-command.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

testWith()("a server has the settings of its file, and commands find it by theirs", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-settings-"));
  const path = join(folder, "tensord.yaml");
  try {
    writeFileSync(path, "memory-limit-bytes: 67108864\nport: 7411 # the environment says none\n");
    await using server = await startServer({ env: { TENSORD_CONFIG: path } });
    const told = await until("the log says what the limit is", () => server.log.find(/^memory limit$/));
    expect(told).toMatchObject({ limit_bytes: 64 * 2 ** 20 });
    const { name, shmDirectory, socket } = server.instance;
    expect(server.log.find(/^ready on/)?.urls).toEqual([`unix://${socket}`]);
    writeFileSync(path, `instance: ${name}\nshm-dir: ${shmDirectory}\n`);
    for (const [args, env] of [
      [["--config", path], {}],
      [[], { TENSORD_CONFIG: path }],
    ] as const) {
      const { status, stdout } = await runTensord(["status", ...args], env);
      expect([status, stdout]).toEqual([0, expect.stringContaining(`instance   ${name},`)]);
    }
    writeFileSync(path, "prot: 7411\n");
    const { status, stderr } = await runTensord(["status", "--config", path], {});
    expect([status, stderr]).toEqual([
      1,
      expect.stringContaining(`Cannot use the settings of ${path}: prot is no setting`),
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
