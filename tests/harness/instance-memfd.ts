/** Regions without a name as a fault test sees them, through the descriptors of a server's process: bytes, mode, kernel's seals. */

import { closeSync, openSync } from "node:fs";
import { type FileSeal, hasSeal } from "../../src/memory/os/libc-memory.ts";
import { type Content, readOpened, writeOpened } from "./instance-content.ts";
import { memfdPath } from "./memfd.ts";
import type { TestServer } from "./server.ts";
import type { Region } from "./server-api.ts";

const seals: readonly FileSeal[] = ["shrink", "grow", "write"];

export interface MemfdContent extends Content {
  readonly seals: readonly FileSeal[];
}

/** Fills it as `writeContent` does. */
export function writeMemfd(region: Region, server: TestServer, seed: number): void {
  using file = open(region, server, "r+");
  writeOpened(file.fd, region, seed);
}

/** What a crash must not change of it. */
export function readMemfd(region: Region, server: TestServer): MemfdContent {
  using file = open(region, server, "r");
  return { ...readOpened(file.fd), seals: seals.filter((seal) => hasSeal(file.fd, seal)) };
}

function open(region: Region, { pid }: TestServer, flags: string): Disposable & { readonly fd: number } {
  const fd = openSync(memfdPath(region, pid), flags);
  return { fd, [Symbol.dispose]: () => closeSync(fd) };
}
