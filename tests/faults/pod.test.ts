/**
 * A pod, played: what of its tensors survives what, and what one container may do to another. The claims are the rows of the table in
 * docs/operating.md, word by word (`pod-table.ts`).
 */

import { afterAll, expect } from "bun:test";
import { chmodSync, existsSync, lstatSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsReadableCheckout, root, testWith } from "../harness/instance-needs.ts";
import { ModelFolder, toUri } from "../harness/load.ts";
import {
  anybodysPython,
  cgroupVersion,
  needsAnybodysPython,
  needsCgroup,
  Pod,
  Sidecar,
  serverUid,
} from "../harness/pod.ts";
import { claimOf } from "../harness/pod-table.ts";
import { type Region, ServerApi } from "../harness/server-api.ts";
import { tensord } from "../harness/server-program.ts";
import { until } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";

afterAll(assertNothingLeft);

const MiB = 2 ** 20;
const needs = [needsCgroup, needsReadableCheckout(), needsAnybodysPython];
const test = testWith(...needs);
const vector = [{ name: "data", dtype: "U8" as const, shape: [MiB] }];
const persistent = { persist: true, tensors: vector };

/** An app of user `uid`, which maps what the sidecar has. */
const startApp = (pod: Pod, uid: number, hasVolume = false) =>
  new WorkerProcess({ prefix: pod.container({ uid, hasVolume }).prefix, python: anybodysPython ?? "" });

/** Runs a shell's words in a new container of user `uid`, as an app would. @returns its status and all that it wrote */
function runIn(pod: Pod, uid: number, words: string, hasVolume = false, env: Record<string, string> = {}) {
  const { prefix } = pod.container({ uid, hasVolume });
  const { exitCode, stdout, stderr } = Bun.spawnSync([...prefix, "sh", "-c", words], {
    env: { PATH: process.env.PATH ?? "", ...env },
  });
  return { status: exitCode, text: `${stdout}${stderr}` };
}

test(`${claimOf("appKilled")}; ${claimOf("sidecarStopped")}`, async () => {
  await using pod = await Pod.up();
  await using sidecar = await new Sidecar(pod).start();
  const { api, instance } = sidecar;
  const { mode, uid, gid } = lstatSync(join(pod.volume.path, "t"));
  expect([(mode & 0o7777).toString(8), uid, gid]).toEqual(["3770", serverUid, 2000]);
  // As the kubelet asks, from the pod's network.
  const ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:7412/readyz').status)";
  expect(pod.probe("python3", "-c", ask)).toBe("200\n");
  const region = await api.create({ name: "weights", ...persistent });
  expect(region.storage.path).toStartWith("/dev/shm/t/");
  expect(region.storage.shm_name).toBeNull();
  await using one = startApp(pod, 1000);
  await using other = startApp(pod, 1001);
  await one.attach("w", region, "write");
  await one.write("w", 4096, MiB, 7);
  await one.detach("w");
  const sealed = await api.seal(region.id);
  await one.attach("r", sealed);
  await other.attach("r", sealed);
  const whole = await other.digest("r");
  // What one app alone maps, and is to go, goes as soon as it is killed.
  const lone = await api.create({ name: "lone", ...persistent });
  await one.attach("lone", await api.seal(lone.id));
  expect((await api.delete(lone.id)).state).toBe("draining");
  await one.kill();
  await api.untilGone(lone.id);
  expect(await other.digest("r")).toBe(whole);
  expect(await sidecar.end("SIGTERM")).toBe(0);
  expect(await other.digest("r")).toBe(whole);
  await sidecar.start();
  expect(await api.get(region.id)).toMatchObject({ name: "weights", state: "sealed", in_use: true });
  await using again = startApp(pod, 1000);
  await again.attach("r", sealed);
  expect(await again.digest("r")).toBe(whole);
  expect(existsSync(instance.directory)).toBeTrue();
});

