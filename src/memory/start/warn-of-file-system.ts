/** What an operator has to hear of the file system at every start, in the doctor's words: too small, full, or no tmpfs. */

import type { Finding } from "../doctor/finding.ts";
import { readFileSystem } from "../doctor/gather.ts";
import { judgeFileSystem, judgeInodes, judgeSize, judgeSpace } from "../doctor/judge-directory.ts";
import type { InstanceDirectory } from "../storage/instance-directory.ts";

export function warnOfFileSystem(
  { shmDirectory, shmPath }: InstanceDirectory,
  onWarning: (message: string, error: unknown) => void,
): void {
  const view = { question: { shmDirectory }, host: { fileSystem: readFileSystem(shmPath), shmErrno: null } };
  const findings = [judgeFileSystem(view), judgeSize(view), judgeSpace(view), judgeInodes(view)];
  for (const { status, summary, cure } of findings.filter((finding): finding is Finding => finding !== undefined)) {
    if (status !== "ok") onWarning(`${summary} ${cure}`, undefined);
  }
}
