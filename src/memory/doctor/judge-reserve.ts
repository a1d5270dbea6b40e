/** Judges what lies ready for regions to come: what it has, and what this host could gain. None of it is wrong. */

import type { Facts } from "./facts.ts";
import { type Finding, fine } from "./finding.ts";
import { inBytes, percentOf } from "./words.ts";

export function judgeReserve({ server }: Facts): Finding | undefined {
  const check = "reserve";
  if (server === null) return undefined;
  const { budgetBytes, bytes, absence, smallOnly, hugeChunks, smallChunks } = server.reserve;
  if (absence !== null) return fine(check, `Nothing lies ready for regions to come: ${absence}.`);
  if (budgetBytes === 0) {
    const gain = "a large region is written several times as fast where the kernel makes huge pages";
    return fine(
      check,
      `Nothing lies ready for regions to come, as TENSORD_RESERVE_BYTES says, or since they may take less than 4 GiB; with a reserve ${gain}.`,
    );
  }
  const state = `${inBytes(bytes)} of ${inBytes(budgetBytes)} lie ready for regions to come`;
  if (smallOnly !== null) {
    return fine(check, `${state}, for small ones alone: ${smallOnly}. With huge pages large ones would gain the most.`);
  }
  const chunks = hugeChunks + smallChunks;
  const share = chunks === 0 ? "" : `; of the chunks so far ${percentOf(hugeChunks, chunks)} % are huge pages`;
  return fine(check, `${state}${share}.`);
}
