/** A server asked for data over both of its transports, and what a process shows of its descriptors and memory. */

import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DataSocket, type Target } from "./data-socket.ts";
import { lendServer } from "./lent-server.ts";
import { startServer, type TestServer } from "./server.ts";
import type { Region } from "./server-api.ts";
import { until } from "./server-wait.ts";

export const transports = ["TCP", "the Unix socket"] as const;
export type TransportName = (typeof transports)[number];

const onBoth = { TENSORD_PORT: "0" };

/** A started server that listens on both. */
export function startDataServer(): Promise<TestServer> {
  return startServer({ env: onBoth });
}

/** One that tests have one after the other, with nothing on it; the file calls `endLentServers` after all its tests. */
export function lendDataServer(): Promise<TestServer> {
  return lendServer(onBoth);
}

export async function targetOf(server: TestServer, transport: TransportName): Promise<Target> {
  return transport === "TCP" ? await server.readUrl() : server.instance.socket;
}

/** A connection with a GET of the region's data under way, of which nothing more is read until `resume`. */
export async function beginDownload(target: Target, { id }: Region): Promise<DataSocket> {
  const socket = new DataSocket(target);
  await socket.ask("GET", `/v1/regions/${id}/data`);
  await socket.begin();
  return socket;
}

/** A connection with a PUT under way, of which `sent` have been written to the region. */
export async function beginUpload(
  server: TestServer,
  target: Target,
  { id, storage }: Region,
  sent: Uint8Array,
): Promise<DataSocket> {
  const socket = new DataSocket(target);
  await socket.ask("PUT", `/v1/regions/${id}/data`, `Content-Length: ${storage.byte_size - 4096}`);
  await socket.send(sent);
  await until("the upload is a writer", async () => (await server.api.get(id)).has_writers);
  return socket;
}

/** How many descriptors the server has of files of regions. */
export function countRegionFiles({ pid, instance }: TestServer): number {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).filter((fd) => {
    try {
      return readlinkSync(join(folder, fd)).startsWith(`${instance.keep}/`);
    } catch {
      // Closed since it was listed.
      return false;
    }
  }).length;
}

/** Waits until nobody holds the region any more, and the server no file of any region. */
export async function untilLetGo(server: TestServer, { id }: Region): Promise<void> {
  await until("the region is let go of", async () => {
    const { in_use, has_writers } = await server.api.get(id);
    return !in_use && !has_writers;
  });
  await until("its descriptors are closed", () => countRegionFiles(server) === 0);
}

/** What the server's resident memory grows by at most while `work` is under way, in bytes. proc(5), `clear_refs`. */
export async function measureGrowth({ pid }: TestServer, work: () => Promise<void>): Promise<number> {
  const read = (field: string) =>
    Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
  const before = read("VmRSS");
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
  await work();
  return read("VmHWM") - before;
}
