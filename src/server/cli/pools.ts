/** Pools as the command line shows them: host memory by itself, devices beside it. */

import { hostPool } from "../../memory/naming.ts";

/** What is shown of the pool of host memory, which is always among them. */
export function hostOf<Pool extends { readonly pool: string }>({ pools }: { readonly pools: readonly Pool[] }): Pool {
  const host = pools.find(({ pool }) => pool === hostPool);
  if (host === undefined) throw new RangeError(`the answer has no pool ${hostPool}`);
  return host;
}
