/** The Worker behind `lost-names.ts`: reads inotify's records, and tells of names that are the instance's own. */

import { limits } from "../limits.ts";
import { KnownTokens } from "./known-tokens.ts";
import type { LostNamesReport, LostNamesTask } from "./lost-names.ts";
import { findLost } from "./name-records.ts";

declare const self: Worker;

self.onmessage = ({ data: { fd, instance, known } }: MessageEvent<LostNamesTask>) => {
  // A Worker's "open" also comes where its module is missing.
  self.postMessage("up");
  void read(fd, instance, new KnownTokens(known));
};

/** The stream waits in epoll for the descriptor, and reads once for each time that it is asked. */
async function read(fd: number, instance: string, known: KnownTokens): Promise<void> {
  for await (const records of Bun.file(fd).stream()) {
    const found = findLost(Buffer.from(records.buffer, records.byteOffset, records.length), instance);
    const report: LostNamesReport = { ...found, tokens: found.tokens.filter((token) => known.mayHave(token)) };
    if (report.tokens.length > 0 || report.isOverflow) self.postMessage(report);
    await Bun.sleep(limits.nameWatchPauseMs);
  }
}
