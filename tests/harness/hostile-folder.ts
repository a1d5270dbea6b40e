/** A folder whose files would change or stop a program of the runtime that obeys the folder it is started in. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";

/** Puts them into `folder`. */
export function makeHostile(folder: string): void {
  const files = {
    ".env": "TENSORD_MEMORY_LIMIT=1MiB\nTENSORD_LOG_LEVEL=nonsense\n",
    "bunfig.toml": 'preload = ["./preload.ts"]\n',
    "preload.ts": 'throw new Error("the preload of a stranger ran");\n',
    "package.json": "{ this is no JSON",
    "tsconfig.json": "{ nor is this",
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
}
