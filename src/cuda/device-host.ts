/**
 * The devices of this host, for one server: looked for while it serves already, since a driver may take its time to start, or hang. A host without a
 * driver pays for it with one look of the loader.
 */

import { existsSync } from "node:fs";
import { TensordError } from "../memory/error.ts";
import type { DeviceReport } from "../memory/host/device.ts";
import { limits } from "../memory/limits.ts";
import type { MoreStorages, StorageParts } from "../memory/start/open-store.ts";
import type { FoundDevices } from "../memory/storage/storages.ts";
import { Copiers } from "./copiers.ts";
import type { DriverDevice, DriverLook, UsableDevice } from "./device-calls.ts";
import { DeviceLane, type LaneOptions } from "./device-lane.ts";
import { DeviceState } from "./device-state.ts";
import { DeviceStorage } from "./device-storage.ts";
import { readDevices } from "./devices.ts";
import { NoDriver } from "./driver-error.ts";
import { reopenPools } from "./elastic/reopen.ts";
import { type DriverAnswer, judgeDriverDevice } from "./judge-device.ts";
import { openLibcuda } from "./libcuda.ts";
import { mergeDevices } from "./merge-devices.ts";
import { NvmlLane } from "./nvml-lane.ts";

export interface DeviceOptions extends LaneOptions {
  /** The path of a device's node in /dev; tests have another. */
  readonly nodeOf?: (uuid: string) => string | undefined;
  /** Where the kernel's driver has its files; tests have another. */
  readonly kernelFolder?: string | undefined;
}

/** Its memory is nowhere in the instance's directory. */
type Parts = Omit<StorageParts, "directory">;

const asked = "the CUDA driver has not answered yet which devices there are";

export class DeviceHost implements Disposable {
  readonly #options: DeviceOptions;
  readonly #answerMs: number;
  readonly #nvml = new NvmlLane();
  readonly #askedAt = performance.now();
  /** undefined: not yet. */
  #answer: Exclude<DriverAnswer, { readonly state: "asked" }> | undefined;

  constructor(options: DeviceOptions = {}) {
    this.#options = options;
    this.#answerMs = options.answerMs ?? limits.driverAnswerMs;
  }

