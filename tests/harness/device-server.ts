/** What a fault test asks of a server with regions on a device: its books, its descriptors, its fd holder. */

import { readdirSync, readlinkSync } from "node:fs";
import { BrokerClient } from "./broker-client.ts";
import type { CudaStandIn } from "./cuda-stand-in.ts";
import type { TestServer } from "./server.ts";
import { until } from "./server-wait.ts";

/** What must be after a failure as it was before. */
export interface DeviceBooks {
  readonly charged: Readonly<Record<string, number>>;
  readonly regions: number;
  /** Of the server's process: lease files, and memory of cards. */
  readonly descriptors: number;
  readonly kept: string;
  /** Bytes that some process has of a card. */
  readonly inUse: number;
}

export function connect(server: TestServer): Promise<BrokerClient> {
  return BrokerClient.open(`${server.instance.shmDirectory}/tensord.${server.instance.name}/broker.sock`);
}

/** What doctor says of the fd holder. */
export async function lookAtHolder(server: TestServer): Promise<string> {
  const { findings } = await server.api.call<{ findings: { check: string; summary: string }[] }>("GET", "/v1/doctor");
  return findings.find(({ check }) => check === "fd-holder")?.summary ?? "";
}

/** The fd holder's process. */
export async function holderOf(server: TestServer): Promise<number> {
  return await until("there is an fd holder", async () => {
    const pid = Number(/pid (\d+)/.exec(await lookAtHolder(server))?.[1]);
    return pid > 0 && pid;
  });
}

export async function readBooks(server: TestServer, cuda: CudaStandIn): Promise<DeviceBooks> {
  const { pools } = await server.api.stats();
  const charged = pools.map(({ pool, used_bytes, draining_bytes }) => [pool, used_bytes + draining_bytes] as const);
  const kept = /keeps \d+ descriptors?/.exec(await lookAtHolder(server))?.[0] ?? "none";
  return {
    charged: Object.fromEntries(charged),
    regions: (await server.api.list()).length,
    descriptors: countDescriptors(server.pid, cuda),
    kept,
    inUse: cuda.inUse().reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

/** Waits until all is as it was: connections end, and memory is given back, a moment later. */
export async function untilAsBefore(server: TestServer, cuda: CudaStandIn, before: DeviceBooks): Promise<void> {
  let now = before;
  try {
    await until("all is as it was", async () => {
      now = await readBooks(server, cuda);
      return Bun.deepEquals(now, before);
    });
  } catch {
    throw new Error(`it stays otherwise: ${JSON.stringify(now)}, was ${JSON.stringify(before)}`);
  }
}

function countDescriptors(pid: number, cuda: CudaStandIn): number {
  const targets = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      // Closed meanwhile.
      return "";
    }
  });
  return targets.filter((target) => target.includes("cuda_vmm-") || target.startsWith(`${cuda.folder}/card`)).length;
}
