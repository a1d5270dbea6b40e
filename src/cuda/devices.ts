/**
 * The GPUs that the NVIDIA kernel driver shows in `/proc/driver/nvidia`. It makes no CUDA call, so it says nothing about
 * what a process may use: only what the driver lists, where a container's runtime may have hidden some.
 */

import { listIfThere, readTextIfThere } from "../memory/os/files.ts";

const root = "/proc/driver/nvidia";

/** A GPU as the kernel driver shows it. */
export interface KernelDevice {
  /** null while the driver does not tell. */
  readonly uuid: string | null;
  readonly name: string;
  /** Its PCI address. */
  readonly busId: string;
  /** N of `/dev/nvidia<N>`. */
  readonly minor: number | null;
  /** The driver was told to leave it alone. */
  readonly excluded: boolean;
}

export interface KernelReport {
  readonly devices: readonly KernelDevice[];
  readonly driverVersion: string | null;
  /** Why there is none, in a sentence; null if there is one. */
  readonly reason: string | null;
}

/** @param from where the driver's files are; another place in tests. */
export function readDevices(from: string = root): KernelReport {
  const version = readTextIfThere(`${from}/version`);
  if (version === undefined) {
    return {
      devices: [],
      driverVersion: null,
      reason: `No NVIDIA kernel driver is loaded here: ${from} is not there.`,
    };
  }
  const folders = listIfThere(`${from}/gpus`).toSorted();
  const texts = folders.map((folder) => readTextIfThere(`${from}/gpus/${folder}/information`));
  const devices = texts.flatMap((text) => parseInformation(text ?? "") ?? []);
  const reason = devices.length === 0 ? "The NVIDIA kernel driver is loaded and lists no GPU here." : null;
  return { devices, driverVersion: parseDriverVersion(version), reason };
}

/** The driver's version in `/proc/driver/nvidia/version`, or null if the text has none. */
export function parseDriverVersion(text: string): string | null {
  return /^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s/m.exec(text)?.[1] ?? null;
}

/** One GPU of `/proc/driver/nvidia/gpus/<bus id>/information`, or undefined if the text names none. */
export function parseInformation(text: string): KernelDevice | undefined {
  const lines = text.split("\n").map((line) => /^([^:]+):\s*(.*?)\s*$/.exec(line));
  const fields = new Map(lines.flatMap((match) => (match === null ? [] : [[match[1] ?? "", match[2] ?? ""] as const])));
  const name = fields.get("Model");
  const busId = fields.get("Bus Location");
  if (name === undefined || busId === undefined) return undefined;
  const minor = fields.get("Device Minor") ?? "";
  return {
    // The driver writes question marks until it has initialised the GPU.
    uuid: /^GPU-[0-9a-f-]{36}$/.exec(fields.get("GPU UUID") ?? "")?.[0] ?? null,
    name,
    busId,
    minor: /^\d{1,9}$/.test(minor) ? Number(minor) : null,
    excluded: fields.get("GPU Excluded") === "Yes",
  };
}
