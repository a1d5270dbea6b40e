/** Metrics of elastic pools: their sums, read when they are asked for, and how often pages came, went and moved. */

import Counter from "prom-client/lib/counter.js";
import Gauge from "prom-client/lib/gauge.js";
import type Registry from "prom-client/lib/registry.js";
import type { Store } from "../memory/state/store.ts";

/** The pools made first have series of their own; all others are summed under one name. */
const shownPools = 100;
const others = "_other";

const kinds = ["virtual", "physical", "mapped", "unreleased", "stuck"] as const;
type Sums = Record<(typeof kinds)[number], number>;

const changes = {
  "tensord.vmm.mapped": "mapped",
  "tensord.vmm.unmapped": "unmapped",
  "tensord.vmm.moved": "moved",
} as const;

export function defineElasticMetrics(registry: Registry, store: Store): () => void {
  const bytes = new Gauge({
    name: "tensord_vmm_bytes",
    help: "Bytes of a model's elastic pool on a device by kind: virtual, physical (all that is charged for pages), mapped, unreleased, stuck.",
    labelNames: ["model", "device", "kind"],
    registers: [registry],
  });
  const changed = new Counter({
    name: "tensord_vmm_changes_total",
    help: "Times that pages of an elastic pool were mapped, announced to be unmapped, and moved.",
    labelNames: ["kind"],
    registers: [registry],
  });
  for (const kind of Object.values(changes)) changed.inc({ kind }, 0);
  store.listen((event) => {
    if ("elastic" in event) changed.inc({ kind: changes[event.type] });
  });
  return function update() {
    bytes.reset();
    for (const [[model, device], sums] of sumPools(store)) {
      for (const kind of kinds) bytes.set({ model, device, kind }, sums[kind]);
    }
  };
}

/** By model and device. */
function sumPools({ elastic }: Store): [readonly [model: string, device: string], Sums][] {
  const owed = new Map<string, Pick<Sums, "unreleased" | "stuck">>();
  for (const { pool, isStuck, byteSize } of elastic.owed) {
    const sum = owed.getOrInsertComputed(pool.token, () => ({ unreleased: 0, stuck: 0 }));
    sum[isStuck ? "stuck" : "unreleased"] += byteSize;
  }
  const all: [readonly [string, string], Sums][] = [];
  const rest = new Map<string, Sums>();
  for (const pool of elastic.after(0)) {
    const { physicalBytes, mappedBytes } = elastic.figures(pool);
    const { unreleased, stuck } = owed.get(pool.token) ?? { unreleased: 0, stuck: 0 };
    const sums = { virtual: pool.virtualCapacity, physical: physicalBytes, mapped: mappedBytes, unreleased, stuck };
    if (all.length < shownPools) all.push([[pool.model.name, pool.deviceUuid], sums]);
    else {
      const sum = rest.getOrInsertComputed(pool.deviceUuid, () => ({
        virtual: 0,
        physical: 0,
        mapped: 0,
        unreleased: 0,
        stuck: 0,
      }));
      for (const kind of kinds) sum[kind] += sums[kind];
    }
  }
  return [...all, ...[...rest].map(([device, sums]): [readonly [string, string], Sums] => [[others, device], sums])];
}
