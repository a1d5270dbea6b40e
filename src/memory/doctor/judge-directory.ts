/** Judges the shared directory and the instance's own: what they are, whose they are, and whether they are still there. */

import type { Facts, FileSystemFacts, HostFacts, Question, SocketFacts } from "./facts.ts";
import { type Finding, failing, fine, warning } from "./finding.ts";
import { thresholds } from "./thresholds.ts";
import { count, inBytes, percentOf } from "./words.ts";

const elsewhere = "Mount a tmpfs there (in Kubernetes an emptyDir with medium: Memory), or set TENSORD_SHM_DIR to one.";
const larger =
  "Mount it larger: in Docker --shm-size=8g, in Kubernetes an emptyDir with medium: Memory and a sizeLimit.";

/** As much as is asked for the file system alone; at its start a server looks at that. */
export interface FileSystemView {
  readonly question: Pick<Question, "shmDirectory">;
  readonly host: Pick<HostFacts, "fileSystem" | "shmErrno">;
}

/** Whether the shared directory is there, and on a tmpfs. */
export function judgeFileSystem({ question, host }: FileSystemView): Finding {
  const check = "shm-file-system";
  const where = question.shmDirectory;
  const type = host.fileSystem?.type;
  if (type === undefined) {
    return failing(check, `${where} cannot be opened: ${host.shmErrno ?? "no statfs"}.`, elsewhere);
  }
  if (type === "tmpfs") return fine(check, `${where} is on a tmpfs.`);
  return warning(check, `${where} is on ${type} and not on a tmpfs: regions are written to a disk there.`, elsewhere);
}

/** Whether the file system is large enough to be meant for tensors. */
export function judgeSize({ question, host }: FileSystemView): Finding | undefined {
  const check = "shm-size";
  if (host.fileSystem === null) return undefined;
  const { totalBytes } = host.fileSystem;
  const where = question.shmDirectory;
  if (totalBytes === 0) return fine(check, `${where} has no size of its own.`);
  const has = `${where} has ${inBytes(totalBytes)} in all`;
  if (totalBytes <= thresholds.containerDefaultBytes) {
    return failing(check, `${has}: a container's default, enough to start and not for tensors.`, larger);
  }
  if (totalBytes < thresholds.smallBytes) return warning(check, `${has}, which is little for tensors.`, larger);
  return fine(check, `${has}.`);
}

/** Whether anything more can be written to the file system. */
export function judgeSpace({ question, host }: FileSystemView): Finding | undefined {
  const cure = `Delete regions (tensord ls, tensord rm) or foreign files (ls -l ${question.shmDirectory}). ${larger}`;
  return judgeRoom(
    "shm-space",
    host.fileSystem,
    ({ freeBytes, totalBytes }) => [freeBytes, totalBytes, inBytes(freeBytes)],
    cure,
  );
}

/** Whether any more files can be made in the file system. A region takes two inodes: its name, and the keeper's link. */
export function judgeInodes({ host }: FileSystemView): Finding | undefined {
  const cure = "Put several tensors into one region, delete foreign files, or mount it with a larger nr_inodes.";
  return judgeRoom(
    "inodes",
    host.fileSystem,
    ({ freeInodes, totalInodes }) => [freeInodes, totalInodes, count(freeInodes, "inode")],
    cure,
  );
}

function judgeRoom(
  check: string,
  fileSystem: FileSystemFacts | null,
  read: (fileSystem: FileSystemFacts) => [free: number, total: number, words: string],
  cure: string,
): Finding | undefined {
  if (fileSystem === null) return undefined;
  const [free, total, words] = read(fileSystem);
  if (total === 0) return undefined;
  const percent = percentOf(free, total);
  const summary = `${words} of the file system are free (${percent} %).`;
  if (free < 2) return failing(check, summary, cure);
  return percent < thresholds.fewPercent ? warning(check, summary, cure) : fine(check, summary);
}