/** The kernel ends the sidecar for its cgroup's limit: something else in the container takes more and more. */
async function outOfMemory(sidecar: Sidecar): Promise<void> {
  const { cgroup, pid } = sidecar;
  if (cgroupVersion === 2) await Bun.write(join(cgroup, "memory.swap.max"), "0");
  else await Bun.write(join(cgroup, "memory.swappiness"), "0");
  // As of a container that asked for less than it takes: the kernel ends it before others.
  await Bun.write(`/proc/${pid}/oom_score_adj`, "1000");
  const hog = `
import os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
held = []
while os.path.exists("/proc/" + sys.argv[2]) and " Z " not in open("/proc/" + sys.argv[2] + "/stat").read():
    held.append(b"x" * (2 << 20))
`;
  const child = Bun.spawn(["python3", "-c", hog, cgroup, String(pid)], { stdin: "ignore", stderr: "inherit" });
  try {
    expect(await sidecar.ended()).not.toBe(0);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

for (const endsAsGroup of [false, true]) {
  const needsGroup = endsAsGroup && cgroupVersion === 1 ? "needs cgroup v2, which has memory.oom.group" : undefined;
  testWith(...needs, needsGroup)(
    claimOf(endsAsGroup ? "sidecarOutOfMemoryAsGroup" : "sidecarOutOfMemory"),
    async () => {
      await using pod = await Pod.up({ endsAsGroup });
      await using sidecar = await new Sidecar(pod).start();
      const region = await sidecar.api.seal((await sidecar.api.create({ name: "weights", ...persistent })).id);
      await using app = startApp(pod, 1000);
      await app.attach("r", region);
      const whole = await app.digest("r");
      await outOfMemory(sidecar);
      expect(await app.digest("r")).toBe(whole);
      await sidecar.start();
      expect(await sidecar.api.get(region.id)).toMatchObject({ name: "weights", state: "sealed", in_use: true });
      await using late = startApp(pod, 1001);
      await late.attach("r", region);
      expect(await late.digest("r")).toBe(whole);
    },
  );
}

test(`${claimOf("appAttacks")}; ${claimOf("smallVolume")}`, async () => {
  await using pod = await Pod.up({ volumeBytes: 64 * MiB });
  await using sidecar = await new Sidecar(pod).start();
  const { api, instance } = sidecar;
  // A container's default: told at the start, and enough to start.
  await until("the log says so", () => sidecar.log.includes("/dev/shm/t has 64 MiB in all: a container's default"));
  const region = await api.seal((await api.create({ name: "weights", ...persistent })).id);
  const own = `/dev/shm/t/tensord.${instance.name}`;
  for (const words of [
    "mv /dev/shm/t /dev/shm/away",
    "rmdir /dev/shm/t",
    `mv ${own} /dev/shm/t/away`,
    `rm -rf ${own}`,
    `rm -f ${region.storage.path}`,
    `mv ${region.storage.path} /dev/shm/t/taken`,
    `chmod 777 /dev/shm/t`,
    `echo x > ${region.storage.path}`,
  ])
    expect([words, runIn(pod, 1001, words).status]).not.toEqual([words, 0]);
  expect(runIn(pod, 1001, "head -c 100M /dev/zero > /dev/shm/t/foreign").text).toContain("No space left");
  const refused = await api.problem("POST", "/v1/regions", { byte_size: 4 * MiB, ttl_ms: 60_000 });
  expect(refused).toMatchObject({ status: 507, code: "out-of-shared-memory" });
  expect((await api.get(region.id)).state).toBe("sealed");
  expect(runIn(pod, 1001, "rm /dev/shm/t/foreign").status).toBe(0);
  await api.create({ byte_size: 4 * MiB, ttl_ms: 60_000 });
});

test(claimOf("appWithVolume"), async () => {
  await using pod = await Pod.up();
  await using sidecar = await new Sidecar(pod).start();
  const region = await sidecar.api.seal((await sidecar.api.create({ name: "weights", ...persistent })).id);
  await using app = startApp(pod, 1000);
  await app.attach("r", region);
  const whole = await app.digest("r");
  expect(runIn(pod, 1001, "mv /dev/shm/t /dev/shm/away", true).status).toBe(0);
  expect(await app.digest("r")).toBe(whole);
  // The app's mount is of the directory, whatever it is called.
  expect(await app.open(region.storage.path)).toBe("ok");
  expect(runIn(pod, 1000, "true").status).not.toBe(0);
  const { directory, socket } = sidecar.instance;
  const moved = new ServerApi(socket.replace(dirname(directory), join(pod.volume.path, "away")));
  const { findings } = await moved.call<{ findings: { check: string; status: string }[] }>("GET", "/v1/doctor");
  expect(findings.find(({ check }) => check === "moved-directory")?.status).toBe("error");
});

test(claimOf("noGroup"), async () => {
  await using pod = await Pod.up({ hasGroup: false });
  await using sidecar = await new Sidecar(pod).start();
  const region = await sidecar.api.seal((await sidecar.api.create({ name: "weights", ...persistent })).id);
  await using stranger = startApp(pod, 1001);
  expect(await stranger.open(region.storage.path)).toBe("EACCES");
  expect(await stranger.list("/dev/shm/t")).toBe("EACCES");
  const { text } = runIn(pod, 1001, `cd ${root} && exec ${tensord.join(" ")} ls`, false, sidecar.env);
  expect(text).toContain("as a member of the group (in Kubernetes by fsGroup)");
  await using same = startApp(pod, serverUid);
  await same.attach("r", region);
});

test(claimOf("ownUsers"), async () => {
  await using pod = await Pod.up({ hasUsers: true });
  await using sidecar = await new Sidecar(pod).start();
  const { mode, uid, gid } = lstatSync(join(pod.volume.path, "t"));
  expect([(mode & 0o7777).toString(8), uid, gid]).toEqual(["3770", 100_000 + serverUid, 102_000]);
  const region = await sidecar.api.seal((await sidecar.api.create({ name: "weights", ...persistent })).id);
  await using app = startApp(pod, 1000);
  await app.attach("r", region);
  const whole = await app.digest("r");
  expect(await sidecar.end("SIGKILL")).not.toBe(0);
  await sidecar.start();
  expect(await app.digest("r")).toBe(whole);
  expect((await sidecar.api.get(region.id)).in_use).toBeTrue();
});

test(claimOf("preloaded"), async () => {
  using folder = new ModelFolder();
  chmodSync(folder.path, 0o755);
  const file = join(folder.path, "late.safetensors");
  const preload = folder.write("models.yaml", `- uri: ${toUri(file)}\n`);
  await using pod = await Pod.up();
  await using sidecar = new Sidecar(pod, { TENSORD_MODEL_ROOTS: folder.path, TENSORD_PRELOAD: preload });
  const started = sidecar.start();
  const ask =
    "import urllib.request as r, urllib.error as e\ntry: r.urlopen('http://127.0.0.1:7412/readyz')\nexcept e.URLError as u: print(u.read().decode() if hasattr(u, 'read') else u)";
  await until("a probe is told what is missing", () => pod.probe("python3", "-c", ask).includes("late.safetensors"));
  folder.writeTensor("late.safetensors", Buffer.alloc(1000, 5));
  await started;
  const region = await sidecar.api.findByName("late");
  expect(region).toMatchObject({ state: "sealed", owner: { kind: "persist" } });
  await using app = startApp(pod, 1000);
  await app.attach("r", region as Region);
  expect(await sidecar.end("SIGTERM")).toBe(0);
  await sidecar.start();
  expect((await sidecar.api.findByName("late"))?.id).toBe(region?.id);
});

test(claimOf("podDeleted"), async () => {
  let path = "";
  {
    await using pod = await Pod.up();
    path = pod.volume.path;
    await using sidecar = await new Sidecar(pod).start();
    await sidecar.api.create({ name: "weights", ...persistent });
    await using app = startApp(pod, 1000);
    expect(await app.list("/dev/shm/t")).toBe("ok");
    expect(await sidecar.end("SIGTERM")).toBe(0);
  }
  await until("the volume is gone", () => !existsSync(path));
  expect(readFileSync("/proc/mounts", "utf8")).not.toContain(path);
});
