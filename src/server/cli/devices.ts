/** `devices`: each device of the server's host, with what is taken of it, and why one cannot be used. */

import type { Device, Devices } from "./answers.ts";
import type { Api } from "./api.ts";
import { toBytes, toJson, toTable } from "./table.ts";

export async function devices(api: Api, asJson: boolean): Promise<string> {
  const found = await api.call<Devices>("GET", "/v1/devices");
  if (asJson) return toJson(found);
  const { items, detail, hint } = found;
  if (items.length === 0) return ["no devices", ...toReason(detail, hint)].join("\n");
  const reasons = items.flatMap(({ uuid, bus_id, usable, detail, hint }) =>
    usable ? [] : ["", `${uuid ?? bus_id}`, ...toReason(detail, hint)],
  );
  return [toTable(head, items.map(toRow)), ...reasons].join("\n");
}

const head = ["DEVICE", "NAME", "SIZE", "OURS", "OTHERS", "FREE", "USABLE"];

function toRow(device: Device): string[] {
  const { uuid, bus_id, name, total_bytes, allocated_bytes, others_bytes, free_bytes, usable, reason } = device;
  return [
    uuid ?? bus_id,
    name,
    toCell(total_bytes),
    toBytes(allocated_bytes),
    toCell(others_bytes),
    toCell(free_bytes),
    usable ? "yes" : `no: ${reason}`,
  ];
}

/** What nobody tells is a dash. */
function toCell(bytes: number | null): string {
  return bytes === null ? "-" : toBytes(bytes);
}

function toReason(detail: string | null, hint: string | null): string[] {
  return [...(detail === null ? [] : [`  ${detail}`]), ...(hint === null ? [] : [`  cure: ${hint}`])];
}
