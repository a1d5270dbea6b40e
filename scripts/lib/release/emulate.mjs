/** Runs an executable of another processor: by qemu, on that processor's C library. */

import { join } from "node:path";
import { Failure } from "../process.mjs";
import { setUpDebian } from "./debian.mjs";
import { processors } from "./facts.mjs";

/** @returns {Promise<string[]>} the beginning of a command line that runs the executable at `path` */
export async function emulate(architecture, path) {
  if (process.arch !== "x64") throw new Failure("Cannot emulate: qemu is pinned for x64 alone.");
  const { debian, qemu } = processors[architecture];
  const tools = await setUpDebian("qemu-user-static:amd64");
  const libraries = await setUpDebian(`libc6:${debian}`);
  return [join(tools, "usr/bin", qemu), "-L", libraries, path];
}
