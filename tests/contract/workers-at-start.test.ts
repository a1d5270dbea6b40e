/** A server without one of its Workers, as a badly built executable is one: it must say so, and never that it is ready. */

import { afterAll, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { purge } from "../../src/server/cli/purge.ts";
import { parseConfig } from "../../src/server/config.ts";
import { startServer } from "../../src/server/serve.ts";
import { assertNothingLeft, createInstance, listNames } from "../harness/instance.ts";
import { root } from "../harness/instance-needs.ts";

afterAll(assertNothingLeft);

/** Those of host memory. A device's Worker is missed as its driver is: the server has the reason in the place of the device. */
const workers = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".worker.ts") && !file.startsWith("cuda/"))
  .map((file) => basename(file))
  .sort();

/** While `use` runs, the module of one Worker is not there. */
async function without(worker: string, use: () => Promise<void>): Promise<void> {
  const real = globalThis.Worker;
  globalThis.Worker = class extends real {
    constructor(url: string, options?: WorkerOptions) {
      super(basename(url) === worker ? `${url}.missing` : url, options);
    }
  } as typeof Worker;
  try {
    await use();
  } finally {
    globalThis.Worker = real;
  }
}

test.each(workers)("without %s a server does not start, and leaves nothing", async (worker) => {
  const place = createInstance();
  const { name: instance, shmDirectory } = place;
  const where = { TENSORD_INSTANCE: instance, TENSORD_SHM_DIR: shmDirectory, TENSORD_PORT: "" };
  // Without a reserve its Worker is not missed, nor those of model files and objects without a place for them.
  const settings = { ...where, TENSORD_RESERVE_BYTES: "16777216", TENSORD_MODEL_ROOTS: `${tmpdir()},s3://models` };
  const config = parseConfig({ ...settings, TENSORD_LOG_LEVEL: "silent" }, {});
  await without(worker, async () => {
    await expect(startServer(config)).rejects.toThrow(`${worker}.missing`);
  });
  await purge({ instance, shmDirectory }, false, true);
  expect(listNames(place)).toEqual([]);
});
