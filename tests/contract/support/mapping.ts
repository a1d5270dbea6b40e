/** A map of a file in the test's own process, of which no lock tells. */

import { closeSync, openSync } from "node:fs";
import { library } from "../../../src/memory/os/libc.ts";

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;

/** Maps the file's first page for reading and writing until disposed; its descriptor is closed. @throws if it is refused. */
export function mapForWriting(path: string, pageBytes = 4096): Disposable {
  const byteSize = BigInt(pageBytes);
  const { symbols } = library();
  const fd = openSync(path, "r+");
  const address = symbols.mmap(0n, byteSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0n);
  closeSync(fd);
  if (address === -1n) throw new Error("the kernel refuses the map");
  return { [Symbol.dispose]: () => void symbols.munmap(BigInt.asUintN(64, address), byteSize) };
}
