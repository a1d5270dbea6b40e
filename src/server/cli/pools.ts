/** Pools as the command line shows them: host memory by itself, devices beside it. */

import { TensordError } from "../../memory/error.ts";
import { hostPool } from "../../memory/naming.ts";

/** What is shown of the pool of host memory, which is always among them. */
export function hostOf<Pool extends { readonly pool: string }>({ pools }: { readonly pools: readonly Pool[] }): Pool {
  const host = pools?.find(({ pool }) => pool === hostPool);
  if (host === undefined) {
    throw new TensordError("internal", `Cannot read the answer: it has no pool ${hostPool}`, {
      hint: "Is a tensord server there, of this version? See --url and TENSORD_URL.",
    });
  }
  return host;
}

/** The pools of devices: none where no device can be used. */
export function devicesOf<Pool extends { readonly pool: string }>({
  pools,
}: {
  readonly pools: readonly Pool[];
}): Pool[] {
  return pools.filter(({ pool }) => pool !== hostPool);
}
