/** Finds out how an instance's fd holder is, from whoever can ask it. */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { findHolder, type HolderAddress } from "../storage/fd-holder/holder-connection.ts";
import type { HolderStatus } from "../storage/fd-holder/protocol.ts";
import type { HolderFacts } from "./facts.ts";

/** @param ask as a server does over its connection; undefined if none runs. */
export async function lookAtHolder(ask: () => Promise<HolderStatus | undefined>): Promise<HolderFacts> {
  const { promise: late, resolve } = Promise.withResolvers<HolderFacts>();
  const silent: HolderFacts = {
    state: "silent",
    reason: "it took its time",
    hint: "Is its process (tensord fd-holder) stopped? kill -CONT lets it go on.",
  };
  const timer = setTimeout(() => resolve(silent), limits.holderLookMs);
  try {
    return await Promise.race([late, look(ask)]);
  } finally {
    clearTimeout(timer);
  }
}

async function look(ask: () => Promise<HolderStatus | undefined>): Promise<HolderFacts> {
  try {
    const status = await ask();
    if (status === undefined) return { state: "none" };
    const { pid, descriptors, age_ms: ageMs } = status;
    return { state: "running", pid, descriptors, ageMs };
  } catch (error) {
    const { message } = error as Error;
    const hint = error instanceof TensordError ? error.facts.hint : undefined;
    return { state: "silent", reason: message, hint: hint ?? "See the server's log." };
  }
}

/** As anybody may who reaches its socket: it says how it is, and no more. */
export async function greetHolder(address: HolderAddress): Promise<HolderStatus | undefined> {
  using connection = await findHolder(address);
  return connection?.status;
}
