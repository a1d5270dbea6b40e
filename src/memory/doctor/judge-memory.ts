/** Judges who else takes the memory: foreign files, other instances, cgroups, swap, and regions that will not go. */

import type { Facts, InstanceFacts } from "./facts.ts";
import { type Finding, failing, fine, warning } from "./finding.ts";
import { thresholds } from "./thresholds.ts";
import { count, inBytes, listSome, percentOf } from "./words.ts";

/** Files that no instance of tensord owns. */
export function judgeForeign({ question, host }: Facts): Finding | undefined {
  const check = "foreign-files";
  if (host.shm === null) return undefined;
  const { foreign, isWhole, entries } = host.scan;
  const where = question.shmDirectory;
  const partly = isWhole ? "" : ` among the first ${entries} entries`;
  if (foreign.files === 0) return fine(check, `${where} has no files of others${partly}.`);
  const owners = foreign.owners.map(
    ({ uid, files, bytes }) => `uid ${uid} ${inBytes(bytes)} in ${count(files, "file")}`,
  );
  const largest = foreign.largest.map(({ path, bytes, uid }) => `${toShown(path)} (${inBytes(bytes)}, uid ${uid})`);
  const { shownItems } = thresholds;
  const summary =
    `${inBytes(foreign.bytes)} of ${where} are in ${count(foreign.files, "file")} of others${partly}: ` +
    `${listSome(owners, shownItems)}. The largest: ${listSome(largest, shownItems)}.`;
  const totalBytes = host.fileSystem?.totalBytes ?? 0;
  if (totalBytes === 0 || percentOf(foreign.bytes, totalBytes) < thresholds.foreignPercent) return fine(check, summary);
  return warning(check, summary, "Find out who made them (ls -l, fuser), and remove those that nobody uses any more.");
}

/** A path as a sentence shows it: whoever named the file may have chosen anything. */
function toShown(path: string): string {
  const text = path.length > 200 ? `${path.slice(0, 200)}…` : path;
  return /^[\w./+@:=,-]+$/.test(text) ? text : JSON.stringify(text);
}

/** Other instances in the same directory, above all those whose server is gone. */
export function judgeInstances({ host }: Facts): Finding | undefined {
  const check = "other-instances";
  const { instances } = host.scan;
  if (host.shm === null) return undefined;
  if (instances.length === 0) return fine(check, "No other instance shares the directory.");
  const { shownItems } = thresholds;
  const summary = `${count(instances.length, "other instance")}: ${listSome(instances.map(toWords), shownItems)}.`;
  const idle = instances.filter(({ lock, regions }) => lock.state === "free" && regions > 0);
  if (idle.length === 0) return fine(check, summary);
  const commands = idle.map(({ instance }) => `tensord purge --instance ${instance}`);
  return warning(
    check,
    summary,
    `Start their servers again, or remove what they left: ${listSome(commands, shownItems)}.`,
  );
}

function toWords({ instance, uid, regions, bytes, lock }: InstanceFacts): string {
  const states = {
    held: `its server runs${lock.pid === null ? "" : ` (pid ${lock.pid})`}`,
    free: "its server does not run",
    unknown: "we may not see whether its server runs",
  };
  return `${instance} of uid ${uid} with ${count(regions, "region")} (${inBytes(bytes)}), ${states[lock.state]}`;
}

/** What bounds the pool, and whether a cgroup allows less than the pool would take. */
export function judgeLimit({ host, server }: Facts): Finding {
  const check = "pool-limit";
  const { limit } = host;
  if ("failure" in limit) return failing(check, `${limit.failure}.`, limit.hint);
  const { cgroup } = limit;
  const cure =
    "Raise the cgroup's memory limit (in Kubernetes the container's), or set TENSORD_MEMORY_LIMIT_BYTES lower.";
  if (server !== null && cgroup !== null && cgroup.bytes < server.limitBytes) {
    return failing(
      check,
      `The pool may take ${inBytes(server.limitBytes)}, and the cgroup leaves it ${inBytes(cgroup.bytes)} now ` +
        `(${cgroup.reason}): past its maximum the kernel kills.`,
      `${cure} Then restart the server; regions stay.`,
    );
  }
  if (server !== null && server.limitBytes !== limit.limitBytes) {
    return warning(
      check,
      `The pool may take ${inBytes(server.limitBytes)}, as decided at the start; now it would be ${limit.reason}.`,
      "Restart the server, so that it counts with what is there now; regions stay.",
    );
  }
  const summary = `The pool may take ${inBytes(limit.limitBytes)}; what decides is ${limit.reason}.`;
  if (cgroup === null || cgroup.otherwiseBytes === null || cgroup.bytes >= cgroup.otherwiseBytes) {
    return fine(check, summary);
  }
  return warning(
    check,
    `A cgroup bounds the pool to ${inBytes(cgroup.bytes)}, where it could have ${inBytes(cgroup.otherwiseBytes)} ` +
      `(${cgroup.reason}). What others in that cgroup write to memory counts against it too.`,
    cure,
  );
}

