/** The server's log may lose its reader at any moment; that must not keep the server from ending. */

import { expect, test } from "bun:test";
import { join } from "node:path";
import { purge } from "../../src/server/cli/purge.ts";
import { createInstance } from "../harness/instance.ts";
import { tensord } from "../harness/server-program.ts";

const root = join(import.meta.dirname, "../..");

test("a server whose log nobody reads any more ends all the same when it is told to", async () => {
  const { name: instance, shmDirectory } = createInstance();
  const child = Bun.spawn([...tensord, "serve"], {
    cwd: root,
    env: { PATH: process.env.PATH, TENSORD_INSTANCE: instance, TENSORD_PORT: "", TENSORD_SHM_DIR: shmDirectory },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  for await (const bytes of child.stdout) {
    text += Buffer.from(bytes).toString();
    // Leaving the loop closes the pipe; the lines of the stop then meet nobody.
    if (text.includes("ready on")) break;
  }
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  await purge({ shmDirectory, instance }, false, true);
});
