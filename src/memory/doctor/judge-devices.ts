/** Judges the devices of this host. A server is whole without any, so that what keeps one from being used is a warning, unless it hangs. */

import type { Device, DeviceRefusal } from "../host/device.ts";
import type { Facts } from "./facts.ts";
import { type Finding, failing, fine, warning } from "./finding.ts";
import { count, inBytes, listSome } from "./words.ts";

const check = "devices";
/** Where nothing says that there should be a device, its absence is none of our business. */
const harmless: ReadonlySet<DeviceRefusal["reason"]> = new Set(["no-libcuda", "no-device", "driver-asked"]);
const shown = 4;

export function judgeDevices({ devices: { devices, refusal } }: Facts): readonly Finding[] {
  if (devices.length === 0) return [refusal === null ? fine(check, "No device is here.") : toFinding(refusal)];
  const usable = devices.filter((device) => device.refusal === null);
  const findings = devices.flatMap(judge);
  if (usable.length === 0) return dedupe(findings);
  const which = listSome(usable.map(describe), shown);
  return [fine(check, `${count(usable.length, "device")} can be used: ${which}.`), ...findings];
}

/** Of a device that cannot be used, or by one process alone. */
function judge(device: Device): Finding[] {
  const { refusal, computeMode } = device;
  if (refusal !== null) {
    // Instances of it are there in its place.
    if (refusal.reason === "mig-parent") return [fine(check, `${describe(device)}: ${refusal.detail}`)];
    const detail = `${describe(device)} cannot be used: ${refusal.detail}`;
    const isOfDriver = refusal.reason === "driver-silent" || refusal.reason === "driver-asked";
    return [isOfDriver ? toFinding(refusal) : warning(check, detail, refusal.hint)];
  }
  if (computeMode !== "exclusive_process") return [];
  return [
    warning(
      check,
      `${describe(device)} may be used by one process at a time: regions are made there, and one worker alone maps them.`,
      `As root: nvidia-smi -i ${device.uuid} -c DEFAULT.`,
    ),
  ];
}

function toFinding(refusal: DeviceRefusal): Finding {
  const { reason, detail, hint } = refusal;
  if (reason === "driver-silent") return failing(check, detail, hint);
  return harmless.has(reason) ? fine(check, detail) : warning(check, detail, hint);
}

/** A driver that hangs is one finding, however many devices the kernel lists. */
function dedupe(findings: readonly Finding[]): Finding[] {
  return findings.filter(({ summary }, index) => findings.findIndex((other) => other.summary === summary) === index);
}

function describe({ name, uuid, busId, totalBytes }: Device): string {
  const size = totalBytes === null ? "" : `, ${inBytes(totalBytes)}`;
  return `${name} (${uuid ?? busId}${size})`;
}
