/**
 * `hold`: runs a command while a region is leased, for readers that map a path and take no lease themselves. The command inherits the
 * descriptor that has the lock, so the region is in use until the command has ended, whatever becomes of this process. On a file of
 * somebody else's a lock proves nothing: that is leased by request, for as long as this process is there.
 */

import { spawn } from "node:child_process";
import { closeSync, constants, fstatSync, lstatSync, openSync } from "node:fs";
import { constants as osConstants } from "node:os";
import { TensordError } from "../../memory/error.ts";
import { tryLease } from "../../memory/os/kernel-lease.ts";
import type { Lease, RegionDetail } from "./answers.ts";
import type { Api } from "./api.ts";
import { toId } from "./target.ts";

/** What a descriptor may say that is over when it is looked at: a region was replaced, a stock reader took its name away. */
const tries = 10;
/** How long a lease by request outlives this process, if it is killed. */
const leaseMs = 60_000;
/** What is passed on. Those that a terminal sends go to the whole foreground, of which the command is part. */
const passedOn = ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const;
const fromTerminal = ["SIGINT", "SIGQUIT"] as const;

/**
 * Runs `command` while the region is leased. In its arguments `{}` is the path of the region's file, and in its environment
 * TENSORD_PATH.
 * @param target a region's id, `name` (of the default model) or `model/name`.
 * @returns the command's exit status, or 128 and the number of the signal that ended it.
 * @throws TensordError `storage-unavailable` of a region without a path; `io-error`; what the server says.
 */
export async function hold(api: Api, target: string, command: readonly string[]): Promise<number> {
  const { fd, path, release } = await lease(api, target);
  try {
    const [program = "", ...args] = command.map((word) => word.replaceAll("{}", path));
    return await run(program, args, { ...process.env, TENSORD_PATH: path }, fd);
  } finally {
    closeSync(fd);
    await release();
  }
}

interface Leased {
  /** Has the lock, if there is one. Whoever got it closes it. */
  readonly fd: number;
  readonly path: string;
  /** Ends the lease, if there is no lock. */
  readonly release: () => Promise<void>;
}

/** Open, lock, then check, as `docs/protocol.md` has it: what is not as it was told is asked for anew. */
async function lease(api: Api, target: string): Promise<Leased> {
  for (let left = tries; ; left--) {
    const region = await api.call<RegionDetail>("GET", `/v1/regions/${await toId(api, target, "hold")}`);
    const { path, dev, kind } = region.storage;
    if (path === null || dev === null) throw withoutPath(target, region);
    if (kind === "file") return await leaseFile(api, target, region, path);
    const fd = tryOpen(target, path);
    if (fd !== undefined) {
      try {
        if (!tryLease(fd, "consumer", false)) throw barred(target, path);
        if (isFileOf(region, path, fd)) return { fd, path, release: async () => {} };
      } catch (error) {
        closeSync(fd);
        throw error;
      }
      closeSync(fd);
    }
    if (left === 0) throw elsewhere(target, path);
  }
}

/** The server looks at the file when it is asked for it, and says what has become of it. */
async function leaseFile(api: Api, target: string, region: RegionDetail, path: string): Promise<Leased> {
  const { changed, dev, ino } = region.storage;
  if (changed !== null) throw changedSince(target, path, changed);
  const lease = await api.call<Lease>("POST", `/v1/regions/${region.id}/leases`, { ttl_ms: leaseMs });
  const renew = () => api.call("POST", `/v1/leases/${lease.id}/renew`).catch(() => undefined);
  const timer = setInterval(() => void renew(), leaseMs / 3);
  const release = async () => {
    clearInterval(timer);
    // The server may be gone by now, and the lease with it.
    await api.call("DELETE", `/v1/leases/${lease.id}`).catch(() => undefined);
  };
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const status = fstatSync(fd, { bigint: true });
    if (String(status.dev) === dev && String(status.ino) === ino) return { fd, path, release };
    closeSync(fd);
    throw elsewhere(target, path);
  } catch (error) {
    await release();
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof TensordError || code === undefined) throw error;
    throw new TensordError("io-error", `Cannot hold ${target}: ${path} cannot be opened (${code})`, {
      errno: code,
      hint: "Let this user read the file where it lies, or load it in mode copy.",
    });
  }
}

function changedSince(target: string, path: string, changed: string): TensordError {
  const state = `${path} is ${changed.replace("-", " ")} since it was loaded`;
  return new TensordError("io-error", `Cannot hold ${target}: ${state}`, {
    hint: `Load it again, \`tensord load ${path} --mode map\`, and hold that version.`,
  });
}

/** @returns undefined if it is not there: its region may have gone since it was asked for. */
function tryOpen(target: string, path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const { code = "unknown" } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ELOOP" || code === "ENOTDIR") return undefined;
    const hint = "Run this as the server's user, or as a member of its group (Kubernetes: the same fsGroup).";
    throw new TensordError("io-error", `Cannot hold ${target}: ${path} cannot be opened (${code})`, {
      errno: code,
      hint,
    });
  }
}

function isFileOf({ storage }: RegionDetail, path: string, fd: number): boolean {
  const named = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return [fstatSync(fd, { bigint: true }), named].every(
    (status) => status !== undefined && String(status.dev) === storage.dev && String(status.ino) === storage.ino,
  );
}

function withoutPath(target: string, { storage }: RegionDetail): TensordError {
  const detail = `Cannot hold ${target}: in ${storage.kind} storage it has no path that a command could open`;
  const hint = `Copy it into a region that has one, \`tensord copy ${target} NAME --storage shm\`, and hold that.`;
  return new TensordError("storage-unavailable", detail, { hint });
}

function barred(target: string, path: string): TensordError {
  return new TensordError("io-error", `Cannot hold ${target}: another process write-locks the lease byte of ${path}`, {
    errno: "EAGAIN",
    hint: "`tensord doctor` names the region; end that process, or hold a copy.",
  });
}

function elsewhere(target: string, path: string): TensordError {
  const state = `${path} is another file here than the server's, or not there`;
  return new TensordError("io-error", `Cannot hold ${target}: ${state}`, {
    hint: "Run this where the server's directory is mounted: in the same container, or with the same volume at the same path.",
  });
}

/** @throws TensordError `io-error` if it cannot be started. */
async function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv, lock: number): Promise<number> {
  const child = spawn(program, args, { env, stdio: ["inherit", "inherit", "inherit", lock] });
  const pass = (signal: NodeJS.Signals) => child.kill(signal);
  const ignore = () => undefined;
  for (const signal of passedOn) process.on(signal, pass);
  for (const signal of fromTerminal) process.on(signal, process.stdin.isTTY ? ignore : pass);
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  child.once("error", ({ code = "unknown" }: NodeJS.ErrnoException) => {
    const detail = `Cannot run ${JSON.stringify(program)}: ${code}`;
    reject(new TensordError("io-error", detail, { errno: code, hint: "Is it in PATH, and may this user run it?" }));
  });
  child.once("exit", (status, signal) => resolve(signal === null ? (status ?? 0) : toStatus(signal)));
  try {
    return await promise;
  } finally {
    for (const signal of passedOn) process.off(signal, pass);
    for (const signal of fromTerminal) process.off(signal, pass).off(signal, ignore);
  }
}

/** As shells have it. */
function toStatus(signal: NodeJS.Signals): number {
  return 128 + osConstants.signals[signal];
}
