/** NVIDIA's <cuda.h>, which the Python packages bring (`nvidia-cuda-runtime` of clients/python/uv.lock), and a compiler to ask it. */

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { needsCompiler } from "./c-program.ts";
import { root } from "./instance-needs.ts";

/** Its folder, or undefined. */
export function findCudaHeaders(): string | undefined {
  const lib = join(root, ".venv/lib");
  const pythons = existsSync(lib) ? readdirSync(lib).filter((name) => name.startsWith("python3")) : [];
  const found = pythons.map((name) => join(lib, name, "site-packages/nvidia/cu13/include"));
  return found.find((folder) => existsSync(join(folder, "cuda.h")));
}

/** A reason to skip, or undefined. */
export const needsCudaHeaders =
  needsCompiler ?? (findCudaHeaders() === undefined ? "needs cuda.h of .venv, which `npm test` makes" : undefined);

/** What the compiler says of `lines` behind the header: nothing where they hold. */
export function compileWith(lines: readonly string[]): string {
  const source = ["#include <stddef.h>", "#include <cuda.h>", ...lines].join("\n");
  const compiler = ["gcc", "clang", "cc"].find((name) => Bun.which(name) !== null) ?? "cc";
  const command = [compiler, "-std=gnu11", "-fsyntax-only", "-isystem", findCudaHeaders() ?? "", "-x", "c", "-"];
  const { stderr, exitCode } = Bun.spawnSync(command, { stdin: Buffer.from(source) });
  return exitCode === 0 ? "" : stderr.toString();
}
