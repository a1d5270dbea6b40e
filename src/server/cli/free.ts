/** `free`: makes room by policy, and says what went, what stays and why. */

import { count } from "../../memory/doctor/words.ts";
import type { Eviction } from "./answers.ts";
import type { Api } from "./api.ts";
import { parseByteSize } from "./quantity.ts";
import { toBytes, toJson, toSpan, toTable } from "./table.ts";

/** As they were written. */
export interface FreeOptions {
  readonly model?: string;
  readonly dryRun?: boolean;
}

export interface FreeResult {
  readonly text: string;
  /** False if less went, or would go, than was asked for. */
  readonly ok: boolean;
}

/** @param size with a unit, or a plain number of bytes, such as a failure tells. */
export async function free(api: Api, size: string, options: FreeOptions, asJson: boolean): Promise<FreeResult> {
  const bytes = parseByteSize("<size>", /^\d+$/.test(size) ? `${size}B` : size);
  const { model, dryRun = false } = options;
  const request = { bytes, dry_run: dryRun, ...(model !== undefined && { model }) };
  const eviction = await api.call<Eviction>("POST", "/v1/evict", request);
  return { ok: eviction.enough, text: asJson ? toJson(eviction) : toText(eviction, bytes) };
}

const reasons: Readonly<Record<string, string>> = {
  leased: "somebody maps it",
  "handed-out": "somebody asked for it a moment ago",
  "not-needed": "not needed",
};

function toText({ dry_run: dryRun, enough, freed_bytes: freedBytes, evicted, kept }: Eviction, bytes: number): string {
  const sum = `${toBytes(freedBytes)} of the ${toBytes(bytes)} asked for, ${count(evicted.length, "region")}`;
  const gone = evicted.map(({ region, model, name, bytes, last_used_at: usedAt }) => [
    ...toCells({ region, model, name, bytes }),
    `${toSpan(Date.now() - Date.parse(usedAt))} ago`,
  ]);
  const stay = kept.map((item) => [...toCells(item), reasons[item.reason] ?? item.reason]);
  const lines = [`${dryRun ? "would free" : "freed"} ${sum}`];
  if (gone.length > 0) lines.push("", toTable([...head, "USED"], gone));
  if (stay.length > 0) lines.push("", dryRun ? "would stay" : "stays", toTable([...head, "WHY"], stay));
  if (!enough)
    lines.push("", "Only sealed regions go that are evictable (`tensord alloc --evictable`) and that nobody maps.");
  return lines.join("\n");
}

const head = ["REGION", "MODEL", "NAME", "SIZE"];

type Item = Pick<Eviction["kept"][number], "region" | "model" | "name" | "bytes">;

function toCells({ region, model, name, bytes }: Item): string[] {
  return [region, model, name ?? "-", toBytes(bytes)];
}
