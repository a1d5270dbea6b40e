/**
 * Starts an fd holder: binds its socket, connects to it, and only then makes the process that answers, so that nobody has to wait
 * until it listens and a start that fails in the middle leaves a socket that nobody listens on.
 */

import { closeSync, fstatSync, rmSync } from "node:fs";
import { TensordError } from "../../error.ts";
import { limits } from "../../limits.ts";
import { withSpare } from "../../os/descriptors.ts";
import { connectForMessages, listenForMessages } from "../../os/libc-unix.ts";
import { ownProgram } from "../../os/own-program.ts";
import { type HolderAddress, HolderConnection } from "./holder-connection.ts";
import { holderCommand, socketName } from "./protocol.ts";

/** What an fd holder belongs to. An `InstanceDirectory` is one. */
export interface HolderPlace extends HolderAddress {
  readonly instance: string;
  /** The descriptor that owns the instance's lock. */
  readonly lock: number;
}

/** The descriptor of its socket in the fd holder. */
export const listenerDescriptor = 3;

/**
 * Whatever lies at the place's path goes. The process has a session of its own, no descriptor but the socket, no environment, and
 * the root for its working directory, so that it keeps no file system busy.
 * @throws TensordError `io-error` if the process cannot be made.
 */
export async function startHolder(
  place: HolderPlace,
  onStep?: (step: "holder.started") => void,
): Promise<HolderConnection> {
  rmSync(place.holderPath, { force: true });
  const listener = withSpare(() => listenPrivately(place.holderPath));
  let socket: number;
  try {
    socket = withSpare(() => connectTo(place.holderPath));
    try {
      spawnHolder(place, listener);
    } catch (error) {
      closeSync(socket);
      throw error;
    }
  } catch (error) {
    rmSync(place.holderPath, { force: true });
    throw new TensordError(
      "io-error",
      `Cannot start the fd holder of instance ${place.instance}: ${(error as Error).message}`,
      { hint: "It is a process of its own: see whether this user may start one (ulimit -u, the cgroup's pids.max)." },
      { cause: error },
    );
  } finally {
    closeSync(listener);
  }
  onStep?.("holder.started");
  return await HolderConnection.greet(socket);
}

function connectTo(path: string): number {
  const socket = connectForMessages(path);
  if (socket === undefined) throw new Error(`somebody removed ${socketName}`);
  return socket;
}

function listenPrivately(path: string): number {
  const umask = process.umask(0o177);
  try {
    return listenForMessages(path, limits.holderConnections);
  } finally {
    process.umask(umask);
  }
}

function spawnHolder({ instance, lock }: HolderPlace, listener: number): void {
  const { dev, ino } = fstatSync(lock, { bigint: true });
  const command = [...ownProgram(), holderCommand, "--instance", instance, "--lock", `${dev}:${ino}`];
  const child = Bun.spawn([...apart(), ...command], {
    detached: true,
    cwd: "/",
    env: {},
    stdio: ["ignore", "ignore", "ignore", listener],
  });
  child.unref();
}

/** Under `npm start` Bun ends every process below it when it ends (--no-orphans). A child of a child that is gone is not below it. */
function apart(): string[] {
  return process.env.BUN_FEATURE_FLAG_NO_ORPHANS === undefined ? [] : ["/bin/sh", "-c", '"$@" &', "sh"];
}