  /** Begins to look. Never throws: without a device the server is whole but for that. */
  open(parts: Parts): MoreStorages {
    return { ...this.#open(parts), openElastic: (store, rows) => reopenPools(store, parts.memfds, rows) };
  }

  #open(parts: Parts): MoreStorages {
    const absence = this.#findLibrary();
    // No thread is started for a driver that is not there, unless there is something to let go of.
    if (absence !== undefined && parts.formerDevices.length === 0)
      return { storages: [], absences: { cuda_vmm: absence } };
    const lane = new DeviceLane(this.#options);
    const states = new Map(
      parts.formerDevices.map((uuid) => [uuid, new DeviceState(uuid, { isForNow: true, reason: asked })]),
    );
    const copiers = new Copiers(this.#options);
    const lanes = new DisposableStack();
    lanes.use(lane);
    lanes.use(copiers);
    const toStorage = (state: DeviceState) => this.#toStorage(state, lane, copiers, parts);
    const former = [...states.values()].map(toStorage);
    if (absence !== undefined) {
      for (const state of states.values()) state.withhold({ isForNow: false, reason: absence });
      return { storages: former, lanes, absences: { cuda_vmm: absence }, start: () => lane.start() };
    }
    const found = this.#find(lane, states, toStorage, parts.onWarning);
    return {
      storages: former,
      lanes,
      awaited: { reason: asked, found },
      start: async () => {
        await Promise.all([lane.start(), this.#nvml.start()]);
      },
    };
  }

  /** Why there is no library, in the loader's words. */
  #findLibrary(): string | undefined {
    try {
      openLibcuda();
      return undefined;
    } catch (error) {
      const reason = error instanceof NoDriver ? error.reason : "failed";
      const { message } = error as Error;
      this.#answer = { state: "absent", reason, message };
      return message;
    }
  }

  async #find(
    lane: DeviceLane,
    states: ReadonlyMap<string, DeviceState>,
    toStorage: (state: DeviceState) => DeviceStorage,
    onWarning: StorageParts["onWarning"],
  ): Promise<FoundDevices> {
    const warn = () =>
      onWarning(`The CUDA driver has not answered for ${this.#answerMs} ms; host memory is served`, undefined);
    const timer = setTimeout(warn, this.#answerMs);
    timer.unref();
    try {
      return this.#settle(await this.#ask(lane), states, toStorage);
    } catch (error) {
      const { message } = error as Error;
      if (!(error instanceof NoDriver || error instanceof TensordError)) onWarning("Cannot use device memory", error);
      for (const state of states.values()) state.withhold({ isForNow: false, reason: message });
      return { storages: [], absence: message, refusals: new Map() };
    } finally {
      clearTimeout(timer);
    }
  }

  /** @throws as `DeviceLane.look`. */
  async #ask(lane: DeviceLane): Promise<DriverLook> {
    try {
      const look = await lane.look();
      this.#answer = { state: "answered", look };
      return look;
    } catch (error) {
      const reason = error instanceof NoDriver ? error.reason : "failed";
      this.#answer = { state: "absent", reason, message: (error as Error).message };
      throw error;
    }
  }

  #settle(
    look: DriverLook,
    states: ReadonlyMap<string, DeviceState>,
    toStorage: (state: DeviceState) => DeviceStorage,
  ): FoundDevices {
    const usable = look.devices.flatMap((device) => toUsable(device) ?? []);
    for (const state of states.values()) {
      state.withhold({ isForNow: false, reason: "the driver does not show it to this server" });
    }
    const refusals = new Map<string, string>();
    for (const device of look.devices) {
      const refusal = judgeDriverDevice(device);
      if (refusal === null) continue;
      refusals.set(device.uuid, toEnd(refusal.detail));
      states.get(device.uuid)?.withhold({ isForNow: false, reason: toEnd(refusal.detail) });
    }
    for (const device of usable) states.get(device.uuid)?.use(device);
    const others = usable.filter(({ uuid }) => !states.has(uuid));
    const none = [...refusals].map(([uuid, reason]) => `${uuid}: ${reason}`).join("; ");
    return {
      storages: others.map((device) => toStorage(new DeviceState(device.uuid, device))),
      absence: usable.length > 0 ? undefined : `no device can be used (${none})`,
      refusals,
    };
  }

  #toStorage(state: DeviceState, lane: DeviceLane, copiers: Copiers, { memfds, onStep }: Parts): DeviceStorage {
    const nodeOf = this.#options.nodeOf ?? ((uuid) => this.#findNode(uuid));
    return new DeviceStorage(state, lane, copiers, memfds, nodeOf(state.uuid), onStep);
  }

  #findNode(uuid: string): string | undefined {
    const minor = readDevices(this.#options.kernelFolder).devices.find((device) => device.uuid === uuid)?.minor ?? null;
    return minor === null ? undefined : toNode(minor);
  }

  /** All devices as of now, and how much of them is free if NVML says so. */
  async report(): Promise<DeviceReport> {
    const kernel = readDevices(this.#options.kernelFolder);
    const answer = this.#answer ?? { state: "asked", forMs: performance.now() - this.#askedAt };
    const visible = process.env.CUDA_VISIBLE_DEVICES;
    const hasNode = (minor: number) => existsSync(toNode(minor));
    const circumstances = { answer, kernel: kernel.devices, answerMs: this.#answerMs, visible, hasNode };
    const report = mergeDevices(kernel, circumstances);
    if (answer.state === "absent" && answer.reason === "no-libcuda") return report;
    const nvml = await this.#nvml.look(report.devices.flatMap(({ uuid }) => uuid ?? []));
    return mergeDevices(kernel, circumstances, nvml);
  }

  /** The same for who has no server: asks the driver, and waits for `patienceMs` at most. */
  async reportAlone(patienceMs: number): Promise<DeviceReport> {
    if (this.#findLibrary() !== undefined) return await this.report();
    using lane = new DeviceLane(this.#options);
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, patienceMs);
    // What it fails with is in the report.
    await Promise.race([this.#ask(lane).catch(() => {}), late]);
    clearTimeout(timer);
    return await this.report();
  }

  [Symbol.dispose](): void {
    this.#nvml[Symbol.dispose]();
  }
}

function toNode(minor: number): string {
  return `/dev/nvidia${minor}`;
}

function toUsable(device: DriverDevice): UsableDevice | undefined {
  const { granularity } = device;
  return judgeDriverDevice(device) === null && granularity !== null ? { ...device, granularity } : undefined;
}

/** A sentence as the end of another. */
function toEnd(sentence: string): string {
  return sentence.charAt(0).toLowerCase() + sentence.slice(1).replace(/\.$/, "");
}
