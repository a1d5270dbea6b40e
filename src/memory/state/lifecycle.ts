/**
 * The life of a region as one total table: state × event → the next state, or a named failure. It decides what follows;
 * what has to be done on the way (modes, links, rows, events) is the store's business.
 */

import assert from "node:assert/strict";
import { type FailureCode, TensordError } from "../error.ts";
import { describe, idOf, type RegionRecord, type State, states } from "../journal/region-record.ts";

export const lifecycleEvents = [
  /** The bytes, the row and the name stand. */
  "commit",
  /** The bytes are kept, and the row or the name cannot be written: what is kept goes like any other region. */
  "commit-refused",
  /** The creation failed or was cancelled. */
  "abort",
  /** Somebody asks for a seal; `seal-refused` or `seal-committed` ends it. */
  "seal",
  "seal-refused",
  "seal-committed",
  /** Asked for by request, owner or policy. Cancels a creation and a seal. */
  "delete",
  /** The last lease of a draining region is gone, and so are its pages. */
  "freed",
  /** The file itself is gone, by a hand that is not ours. */
  "lost",
  "verify",
  /** Its bytes go into another region. */
  "copy",
  "attach",
  /** Its owner or its labels. */
  "change",
  /** A lease by request. */
  "lease",
  /** Its bytes pass through the server. */
  "read",
  "write",
  /** Another region takes the name at its seal. */
  "replaced",
] as const;
export type LifecycleEvent = (typeof lifecycleEvents)[number];

type Failure = Extract<
  FailureCode,
  "region-busy" | "region-sealed" | "region-not-sealed" | "region-draining" | "region-not-found" | "cancelled"
>;

/** A cell that only our own mistake can reach. */
const bug = Symbol("bug");

/**
 * A missing cell does not compile. `cancelled` is for work that began before a delete and ends after it: nobody's
 * mistake. `delete` of a draining region changes nothing, so that a client may repeat it.
 */
const table = {
  creating: {
    commit: "open",
    "commit-refused": "draining",
    abort: "deleted",
    seal: "region-busy",
    "seal-refused": bug,
    "seal-committed": bug,
    delete: "deleted",
    freed: bug,
    lost: bug,
    verify: "region-busy",
    copy: "region-busy",
    attach: "region-busy",
    change: "region-busy",
    lease: "region-busy",
    read: "region-busy",
    write: "region-busy",
    replaced: "region-busy",
  },
  open: {
    commit: bug,
    "commit-refused": bug,
    abort: bug,
    seal: "sealing",
    "seal-refused": bug,
    "seal-committed": bug,
    delete: "draining",
    freed: bug,
    lost: "deleted",
    verify: "region-not-sealed",
    copy: "region-not-sealed",
    attach: "open",
    change: "open",
    lease: "open",
    read: "open",
    write: "open",
    replaced: "draining",
  },
  sealing: {
    commit: bug,
    "commit-refused": bug,
    abort: bug,
    seal: "region-busy",
    "seal-refused": "open",
    "seal-committed": "sealed",
    delete: "draining",
    freed: bug,
    lost: "deleted",
    verify: "region-busy",
    copy: "region-busy",
    attach: "sealing",
    change: "sealing",
    lease: "sealing",
    read: "sealing",
    write: "region-busy",
    replaced: "draining",
  },
  sealed: {
    commit: bug,
    "commit-refused": bug,
    abort: bug,
    seal: "region-sealed",
    "seal-refused": bug,
    "seal-committed": bug,
    delete: "draining",
    freed: bug,
    lost: "deleted",
    verify: "sealed",
    copy: "sealed",
    attach: "sealed",
    change: "sealed",
    lease: "sealed",
    read: "sealed",
    write: "region-sealed",
    replaced: "draining",
  },
  draining: {
    commit: bug,
    "commit-refused": bug,
    abort: bug,
    seal: "region-draining",
    "seal-refused": "cancelled",
    "seal-committed": "cancelled",
    delete: "draining",
    freed: "deleted",
    lost: "deleted",
    verify: "region-draining",
    copy: "region-draining",
    attach: "region-draining",
    change: "region-draining",
    lease: "region-draining",
    read: "region-draining",
    write: "region-draining",
    replaced: bug,
  },
  deleted: {
    commit: "cancelled",
    "commit-refused": "cancelled",
    abort: "cancelled",
    seal: "region-not-found",
    "seal-refused": "cancelled",
    "seal-committed": "cancelled",
    delete: "region-not-found",
    freed: "region-not-found",
    lost: "region-not-found",
    verify: "region-not-found",
    copy: "region-not-found",
    attach: "region-not-found",
    change: "region-not-found",
    lease: "region-not-found",
    read: "region-not-found",
    write: "region-not-found",
    replaced: "region-not-found",
  },
} as const satisfies Record<State, Record<LifecycleEvent, State | Failure | typeof bug>>;

/** How a sentence names what was tried. */
export const actions = {
  commit: "finish the creation of",
  "commit-refused": "give up the creation of",
  abort: "undo the creation of",
  seal: "seal",
  "seal-refused": "reopen",
  "seal-committed": "finish the seal of",
  delete: "delete",
  freed: "free",
  lost: "give up",
  verify: "verify",
  copy: "copy",
  attach: "attach to",
  change: "change",
  lease: "lease",
  read: "read",
  write: "write to",
  replaced: "replace",
} as const satisfies Record<LifecycleEvent, string>;

const hints = {
  "region-busy": "Wait until the step that is under way has ended, and ask again.",
  "region-sealed": 'A seal is final: read the region, or create another one with if_exists "replace".',
  "region-not-sealed": "Seal the region first.",
  "region-draining": "Its name is free: create another region, or attach to the one that has the name now.",
  "region-not-found": "List the regions to see which exist, and create it anew if it is needed.",
  cancelled: "It was deleted meanwhile; create it anew if it is needed.",
} as const satisfies Record<Failure, string>;

/**
 * The state that follows.
 * @throws TensordError with the cell's failure. A cell that only our own mistake can reach is an assertion.
 */
export function nextState(
  region: Pick<RegionRecord, "token" | "model" | "name" | "version" | "state">,
  event: LifecycleEvent,
): State {
  const { state } = region;
  const cell = table[state][event];
  assert(cell !== bug, `${event} of ${describe(region)} cannot happen: it is ${state}`);
  if (isState(cell)) return cell;
  const wanted = states.filter((from) => isState(table[from][event]));
  const detail = `Cannot ${actions[event]} ${describe(region)}: it is ${state}, want ${wanted.join(" or ")}`;
  throw new TensordError(cell, detail, { region: idOf(region), hint: hints[cell], state });
}

/** Whether a region in `state` is on its way out, or gone: it has no name, and no session pays for it. */
export function hasEnded(state: State): boolean {
  return state === "draining" || state === "deleted";
}

function isState(cell: State | Failure | typeof bug): cell is State {
  return states.some((state) => state === cell);
}
