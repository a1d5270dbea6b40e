/** Metrics of the process: prom-client's own ones are wrong under Bun where they look into the heap, so these do not. */

import { setImmediate } from "node:timers/promises";
import Counter from "prom-client/lib/counter.js";
import Gauge from "prom-client/lib/gauge.js";
import type Registry from "prom-client/lib/registry.js";
import { listDirectory } from "../memory/os/files.ts";

export function defineProcessMetrics(registry: Registry): () => Promise<void> {
  const gauge = (name: string, help: string) => new Gauge({ name, help, registers: [registry] });
  const start = gauge("tensord_process_start_time_seconds", "When the process started, in seconds since the epoch.");
  const resident = gauge("tensord_process_resident_memory_bytes", "Memory of the process, shared pages included.");
  const openFiles = gauge("tensord_process_open_fds", "Open file descriptors.");
  const lag = gauge("tensord_event_loop_lag_seconds", "How long the event loop took to come round, just now.");
  const cpu = new Counter({
    name: "tensord_process_cpu_seconds_total",
    help: "Processor time of all threads, user and system.",
    registers: [registry],
  });
  start.set((Date.now() - performance.now()) / 1000);
  return async function update() {
    const before = performance.now();
    await setImmediate();
    lag.set((performance.now() - before) / 1000);
    const { user, system } = process.cpuUsage();
    cpu.reset();
    cpu.inc((user + system) / 1e6);
    resident.set(process.memoryUsage.rss());
    openFiles.set(listDirectory("/proc/self/fd").length);
  };
}
