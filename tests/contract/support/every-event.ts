/** Requests and accidents by which a real server tells every type of event that is kept, `tensord.region.lost` last. */

import { unlinkSync } from "node:fs";
import { join } from "node:path";
import { tokenOf } from "../../harness/instance.ts";
import type { TestServer } from "../../harness/server.ts";
import { until } from "../../harness/server-wait.ts";
import { lease } from "./lease.ts";

/** What `provokeEveryEvent` has a server tell that has a device, and no other. */
export const deviceEvents: readonly string[] = ["tensord.vmm.mapped", "tensord.vmm.unmapped", "tensord.vmm.moved"];

/** The server's log warns of what was relinked and what was lost. */
export async function provokeEveryEvent({ api, instance }: TestServer): Promise<void> {
  await api.call("POST", "/v1/models", { name: "llama-7b" });
  await api.call("PATCH", "/v1/models/llama-7b", { memory_limit_bytes: 2 ** 20 });
  await api.call("DELETE", "/v1/models/llama-7b");
  const session = await api.call<{ id: string }>("POST", "/v1/sessions", { name: "trainer", ttl_ms: 600_000 });
  await api.call("DELETE", `/v1/sessions/${session.id}`);
  // Its data and its header take all of a pool of two pages, and so more than what is told of.
  await api.call("POST", "/v1/models", { name: "small", memory_limit_bytes: 8192 });
  await api.delete((await api.create({ model: "small", byte_size: 1, ttl_ms: 600_000 })).id);
  const { id, storage } = await api.create({ name: "weights", byte_size: 1, persist: true });
  await api.call("PATCH", `/v1/regions/${id}`, { ttl_ms: 600_000, labels: { job: "nightly" } });
  await api.seal(id, { checksum: true });
  const copy = await api.call<{ id: string }>("POST", `/v1/regions/${id}/copy`, { ttl_ms: 600_000 });
  await until("the copy has ended", async () => {
    const { ended_at: endedAt } = await api.call<{ ended_at: string | null }>("GET", `/v1/operations/${copy.id}`);
    return endedAt !== null;
  });
  {
    using _ = lease(storage.path);
    await api.delete(id);
  }
  await api.untilGone(id);
  await provokePoolEvents(api);
  const nameless = await api.create({ byte_size: 1, ttl_ms: 600_000 });
  unlinkSync(nameless.storage.path);
  await api.get(nameless.id);
  unlinkSync(join(instance.keep, tokenOf(nameless.id)));
  unlinkSync(nameless.storage.path);
  await api.untilGone(nameless.id);
}

/** On the first device that can be used, if there is one. */
async function provokePoolEvents(api: TestServer["api"]): Promise<void> {
  const { items } = await api.call<{ items: { uuid: string; usable: boolean }[] }>("GET", "/v1/devices");
  const device = items.find(({ usable }) => usable);
  if (device === undefined) return;
  const path = `/v1/models/default/vmm/${device.uuid}`;
  const page = 2 ** 21;
  await api.call("PUT", path, { virtual_capacity: 8 * page, page_size: page });
  await api.call("POST", `${path}/map`, { byte_offset: page, byte_size: page });
  await api.call("POST", `${path}/compact`);
  await api.call("DELETE", path);
}
