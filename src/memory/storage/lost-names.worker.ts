/** The Worker behind `lost-names.ts`: reads inotify's records, and tells of names that look like the instance's own. */

import { limits } from "../limits.ts";
import type { LostNamesReport, LostNamesTask } from "./lost-names.ts";
import { findLost } from "./name-records.ts";

declare const self: Worker;

self.onmessage = ({ data: { fd, instance } }: MessageEvent<LostNamesTask>) => {
  // A Worker's "open" also comes where its module is missing.
  self.postMessage("up");
  void read(fd, instance);
};

/** The stream waits in epoll for the descriptor, and reads once for each time that it is asked. */
async function read(fd: number, instance: string): Promise<void> {
  for await (const records of Bun.file(fd).stream()) {
    const report: LostNamesReport = findLost(Buffer.from(records.buffer, records.byteOffset, records.length), instance);
    if (report.tokens.length > 0 || report.isOverflow) self.postMessage(report);
    await Bun.sleep(limits.nameWatchPauseMs);
  }
}
