/**
 * Instances of tests: names that no other run uses, the paths of what a server makes under them, and the assertion that
 * nothing of them is left.
 */

import { readdirSync } from "node:fs";
import { join } from "node:path";

/** Where tests share memory unless they mount a tmpfs of their own. */
export const defaultShmDirectory = "/dev/shm";

/** What `npm test` searches that directory for afterwards: every name that a test makes there contains it. */
export const testToken = process.env.TEST_TOKEN ?? "";

const runPrefix = `t${testToken}${process.pid.toString(36)}`;
let count = 0;

export interface Instance {
  readonly name: string;
  readonly shmDirectory: string;
  /** The instance's own directory. */
  readonly directory: string;
  readonly socket: string;
  readonly broker: string;
  readonly keep: string;
  readonly new: string;
  readonly store: string;
}

/** A new instance's place. Nothing is made yet. */
export function createInstance(shmDirectory = defaultShmDirectory): Instance {
  count += 1;
  const name = `${runPrefix}-${count}-${crypto.randomUUID().slice(0, 8)}`;
  const directory = join(shmDirectory, `tensord.${name}`);
  return {
    name,
    shmDirectory,
    directory,
    socket: join(directory, "http.sock"),
    broker: join(directory, "broker.sock"),
    keep: join(directory, "keep"),
    new: join(directory, "new"),
    store: join(directory, "store"),
  };
}

/** Everything that looks as if it belonged to the instance: its directory and its public names. */
export function listNames({ shmDirectory, name }: Instance): string[] {
  return readdirSync(shmDirectory).filter((entry) => entry.startsWith(`tensord.${name}`));
}

/** For `afterAll` of each file: no instance of this run has left anything in the shared directory. */
export function assertNothingLeft(): void {
  const left = readdirSync(defaultShmDirectory).filter((entry) => entry.startsWith(`tensord.${runPrefix}-`));
  if (left.length > 0) throw new Error(`left behind in ${defaultShmDirectory}: ${left.join(", ")}`);
}

/** The random part of a region's id and file name. */
export function tokenOf(id: string): string {
  return id.slice("reg_".length);
}
