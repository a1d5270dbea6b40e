/** Metrics of what lies ready for regions to come: whether it was there when it was wanted, and of which pages it is. */

import Counter from "prom-client/lib/counter.js";
import type Registry from "prom-client/lib/registry.js";
import type { Reserve } from "../memory/storage/shm/reserve/reserve.ts";

export function defineReserveMetrics(registry: Registry, { counts }: Pick<Reserve, "counts">): () => void {
  const counter = <Label extends string = never>(name: string, help: string, ...labelNames: Label[]) =>
    new Counter<Label>({ name, help, labelNames, registers: [registry] });
  const hits = counter(
    "tensord_reserve_hits_total",
    "Regions made of a segment that lay ready, by its class.",
    "class",
  );
  const misses = counter("tensord_reserve_misses_total", "Regions for which none lay ready, by class.", "class");
  const refills = counter("tensord_reserve_refills_total", "Segments that were made ready.");
  const chunks = counter(
    "tensord_reserve_chunks_total",
    "Chunks of 2 MiB, of segments and of sealed regions, of which a huge page was to be made, by the pages that they have now.",
    "pages",
  );
  const givenBack = counter("tensord_reserve_given_back_bytes_total", "Bytes given back because others needed them.");
  return function update() {
    for (const each of [hits, misses, refills, chunks, givenBack]) each.reset();
    for (const kind of ["small", "huge"] as const) {
      hits.inc({ class: kind }, counts.hits[kind]);
      misses.inc({ class: kind }, counts.misses[kind]);
    }
    refills.inc(counts.refills);
    chunks.inc({ pages: "huge" }, counts.hugeChunks);
    chunks.inc({ pages: "small" }, counts.smallChunks);
    givenBack.inc(counts.givenBackBytes);
  };
}
