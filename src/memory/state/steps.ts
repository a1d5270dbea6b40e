/**
 * The steps of every operation that changes the books, by name. Whoever opens the store may pass a function that is told
 * after each: the fault tests kill the server there. Production passes none.
 */

import { holderSteps } from "../storage/fd-holder/steps.ts";
import { reserveSteps } from "../storage/shm/reserve/reserve-parts.ts";
import { allocationSteps } from "../storage/storage.ts";

export const steps = [
  "create.reserved",
  ...allocationSteps,
  ...reserveSteps,
  ...holderSteps,
  "create.list-written",
  "create.kept",
  "create.journaled",
  "create.proved",
  "create.published",
  "copy.source-leased",
  "copy.filled",
  "copy.read-back",
  "load.opened",
  "load.compared",
  "load.part-written",
  "load.filled",
  "load.bound",
  "seal.begun",
  "seal.mode-set",
  "seal.writers-asked",
  "seal.made-final",
  "seal.hashed",
  "seal.journaled",
  "seal.replaced-journaled",
  "delete.journaled",
  "delete.withdrawn",
  "delete.asked",
  "delete.keeper-unlinked",
  "delete.row-deleted",
  "change.journaled",
  "attach.journaled",
  "proof.renewed",
  "model.journaled",
  "model.row-deleted",
  "session.journaled",
  "session.end-begun",
  "session.region-ended",
  "session.row-deleted",
  "claim.journaled",
  "claim.row-deleted",
  "lease.journaled",
  "lease.row-deleted",
  "vmm.pool-journaled",
  "vmm.page-created",
  "vmm.page-kept",
  "vmm.map-journaled",
  "vmm.announced",
  "vmm.unmap-journaled",
  "vmm.page-freed",
  "vmm.moves-journaled",
  "vmm.pool-row-deleted",
  "hand-out.opened",
  "hand-out.locked",
  "hand-out.exported",
  "hand-out.sent",
] as const;

export type Step = (typeof steps)[number];
export type OnStep = (step: Step) => void;
