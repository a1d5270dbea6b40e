/** How the drivers in TypeScript are compiled: with the TypeScript that the generators have, and to JavaScript for Node. */

import { join } from "node:path";
import { root } from "../../harness/instance-needs.ts";
import type { Work } from "../work.ts";

/** The generators in TypeScript, and a TypeScript on which they run. */
export const generatedBin = join(root, "tests/generated/node_modules/.bin");

export const compileTypeScript = (work: Work): Promise<string> =>
  work.run([join(generatedBin, "tsc"), "--project", "."]);