/** Whether regions may be on a disk instead of in memory. */
export function judgeSwap({ host }: Facts): Finding {
  const check = "swap";
  const { totalBytes, freeBytes } = host.swap;
  const usedBytes = totalBytes - freeBytes;
  if (totalBytes === 0) return fine(check, "The machine has no swap: regions stay in memory.");
  const summary = `${inBytes(usedBytes)} of ${inBytes(totalBytes)} of swap are in use`;
  if (usedBytes === 0) return fine(check, `${summary}.`);
  return warning(
    check,
    `${summary}: pages of regions may be among it, and who reads them waits for a disk.`,
    "Give the machine more memory, or keep the server's cgroup out of swap (memory.swap.max=0).",
  );
}

/** Regions that were deleted and do not go, and who keeps them. */
export function judgeDraining({ question, host, server, now }: Facts): Finding | undefined {
  const check = "draining";
  if (server === null) return undefined;
  if (server.drainingRegions === 0) return fine(check, "No region drains.");
  const since = new Map(host.draining.map((drain) => [drain.token, drain]));
  const told = server.draining.map(({ token, description, byteSize, waitsFor }) => {
    const drain = since.get(token);
    const ageMs = drain === undefined ? 0 : now - drain.sinceMs;
    const isLinked = waitsFor === "hard-link";
    const why = isLinked
      ? `its file is linked elsewhere (inode ${drain?.ino ?? "unknown"}, ${count(drain?.links ?? 0, "link")})`
      : "a process maps it";
    const words = `${description}, ${inBytes(byteSize)}, for ${Math.max(0, Math.round(ageMs / 1000))} s: ${why}`;
    return { words, isLinked, isLong: ageMs >= thresholds.longDrainMs };
  });
  const list = listSome(
    told.map(({ words }) => words),
    thresholds.shownItems,
  );
  const rest = server.drainingRegions > told.length ? `; ${server.drainingRegions - told.length} more` : "";
  const summary = `${count(server.drainingRegions, "region")} (${inBytes(server.drainingBytes)}) drain: ${list}${rest}.`;
  const late = told.filter(({ isLong, isLinked }) => isLong || isLinked);
  if (late.length === 0) return fine(check, summary);
  const cures = [
    late.some(({ isLinked }) => isLinked) ? ["Remove the other links: find them with find -xdev -inum <inode>."] : [],
    late.some(({ isLinked }) => !isLinked)
      ? [`End the processes that map them: grep -l '${question.instance}.*(deleted)' /proc/[0-9]*/maps names them.`]
      : [],
  ];
  return warning(check, summary, cures.flat().join(" "));
}

/** Regions that nobody can lease by a lock, since somebody write-locks the lease byte. */
export function judgeBarred({ question, host, server }: Facts): Finding | undefined {
  const check = "barred-leases";
  if (server === null) return undefined;
  const { files, isWhole } = host.barred;
  const among = isWhole ? "" : ` among those that were looked at, ${count(thresholds.lockedEntries, "region")}`;
  if (files.length === 0) return fine(check, `No process bars a region's leases${among}.`);
  const shown = files.map(({ token, ino }) => `${server.barred.get(token) ?? token} (inode ${ino})`);
  return warning(
    check,
    `A process write-locks the lease byte of ${count(files.length, "region")}${among}: ` +
      `${listSome(shown, thresholds.shownItems)}. Clients map them all the same, with leases by request; ` +
      "they count as used, and are not freed, until it lets go.",
    "End that process. It has the file open for writing: " +
      `ls -l /proc/[0-9]*/fd | grep tensord.${question.instance} names the candidates, and grep OFDLCK /proc/locks the inodes.`,
  );
}
