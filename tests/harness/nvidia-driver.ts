/**
 * NVIDIA's own `libcuda.so.1`, unpacked from a Debian package where this machine can have it: what it says without a card. Started by root
 * it makes device files in /dev, so root's processes that load it lose the right to.
 */

import { existsSync } from "node:fs";
import { needsRoot, root } from "./instance-needs.ts";

/** The beginning of a command line that loads it. */
export const withoutDeviceFiles =
  needsRoot === undefined ? ["setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod"] : [];

function findReason(): string | undefined {
  // The kernel's driver: with it the library finds what the machine has, and that is no machine without a card.
  if (existsSync("/proc/driver/nvidia")) return "needs a machine without NVIDIA's kernel driver";
  const [program, ...flags] = [...withoutDeviceFiles, "true"];
  const isHeld = Bun.which(program ?? "") !== null && Bun.spawnSync([program ?? "", ...flags]).exitCode === 0;
  return isHeld ? undefined : "needs setpriv, and the right to give up rights";
}

const reason = findReason();
const fetched =
  reason === undefined ? Bun.spawnSync([process.execPath, "tests/cuda/fetch-driver.mjs"], { cwd: root }) : undefined;
const answer = fetched?.stdout.toString().trim() ?? "";
if (fetched !== undefined && fetched.exitCode !== 0 && fetched.exitCode !== 3)
  throw new Error(`NVIDIA's driver: ${fetched.stderr}`);

/** A reason to skip, or undefined. */
export const needsNvidiaDriver = fetched?.exitCode === 3 ? answer : reason;

/** The folder that has it. */
export const nvidiaDriver = answer;
