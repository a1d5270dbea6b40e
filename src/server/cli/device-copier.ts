/** The hidden command that is a copier's process. */

import { runCopier } from "../../cuda/copier.ts";
import type { CopierJob } from "../../cuda/copier-job.ts";

/** @param args the job, as JSON. Returns when it is done. */
export function runDeviceCopier([job]: readonly string[]): void {
  if (job === undefined) throw new Error("Cannot run a copier: a server starts it, with its job and its descriptors");
  runCopier(JSON.parse(job) as CopierJob);
}
