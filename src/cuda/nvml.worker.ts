/** The Worker that asks NVML, apart from the driver's: either may hang. It decides nothing. */

import { Nvml } from "./nvml.ts";
import type { NvmlJob, NvmlReply } from "./nvml-calls.ts";

declare const self: Worker;

let nvml: Nvml | undefined;

self.onmessage = (event: MessageEvent<NvmlJob>) => {
  self.postMessage(run(event.data));
};

function run(uuids: NvmlJob): NvmlReply {
  if (uuids === null) return [];
  try {
    nvml ??= Nvml.open();
  } catch {
    // Not here: many containers have the driver's library alone.
    return [];
  }
  const asked = nvml;
  return uuids.flatMap((uuid) => {
    const device = asked?.look(uuid);
    return device === undefined ? [] : [[uuid, device] as const];
  });
}
