/** `leases`: who keeps a region by request, one lease a line. Kernel locks are not among them: `ls --holders` shows those. */

import type { Lease } from "./answers.ts";
import type { Api } from "./api.ts";
import { toJson, toSpan, toTable } from "./table.ts";
import { toId } from "./target.ts";

export async function leases(api: Api, target: string, asJson: boolean): Promise<string> {
  const id = await toId(api, target, "list the leases of");
  const found = await Array.fromAsync(api.list<Lease>(`/v1/regions/${id}/leases`));
  if (asJson) return toJson(found);
  if (found.length === 0) return "no leases by request";
  const rows = found.map(({ id: lease, session, expires_at, ttl_ms }) => [
    lease,
    session ?? "-",
    toSpan(ttl_ms),
    `in ${toSpan(Math.max(0, Date.parse(expires_at) - Date.now()))}`,
  ]);
  return toTable(["LEASE", "SESSION", "TTL", "ENDS"], rows);
}
