/**
 * How much a TCP connection may bring or take in one turn of the event loop. The runtime reads one for as long as nearly
 * 512 KiB are there at once, and sends a file for as long as the kernel takes it: by the kernel's own bounds that is seconds.
 */

import { readdirSync } from "node:fs";
import { limits } from "../memory/limits.ts";
import { isListening, setSocketBuffer } from "../memory/os/libc.ts";

/** Bounds every connection that this process's listeners will take. The runtime does not tell a listener's descriptor. */
export function boundSocketBuffers(): void {
  for (const fd of readdirSync("/proc/self/fd").map(Number)) {
    if (!isListening(fd)) continue;
    setSocketBuffer(fd, "receive", limits.socketBufferBytes);
    setSocketBuffer(fd, "send", limits.socketBufferBytes);
  }
}