/** Whether others may rename or remove what is ours in the shared directory. */
export function judgeSticky({ question, host }: Facts): Finding | undefined {
  const check = "sticky-bit";
  if (host.shm === null) return undefined;
  const { mode } = host.shm;
  const shown = `${question.shmDirectory} has mode ${mode.toString(8)}`;
  if ((mode & 0o1000) !== 0) return fine(check, `${shown}: only a file's owner may rename or remove it.`);
  if ((mode & 0o022) === 0) return fine(check, `${shown}: only its owner makes files there.`);
  return warning(
    check,
    `${shown}, without the sticky bit: whoever may write there can rename or remove the instance's directory and names.`,
    `chmod +t ${question.shmDirectory}, as its owner. A Kubernetes emptyDir is 0777 and root's: set TENSORD_SHM_DIR to a directory in it ` +
      `that is not there, such as ${question.shmDirectory}/t. The server makes it, sticky, and apps mount that alone, by subPath.`,
  );
}

/** Whether the directories that the server holds are the ones that clients find. */
export function judgeMoved({ question, host, server }: Facts): Finding | undefined {
  const check = "moved-directory";
  if (server === null) return undefined;
  const path = question.shmDirectory;
  if (host.moved.shm !== null) {
    return failing(
      check,
      `${path} is another directory than the server's, which is at ${host.moved.shm}: new clients find nothing.`,
      `Unmount what hides it, or restart the server so that it uses what is at ${path} now.`,
    );
  }
  if (host.moved.keep !== null) {
    const own = `${path}/tensord.${question.instance}`;
    return failing(
      check,
      `${own} is not the server's directory, whose keeper is at ${host.moved.keep}: a restart would not find its regions.`,
      `Move it back to ${own}, then restart the server. If it was removed, a restart begins anew.`,
    );
  }
  return fine(check, "The server's directories are where clients look for them.");
}

/** Whether the instance's directory is this user's, and open to the group of workers. */
export function judgeOwn({ question, host, server }: Facts): Finding | undefined {
  const check = "instance-directory";
  const path = `${question.shmDirectory}/tensord.${question.instance}`;
  if (host.own === null)
    return server === null ? fine(check, `${path} is not there: nothing was started yet.`) : undefined;
  const { uid, gid, mode } = host.own;
  const shown = `${path} belongs to uid ${uid}, gid ${gid}, with mode ${(mode & 0o777).toString(8)}`;
  if (uid !== question.uid) {
    return failing(
      check,
      `${shown}, and this is uid ${question.uid}: a server of this uid would not start.`,
      "Run the server as that uid, or choose another TENSORD_INSTANCE.",
    );
  }
  if ((mode & 0o777) === 0o750) {
    return fine(check, `${shown}: workers of this uid or this group (fsGroup in Kubernetes) reach it.`);
  }
  const lost = (mode & 0o050) === 0o050 ? "" : ` workers of gid ${gid} cannot reach the socket, and`;
  return failing(check, `${shown}, want 750:${lost} the next start would refuse it.`, `chmod 750 ${path}`);
}

/** Whether clients can connect to the Unix socket. */
export function judgeSocket({ question, host, server }: Facts): Finding | undefined {
  return server === null ? undefined : judge("socket", question.socket, host.socket);
}

/** Whether clients can connect to the broker. */
export function judgeBroker({ question, host, server }: Facts): Finding | undefined {
  return server === null ? undefined : judge("broker", question.broker, host.broker);
}

function judge(check: string, path: string | null, found: SocketFacts | null): Finding | undefined {
  if (path === null) return undefined;
  if (found?.isSocket !== true) {
    const is = found === null ? "is not there" : "is no socket";
    return failing(check, `${path} ${is}: no client can connect to it.`, "Restart the server; regions stay.");
  }
  const mode = found.mode.toString(8);
  if ((found.mode & 0o060) === 0o060) return fine(check, `${path} has mode ${mode}.`);
  return warning(check, `${path} has mode ${mode}: workers of its group cannot connect.`, `chmod 660 ${path}`);
}
