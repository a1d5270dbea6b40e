/**
 * A card for tests of elastic pools in one process: a page of it is a memfd with a name of its own, so that who has it can be seen, and its driver
 * fails where a test says so. How the real binding is called is seen on the stand-in driver.
 */

import { closeSync, ftruncateSync, readdirSync, readlinkSync } from "node:fs";
import type { UsableDevice } from "../../src/cuda/device-calls.ts";
import type { DeviceDriver } from "../../src/cuda/device-lane.ts";
import { DeviceState } from "../../src/cuda/device-state.ts";
import { DeviceStorage } from "../../src/cuda/device-storage.ts";
import { reopenPools } from "../../src/cuda/elastic/reopen.ts";
import { type FailureCode, TensordError } from "../../src/memory/error.ts";
import { MiB } from "../../src/memory/limits.ts";
import { duplicateDescriptor } from "../../src/memory/os/libc.ts";
import { createMemfd } from "../../src/memory/os/libc-memory.ts";
import type { MoreStorages, StorageParts } from "../../src/memory/start/open-store.ts";

export const trialDevice: UsableDevice = {
  uuid: "GPU-7a1a1000-0000-4000-8000-000000000000",
  name: "trial",
  ordinal: 0,
  totalBytes: 64 * MiB,
  granularity: 2 * MiB,
};

export type TrialCall = "create" | "export" | "release";

let cards = 0;

export class TrialCard {
  readonly device: UsableDevice;
  /** Whether a call fails, asked at each. */
  fails: (call: TrialCall) => boolean = () => false;
  /** What a call fails with. */
  failure: FailureCode = "io-error";
  /** Waits in place of a driver that takes its time. */
  pause: () => Promise<void> = async () => {};
  /** Pages that were given back though somebody had them: there must be none. */
  readonly pulled: string[] = [];
  readonly #name: string;
  readonly #sizes = new Map<string, number>();
  #made = 0;

  constructor(device = trialDevice) {
    this.device = device;
    cards += 1;
    this.#name = `trial-${process.pid}-${cards}`;
  }

  /** Names of pages that somebody has: the driver, the fd holder, a worker. All of them are in this process. */
  get pages(): Set<string> {
    return new Set(this.#descriptors());
  }

  #descriptors(): string[] {
    return readdirSync("/proc/self/fd").flatMap((fd) => nameOf(Number(fd), this.#name) ?? []);
  }

  /** What a server of it is opened with. */
  get storages(): (parts: StorageParts) => MoreStorages {
    return ({ memfds }) => {
      const state = new DeviceState(this.device.uuid, this.device);
      const copier = { run: async () => [], [Symbol.dispose]: () => {} };
      return {
        storages: [new DeviceStorage(state, this.#openDriver(), copier, memfds, undefined)],
        openElastic: (store, rows) => reopenPools(store, memfds, rows),
      };
    };
  }

  #openDriver(): DeviceDriver {
    const handles = new Set<bigint>();
    let isOver = false;
    const call = async (name: TrialCall) => {
      await this.pause();
      if (isOver) throw new TensordError("shutting-down", `Cannot ${name}: the server stops`, { hint: "Ask again." });
      if (this.fails(name))
        throw new TensordError(this.failure, `Cannot ${name}: the test says so`, { hint: "Ask again." });
    };
    const close = (fd: number) => {
      this.#lookAtRelease(fd);
      closeSync(fd);
    };
    return {
      create: async (_, byteSize, signal) => {
        await call("create");
        signal.throwIfAborted();
        const used = [...this.pages].reduce((sum, name) => sum + (this.#sizes.get(name) ?? 0), 0);
        if (used + byteSize > this.device.totalBytes) {
          const facts = { requested_bytes: byteSize, hint: "Unmap pages." };
          throw new TensordError("out-of-device-memory", "Cannot allocate: the card is full", facts);
        }
        this.#made += 1;
        const fd = createMemfd(`${this.#name}.${this.#made}`);
        ftruncateSync(fd, 4096);
        this.#sizes.set(nameOf(fd, this.#name) ?? "", byteSize);
        handles.add(BigInt(fd));
        return BigInt(fd);
      },
      export: async (_, handle) => {
        await call("export");
        return duplicateDescriptor(Number(handle));
      },
      release: async (_, handle) => {
        await call("release");
        if (handles.delete(handle)) close(Number(handle));
      },
      close: async (fd) => close(fd),
      within: (_, work) => work,
      [Symbol.dispose]: () => {
        isOver = true;
        for (const fd of handles) closeSync(Number(fd));
        handles.clear();
      },
    };
  }

  /** Before the last descriptor of the server's is closed: nobody else may have one. */
  #lookAtRelease(fd: number): void {
    const name = nameOf(fd, this.#name);
    if (name === undefined) return;
    if (this.#descriptors().filter((each) => each === name).length > 1) this.pulled.push(name);
  }
}

/** The page that a descriptor is of. */
function nameOf(fd: number, card: string): string | undefined {
  try {
    const link = readlinkSync(`/proc/self/fd/${fd}`);
    return link.startsWith(`/memfd:${card}.`) ? link : undefined;
  } catch {
    // Closed meanwhile: it was the one that listed them.
    return undefined;
  }
}
