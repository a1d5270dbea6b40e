/**
 * The third act: weights in the memory of a device, once, for several processes. Where the machine shows no GPU it is played on the
 * stand-in driver of the tests, and says so: that shows who does what, and nothing of what a GPU does.
 */

import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../scripts/lib/process.mjs";
import { bun } from "../scripts/lib/server-packages.mjs";
import { until } from "./cast.mjs";
import { claim, line, megabytes, milliseconds, step } from "./telling.mjs";

const tensor = "embeddings.word_embeddings.weight";
const cardBytes = 256 * 2 ** 20;

export async function tellThirdAct(cast) {
  step("The server is started where it finds a device");
  const card = findCard();
  if (card.reason !== undefined) {
    line(`left out: ${card.reason}`);
    return;
  }
  line(card.told);
  await cast.endServer("SIGTERM");
  try {
    cast.lead(card.environment);
    await cast.startServer();
    const devices = await findDevices(cast);
    const uuid = devices.find(({ usable }) => usable)?.uuid;
    claim(`it can make regions there: ${uuid ?? devices.map(({ detail }) => detail).join(" ")}`, uuid !== undefined);
    if (uuid === undefined) return;
    const before = await usedOf(cast, uuid);
    const { readers, region } = await shareOnDevice(cast, card, uuid, before);
    await killServer(cast, readers, region);
    await killOwner(cast, uuid);
    await freeAll(cast, uuid, readers, region, before);
  } finally {
    card.clean();
  }
}

/** What leads a server and its workers to a card, or the reason why there is none. */
function findCard() {
  if (existsSync("/dev/nvidiactl")) {
    return { told: "this machine has an NVIDIA driver", environment: {}, clean: () => {} };
  }
  const build = spawnSync(bun, ["tests/cuda/build.mjs"], { cwd: root, encoding: "utf8" });
  if (build.status !== 0) return { reason: `no GPU is shown here, and no stand-in: ${build.stdout.trim()}` };
  const folder = mkdtempSync(join(tmpdir(), "tensord-demo-cuda-"));
  writeFileSync(
    join(folder, "settings"),
    `driver 13000\ndevice GPU-57a4d000-0000-4000-8000-000000000000 ${cardBytes}\n`,
  );
  return {
    isStandIn: true,
    told: "this machine shows no GPU: on a stand-in for its driver, which is no evidence of what a GPU does",
    environment: { LD_LIBRARY_PATH: build.stdout.trim(), STAND_IN_CUDA_DIR: folder },
    clean: () => rmSync(folder, { recursive: true }),
  };
}

/** As the driver tells once it has started, for which no server waits. */
async function findDevices(cast) {
  return await until("the driver had answered", async () => {
    const { body } = await cast.call("GET", "/v1/devices");
    return body.reason !== "driver-asked" && body.items;
  });
}

/** What all processes together have of the device's memory. */
async function usedOf(cast, uuid) {
  const looker = cast.python("device_used.py", uuid);
  const { used_bytes } = await looker.hear();
  await looker.end();
  return used_bytes;
}

async function shareOnDevice(cast, card, uuid, before) {
  step("One process puts the word embeddings on the device, and ends; two others attach");
  const publisher = cast.python("device_publish.py", "on-device", uuid, tensor);
  const { region, digest } = await publisher.hear();
  await publisher.end();
  const readers = ["G", "H"].map((label) => ({ label, process: cast.python("device_worker.py", "on-device", uuid) }));
  for (const reader of readers) Object.assign(reader, await reader.process.hear());
  for (const { label, process, attach_ms } of readers) {
    line(`worker ${label}, pid ${process.pid}: attached in ${milliseconds(attach_ms)}`);
  }
  claim(
    `both see the tensor's bytes as they are in the file: XXH3-128 ${digest.slice(0, 16)}…`,
    readers.every((reader) => reader.digest === digest),
  );
  const taken = (await usedOf(cast, uuid)) - before;
  const { allocation_bytes: allocated } = region.storage;
  const copies = `${megabytes(allocated)} were allocated, two processes map them, and the device has ${megabytes(taken)} more in use`;
  if (card.isStandIn) claim(`there is one copy: ${copies}`, taken === allocated);
  else line(`${copies}, their contexts included`);
  return { readers, region };
}

async function killServer(cast, readers, region) {
  step("The server is killed (SIGKILL) under them, and started again");
  await cast.endServer("SIGKILL");
  const alone = [];
  for (const { process } of readers) alone.push(await process.ask("look"));
  claim(
    "without a server both read on",
    alone.every(({ digest }, index) => digest === readers[index].digest),
  );
  await cast.startServer();
  const now = await cast.find(region.id);
  claim("the region is back: the fd holder had kept its descriptors", now.state === "sealed" && now.in_use === true);
  const newcomer = cast.python("device_worker.py", "on-device", region.storage.device_uuid);
  const { digest } = await newcomer.hear();
  claim("who attaches now sees the same bytes", digest === readers[0].digest);
  await newcomer.ask("stop");
  await newcomer.end();
}

async function killOwner(cast, uuid) {
  step("A process that owns memory on the device is killed (SIGKILL) while another one maps it");
  const before = await usedOf(cast, uuid);
  const owner = cast.python("device_publish.py", "owned", uuid, tensor, "session");
  const { region } = await owner.hear();
  const reader = cast.python("device_worker.py", "owned", uuid);
  const { digest } = await reader.hear();
  await owner.kill();
  await until("its session had ended", async () => (await cast.find(region.id)).session === null);
  const { digest: after } = await reader.ask("look");
  claim("its session has ended, and who maps what it owned reads on", digest === after);
  await reader.kill();
  await until("it was freed", async () => (await cast.call("GET", `/v1/regions/${region.id}`)).status === 404);
  const left = await until("the device had its memory back", async () => {
    const used = await usedOf(cast, uuid);
    return used <= before && { used };
  });
  claim("the reader is killed too, and the device has its memory back", left.used <= before);
}

async function freeAll(cast, uuid, readers, region, before) {
  step("The region is deleted, and its workers end");
  await cast.call("DELETE", `/v1/regions/${region.id}`);
  for (const { process } of readers) {
    await process.ask("stop");
    await process.end();
  }
  await until("the region was freed", async () => (await cast.call("GET", `/v1/regions/${region.id}`)).status === 404);
  const { used } = await until("all of it was free", async () => {
    const now = await usedOf(cast, uuid);
    return now <= before && { used: now };
  });
  claim(`the device has no more in use than at first: ${megabytes(used)}`, used <= before);
}
