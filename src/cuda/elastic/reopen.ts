/**
 * Elastic pools after a restart: rows say what there was, and what the fd holder kept of it comes back. The rest is lost, and said to be; what no row
 * tells of is freed.
 */

import type { ElasticContent, ElasticRunRow } from "../../memory/journal/elastic-rows.ts";
import { ensureModel } from "../../memory/start/revive.ts";
import { idOfPool } from "../../memory/state/elastic.ts";
import type { Store } from "../../memory/state/store.ts";
import type { Memfds } from "../../memory/storage/memfd/memfds.ts";
import { parsePageName } from "../device-pages.ts";
import { LeaseFiles, parseLeaseName } from "./lease-files.ts";
import { PageHost } from "./page-host.ts";
import { PoolBooks } from "./pool-books.ts";
import { DeviceElasticPools } from "./pools.ts";
import { ElasticRun } from "./run.ts";
import { ElasticWorker, findLockedSlots } from "./worker.ts";

export async function reopenPools(
  store: Store,
  memfds: Memfds,
  content: readonly ElasticContent[],
): Promise<DeviceElasticPools> {
  const leases = new LeaseFiles(store.instance, memfds);
  const host = new PageHost(store.storages);
  const pools = new DeviceElasticPools(store, host, leases);
  const revived: PoolBooks[] = [];
  const absent = new Set<string>();
  for (const { pool: row, runs } of content) {
    const memory = host.findAny(row.deviceUuid);
    if (memory === undefined) {
      store.warn(`Cannot bring back elastic pool ${idOfPool(row)}: its device is not here; its row stays`, undefined);
      absent.add(row.token);
      continue;
    }
    const leaseFd = leases.find(row.token) ?? (await leases.create(row.token));
    const pool = new PoolBooks(row, ensureModel(store, row.model), memory, leaseFd);
    const { kept, lost } = sift(pool, runs);
    if (lost.length > 0) {
      store.journal.freeElastic(pool.key, { drop: runs.map(({ firstPage }) => firstPage), put: kept });
    }
    const toRun = (facts: ElasticRunRow) => new ElasticRun(pool, facts, pools.evict);
    pools.revive(pool, kept.map(toRun));
    attachUnknown(pool);
    revived.push(pool);
    if (lost.length === 0) continue;
    const told = lost.map((facts) => toRun(facts).toRun());
    store.emit({ type: "tensord.vmm.unmapped", elastic: pool, runs: told, reason: "lost", actor: undefined });
  }
  const isPool = (token: string) => absent.has(token) || pools.findByToken(token) !== undefined;
  await freeStrays(memfds, host, isPool, revived);
  for (const pool of revived) pools.endAbandoned(pool);
  return pools;
}

/** Runs as what is there of them, and as what is not. */
function sift(pool: PoolBooks, runs: readonly ElasticRunRow[]): { kept: ElasticRunRow[]; lost: ElasticRunRow[] } {
  const kept: ElasticRunRow[] = [];
  const lost: ElasticRunRow[] = [];
  for (const run of runs) {
    let part: { list: ElasticRunRow[]; from: number } | undefined;
    const end = (to: number) => {
      if (part === undefined) return;
      const { list, from } = part;
      list.push({ ...run, index: run.index + from, count: to - from, firstPage: run.firstPage + from });
    };
    for (let each = 0; each < run.count; each++) {
      const isThere = pool.memory.find(pool.toPageName(run.firstPage + each), pool.pageSize);
      const list = isThere ? kept : lost;
      if (part?.list === list) continue;
      end(each);
      part = { list, from: each };
    }
    end(run.count);
  }
  return { kept, lost };
}

/** Who holds a slot is a worker that may have anything, until it says what it has. */
function attachUnknown(pool: PoolBooks): void {
  for (const slot of findLockedSlots(pool.leaseFd)) {
    const worker = new ElasticWorker(pool, slot);
    pool.workers.set(slot, worker);
    for (const page of pool.runOf.keys()) pool.addTaken(worker, page);
  }
}

/** Pages that the last server was making, or giving back, and lease files of pools that are none. */
async function freeStrays(
  memfds: Memfds,
  host: PageHost,
  isPool: (token: string) => boolean,
  revived: readonly PoolBooks[],
): Promise<void> {
  const byToken = new Map(revived.map((pool) => [pool.token, pool]));
  for (const name of memfds.others) {
    const page = parsePageName(name);
    const token = page?.pool ?? parseLeaseName(name);
    if (token === undefined) continue;
    const isKnown = page === undefined ? isPool(token) : (byToken.get(token)?.runOf.has(page.page) ?? isPool(token));
    if (isKnown) continue;
    await memfds.holder?.drop(name);
    const fd = memfds.takeOther(name);
    if (fd !== undefined) await host.close(fd);
  }
  await host.letNodesGo();
}
