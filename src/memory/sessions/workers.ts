/** How many processes use each model: a pass over what is mapped and leased now, for people who ask. */

import type { Model, Region } from "../state/region.ts";
import type { Session } from "../state/session.ts";
import type { Store } from "../state/store.ts";

/** Models of which no region is in use are left out. Who maps without a session is known to nobody. */
export function countWorkers(store: Pick<Store, "holders" | "requestedLeases">): ReadonlyMap<Model, number> {
  const processes = new Map<Model, Set<string>>();
  const add = ({ modelBooks }: Region, process: string) => {
    const known = processes.get(modelBooks) ?? new Set();
    processes.set(modelBooks, known.add(process));
  };
  for (const [region, sessions] of store.holders.all()) {
    for (const session of sessions.keys()) add(region, toProcess(session));
  }
  for (const { region, session, token } of store.requestedLeases.all()) {
    add(region, session === null ? token : toProcess(session));
  }
  return new Map([...processes].map(([model, { size }]) => [model, size]));
}

/** Two clients of one process are one worker, as far as the processes are known. */
function toProcess({ client, token }: Session): string {
  const { pid = null, pidNamespace = null, namespacePid = null } = client ?? {};
  if (pid !== null) return String(pid);
  return namespacePid === null ? token : `${pidNamespace} ${namespacePid}`;
}
