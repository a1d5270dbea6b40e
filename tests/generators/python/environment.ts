/** A Python with the packages of a row's `requirements.txt`. */

import { join } from "node:path";
import { root, stockPython } from "../../harness/instance-needs.ts";
import type { Work } from "../work.ts";

type RunUv = (what: string, args: readonly string[], options: { env: object; onStart: () => void }) => Promise<void>;

const { runUv } = (await import(join(root, "scripts/lib/uv.mjs"))) as { runUv: RunUv };
const { pythonEnvironment } = (await import(join(root, "scripts/lib/python-packages.mjs"))) as {
  pythonEnvironment: () => object;
};

/** @returns the interpreter's path, once the packages are there */
export async function installPython(work: Work): Promise<string> {
  const requirements = work.path("requirements.txt");
  const hash = new Bun.CryptoHasher("sha256").update(await Bun.file(requirements).bytes()).digest("hex");
  const uv = (what: string, ...args: readonly string[]) =>
    runUv(what, args, { env: pythonEnvironment(), onStart: () => {} });
  const environment = await work.keep(`python-${hash.slice(0, 16)}`, async (path) => {
    await uv("make a virtual environment", "venv", "--no-project", "--python", stockPython, path);
    const interpreter = join(path, "bin/python");
    await uv(
      "install what a generated client imports",
      ...["pip", "install", "--python", interpreter, "--no-deps", "--require-hashes", "--requirements", requirements],
    );
  });
  return join(environment, "bin/python");
}
