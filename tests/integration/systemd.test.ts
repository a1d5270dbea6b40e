/** The units of `deploy/systemd`, run by systemd itself: what becomes of memory without a name, whatever becomes of the server's unit. */

import { afterAll, expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNothingLeft, createInstance } from "../harness/instance.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { type Region, ServerApi } from "../harness/server-api.ts";
import { tensord } from "../harness/server-program.ts";
import { until } from "../harness/server-wait.ts";
import { needsServiceManager, ServiceManager } from "../harness/service-manager.ts";

afterAll(assertNothingLeft);

const server = "tensord.service";
const holder = "tensord-fd-holder.service";
const names = [server, holder, "tensord-fd-holder.socket"];
/** Absolute, as systemd wants it. */
const [executable = "", ...sources] = tensord;
const program = [executable, ...sources.map((path) => join(root, path))];

/** As they are, but for the program, the user, who is not there, and the instance. PrivateTmp may hide this checkout. */
function readUnits(instance: string): Record<string, string> {
  const dropIn = `[Service]\nBindReadOnlyPaths=${root}\nEnvironment=TENSORD_INSTANCE=${instance} TENSORD_RESERVE_BYTES=0\n`;
  const units = names.map((name) => [
    name,
    readFileSync(join(root, "deploy/systemd", name), "utf8")
      .replaceAll("/usr/bin/tensord", program.join(" "))
      .replaceAll(/^(User|Group|SocketUser)=tensord$/gm, "$1=root")
      .replace("tensord.default", `tensord.${instance}`),
  ]);
  const dropIns = [server, holder].map((name) => [`${name}.d/checkout.conf`, dropIn]);
  return Object.fromEntries([...units, ...dropIns]);
}

async function read(api: ServerApi, { id }: Region): Promise<string> {
  const { sealed_at } = await api.call<{ sealed_at: string | null }>("GET", `/v1/regions/${id}`);
  return String(sealed_at);
}

testWith(needsServiceManager())(
  "systemd keeps memory without a name over a stop, a crash and a restart of the server's unit",
  async () => {
    const instance = createInstance();
    const folder = mkdtempSync(join(tmpdir(), "tensord-units-"));
    const purge = () => Bun.spawnSync([...program, "purge", "--instance", instance.name]);
    try {
      await using manager = await ServiceManager.start(folder, readUnits(instance.name));
      // Type=notify: it returns when the server is ready.
      manager.call("start", server);
      const api = new ServerApi(instance.socket);
      expect(manager.read(holder, "MainPID")).not.toBe("0");
      const holderPid = manager.read(holder, "MainPID");
      const region = await api.create({ byte_size: 4096, storage: "memfd", name: "kept", persist: true });
      await api.call("POST", `/v1/regions/${region.id}/seal`, {});
      const sealedAt = await read(api, region);

      manager.call("restart", server);
      expect(await read(api, region)).toBe(sealedAt);

      manager.call("stop", server);
      expect(manager.read(server, "ActiveState")).toBe("inactive");
      expect(manager.read(holder, "MainPID")).toBe(holderPid);
      manager.call("start", server);
      expect(await read(api, region)).toBe(sealedAt);

      manager.call("kill", "--signal=SIGKILL", server);
      await until(
        "systemd has started it again",
        () => Number(manager.read(server, "NRestarts")) > 0 && manager.read(server, "ActiveState") === "active",
      );
      expect(await read(api, region)).toBe(sealedAt);

      // The fd holder's own end: the server has another one started, and gives it everything.
      manager.call("kill", "--signal=SIGKILL", holder);
      await until("there is another fd holder", () => !["0", holderPid].includes(manager.read(holder, "MainPID")));
      await until("it has everything", async () => {
        const { findings } = await api.call<{ findings: { check: string; summary: string }[] }>("GET", "/v1/doctor");
        return findings.some(({ check, summary }) => check === "fd-holder" && summary.includes("keeps 1 descriptor"));
      });
      manager.call("restart", server);
      expect(await read(api, region)).toBe(sealedAt);

      await api.call("DELETE", `/v1/regions/${region.id}`);
      manager.call("stop", server);
      await until("an fd holder that keeps nothing ends", () => manager.read(holder, "MainPID") === "0");
      expect(manager.read(holder, "Result")).toBe("success");
    } finally {
      purge();
      rmSync(folder, { recursive: true });
    }
  },
);
