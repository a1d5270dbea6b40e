/** A real server that loads a model before it is ready, and says so on both of its ways to be asked. */

import { afterAll, expect } from "bun:test";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { ModelFolder, toUri } from "../harness/load.ts";
import { TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

testWith()(
  "/readyz is 503 with the file that is not there, and 200 once it is loaded; a restart finds it",
  async () => {
    using folder = new ModelFolder();
    const file = join(folder.path, "late.safetensors");
    const preload = folder.write("models.yaml", `- uri: ${toUri(file)}\n  model: llama\n`);
    await using server = new TestServer({ env: { TENSORD_MODEL_ROOTS: folder.path, TENSORD_PRELOAD: preload } });
    server.spawn();
    server.log.expect(/Cannot be ready/);
    const failed = await until("it says what it lacks", async () => {
      const { status, stderr } = await server.command("healthcheck");
      return status === 1 && stderr.includes("it is not there") && stderr;
    });
    expect(failed).toContain(
      `1 of 1 models of TENSORD_PRELOAD is not loaded yet. Cannot load "${file}": it is not there`,
    );
    folder.writeTensor("late.safetensors", Buffer.alloc(1000, 1));
    await until("it is ready", async () => (await server.command("healthcheck")).status === 0);
    const [region] = await server.api.list();
    expect(region).toMatchObject({ model: "llama", name: "late", state: "sealed", owner: { kind: "persist" } });
    await server.stop();
    await server.start();
    await until("it is ready again", async () => (await server.command("healthcheck")).status === 0);
    expect((await server.api.list()).map(({ id }) => id)).toEqual([region?.id ?? ""]);
  },
);
