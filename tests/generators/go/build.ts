/** How tools in Go are got, and how the drivers are compiled. */

import { readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Need } from "../row.ts";
import type { Work } from "../work.ts";

export const needsGo: Need = { command: "go", version: ["version"], want: "Go 1.26 or newer" };

/** No newer Go is fetched, and no package that the row's `go.mod` and `go.sum` do not pin. */
const env = { GOTOOLCHAIN: "local", GOFLAGS: "-mod=readonly" };

/** @returns the path of a program that is a Go package of this version, once it is there */
export function installGo(work: Work, programPackage: string, version: string): Promise<string> {
  const name = programPackage.slice(programPackage.lastIndexOf("/") + 1);
  return work.keep(`${name}-${version}`, async (path) => {
    const folder = `${path}.bin`;
    await work.run(["go", "install", `${programPackage}@v${version}`], { env: { ...env, GOBIN: folder } });
    for (const program of readdirSync(folder)) renameSync(join(folder, program), path);
    rmSync(folder, { recursive: true });
  });
}

export async function buildGo(work: Work): Promise<void> {
  await work.run(["go", "vet", "."], { env });
  await work.run(["go", "build", "-o", "driver", "."], { env });
}
