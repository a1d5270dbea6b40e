/** An fd holder that a service manager is to start: where there is none, everything says so, and nothing that is kept is taken for lost. */

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNothingLeft, createInstance } from "../harness/instance.ts";
import { root } from "../harness/instance-needs.ts";

afterAll(assertNothingLeft);

async function run(args: readonly string[], variables: Readonly<Record<string, string>> = {}) {
  const child = Bun.spawn([process.execPath, join(root, "src/main.ts"), ...args], {
    env: { ...process.env, ...variables },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [output, errors] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { code: await child.exited, output, errors };
}

test("where nobody listens for the fd holder a start fails, as does whatever else would take its memory for lost", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-holder-"));
  const socket = join(folder, "fd-holder.sock");
  const { name } = createInstance();
  const variables = { TENSORD_HOLDER_SOCKET: socket, TENSORD_INSTANCE: name, TENSORD_PORT: "" };
  const said = `Cannot keep memory over a restart: no fd holder of this instance answers on ${socket}`;
  try {
    for (const args of [["serve"], ["purge"], ["ls", "--offline"]]) {
      const { code, errors } = await run(args, variables);
      expect([args, code, errors]).toEqual([args, 1, expect.stringContaining(said)]);
      expect(errors).toContain("systemctl status tensord-fd-holder.socket");
    }
    const { output } = await run(["doctor", "--json"], variables);
    const finding = JSON.parse(output).findings.find(({ check }: { check: string }) => check === "fd-holder");
    expect(finding).toMatchObject({ status: "error", summary: expect.stringContaining(socket) });
  } finally {
    await run(["purge"], { TENSORD_INSTANCE: name });
    rmSync(folder, { recursive: true });
  }
});

test("the fd holder's command says who runs it", async () => {
  for (const args of [[], ["--lock-file", "/dev/shm/tensord.default/lock"]]) {
    const { code, errors } = await run(["fd-holder", ...args]);
    expect([code, errors]).toEqual([1, expect.stringContaining("deploy/systemd/tensord-fd-holder.socket")]);
  }
});
