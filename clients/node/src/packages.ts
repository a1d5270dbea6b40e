/**
 * The packages that this one needs at run time, loaded when they are first used and not with an `import`: so that a program
 * can be imported where nothing is mapped, and that bundlers leave them where they are. koffi finds its binary beside
 * itself, and ws is CommonJS, which a bundle of modules cannot load.
 */

import Module from "node:module";
import { isAbsolute } from "node:path";
import type koffi from "koffi";
import type { WebSocket } from "ws";
import { isOutOfDescriptors, outOfDescriptors } from "./descriptors.ts";
import { TensordError } from "./errors.ts";

const name = "@tensord/client";

/** @throws TensordError `feature-unavailable`, `out-of-descriptors` */
export function loadKoffi(): typeof koffi {
  return load("koffi");
}

/** Where koffi is, for a thread that loads it by itself. @throws TensordError `feature-unavailable`, `out-of-descriptors` */
export function resolveKoffi(): string {
  return search("koffi", (find) => find.resolve("koffi"));
}

/** @throws TensordError `feature-unavailable` */
export function loadWebSocket(): typeof WebSocket {
  return load<{ readonly WebSocket: typeof WebSocket }>("ws").WebSocket;
}

function load<Package>(wanted: string): Package {
  return search(wanted, (find) => find(wanted) as Package);
}

function search<Found>(wanted: string, take: (find: NodeJS.Require) => Found): Found {
  const failures: unknown[] = [];
  for (const place of places()) {
    // From here, or, where this is part of a bundle, from what is installed beside the bundle.
    for (const find of [() => requireAt(place), () => requireAt(requireAt(place).resolve(name))]) {
      try {
        return take(find());
      } catch (error) {
        failures.push(error);
      }
    }
  }
  const exhausted = failures.find(
    (failure) => isOutOfDescriptors(failure) || /too many open files/i.test(String(failure)),
  );
  if (exhausted !== undefined) throw outOfDescriptors(`load the package ${wanted}`, exhausted);
  const cause = failures.find((failure) => !isAbsent(failure)) ?? failures[0];
  const found = isAbsent(cause) ? `is not installed beside ${places()[0]}` : `does not load (${firstLine(cause)})`;
  throw new TensordError("feature-unavailable", `Cannot use tensord: the package ${wanted} ${found}`, {
    hint: `install koffi and ws beside the program, and let the bundler leave them out; see "Bundlers" in the README of ${name}`,
    cause,
  });
}

/** Not by the function's own name, under which webpack takes it for its own. */
const requireAt = (place: string) => Module.createRequire(place);

/** Where to look from: this file, as far as a bundler lets it know its place, and the program. */
function places(): string[] {
  const commonJs = typeof __filename === "string" ? __filename : undefined;
  const module: string | undefined = import.meta.url;
  return [commonJs, module, process.argv[1]].filter(
    (place) => place !== undefined && (place.startsWith("file:") || isAbsolute(place)),
  ) as string[];
}

function isAbsent(error: unknown): boolean {
  return ["MODULE_NOT_FOUND", "ERR_MODULE_NOT_FOUND"].includes((error as NodeJS.ErrnoException).code ?? "");
}

function firstLine(error: unknown): string {
  return String(error).split("\n", 1)[0] ?? "";
}
