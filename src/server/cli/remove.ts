/** `rm`: deletes regions, and if asked to waits until their bytes are free, telling who still maps them. */

import { basename, dirname } from "node:path";
import { TensordError } from "../../memory/error.ts";
import { roundUpToPage } from "../../memory/host/capacity.ts";
import type { Deletion, RegionDetail } from "./answers.ts";
import type { Api } from "./api.ts";
import { print } from "./output.ts";
import { parseDurationMs } from "./quantity.ts";
import { toKeeping } from "./region-text.ts";
import { toBytes, toJson } from "./table.ts";
import { toId } from "./target.ts";
import { pause } from "./until-stopped.ts";

/** As they were written. */
export interface RemoveOptions {
  readonly wait?: boolean;
  readonly timeout?: string;
}

interface Removed {
  /** As it was named. */
  readonly region: string;
  readonly id: string;
  readonly state: Deletion["state"];
  readonly freed_bytes: number;
}

const longestPauseMs = 250;

/**
 * Deletes regions by id, `name` (of the default model) or `model/name`.
 * @param tell hears who is waited for.
 * @throws after all were tried, if one could not be deleted, or is not free in time.
 */
export async function remove(
  api: Api,
  targets: readonly string[],
  { wait = false, timeout }: RemoveOptions,
  asJson: boolean,
  tell: (text: string) => void,
): Promise<string> {
  // Seconds are what a number without a unit is.
  const written = timeout !== undefined && /^\d+$/.test(timeout) ? `${timeout}s` : timeout;
  const timeoutMs = written === undefined ? Number.POSITIVE_INFINITY : parseDurationMs("--timeout", written);
  const failures: unknown[] = [];
  const tryEach = async <Item>(items: readonly Item[], act: (item: Item) => Promise<Removed>): Promise<Removed[]> => {
    const done: Removed[] = [];
    for (const item of items) {
      try {
        done.push(await act(item));
      } catch (error) {
        failures.push(error);
      }
    }
    return done;
  };
  let results = await tryEach(targets, async (target) => {
    const id = await toId(api, target, "delete");
    return { region: target, id, ...(await api.call<Deletion>("DELETE", `/v1/regions/${id}`)) };
  });
  if (wait) {
    const deadline = performance.now() + timeoutMs;
    results = await tryEach(results, async (removed) =>
      removed.state === "deleted" ? removed : await untilFree(api, removed, deadline, tell),
    );
  }
  const text = asJson ? toJson(results.map(({ id, ...rest }) => rest)) : results.map(toLine).join("\n");
  if (failures.length === 0) return text;
  if (results.length > 0) await print(text);
  if (failures.length === 1) throw failures[0];
  throw new AggregateError(failures, `Cannot delete ${failures.length} of ${targets.length} regions`);
}

function toLine({ region, state, freed_bytes: freedBytes }: Removed): string {
  const rest =
    state === "deleted"
      ? `${toBytes(freedBytes)} freed`
      : "a process still maps it; its bytes go with the last one (--wait waits for them)";
  return `${region}: ${state}, ${rest}`;
}

/** Asks for the draining region until it is gone. @throws TensordError `deadline-exceeded` that names who maps it. */
async function untilFree(api: Api, removed: Removed, deadline: number, tell: (text: string) => void): Promise<Removed> {
  let bytes = removed.freed_bytes;
  let told: string | undefined;
  for (let pauseMs = 5; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
    const region = await api.findRegion(removed.id);
    if (region === undefined) return { ...removed, state: "deleted", freed_bytes: bytes };
    bytes = roundUpToPage(region.storage.byte_size, region.storage.page_size);
    const keeping = toKeeping(region);
    if (performance.now() >= deadline) throw tooLate(removed, region, keeping);
    if (keeping !== undefined && keeping !== told) {
      told = keeping;
      tell(`${removed.region}: waiting for ${keeping}`);
    }
    await pause(Math.min(pauseMs, Math.max(1, deadline - performance.now())), never);
  }
}

const never = new AbortController().signal;

function tooLate({ region, id }: Removed, { drain, storage }: RegionDetail, keeping: string | undefined): TensordError {
  const hint =
    drain?.waits_for === "hard-link" && storage.path !== null
      ? `\`find ${dirname(storage.path)} -inum ${storage.ino} -not -path '*/keep/*'\` finds it.`
      : `Stop it; \`grep -l ${storage.path === null ? storage.ino : basename(storage.path)} /proc/[0-9]*/maps\` finds its pid.`;
  return new TensordError(
    "deadline-exceeded",
    `Cannot wait longer for the bytes of ${region}: ${keeping ?? "the server"} still has them, want nobody`,
    { hint: `${hint} It is deleted all the same; wait again with \`tensord rm --wait ${id}\`.` },
  );
}
