/** NVIDIA's own `libcuda.so.1`, unpacked from a Debian package where this machine can have it: what it says without a card. */

import { existsSync } from "node:fs";
import { root } from "./instance-needs.ts";

// Its name in the file system is a device's that only a machine with the kernel's driver has.
const hasDevice = existsSync("/dev/nvidiactl");
const fetched = hasDevice ? undefined : Bun.spawnSync([process.execPath, "tests/cuda/fetch-driver.mjs"], { cwd: root });
if (fetched !== undefined && fetched.exitCode !== 0 && fetched.exitCode !== 3)
  throw new Error(`NVIDIA's driver: ${fetched.stderr}`);
const answer = fetched?.stdout.toString().trim() ?? "";

/** A reason to skip, or undefined. */
export const needsNvidiaDriver = hasDevice
  ? "needs a machine without an NVIDIA device"
  : fetched?.exitCode === 3
    ? answer
    : undefined;

/** The folder that has it. */
export const nvidiaDriver = answer;
