/**
 * Sealing makes a region final: mode first, then the question for writers, then the checksum, then the commit, which
 * also hands over the name of a region that this one replaces.
 */

import { TensordError } from "../error.ts";
import { describe } from "../journal/region-record.ts";
import { type Checksum, toChecksum } from "../layout/checksum.ts";
import { nextState } from "../state/lifecycle.ts";
import type { Region } from "../state/region.ts";
import type { Store } from "../state/store.ts";
import type { Access } from "../storage/storage.ts";
import { releaseClaim } from "./claim.ts";
import { tellEnd, toEnding } from "./end.ts";
import { tryFree } from "./free.ts";

export interface SealOptions {
  /** Take a checksum of the data bytes, which `verify` compares with. */
  readonly checksum: boolean;
  /** Leave the file writable by mode, for stock readers that always open read-write. */
  readonly stockWritable: boolean;
}

/**
 * Seals `region`. A failure leaves it open.
 * @throws TensordError `region-has-writers` while anybody maps it for writing, `cancelled` if it is deleted meanwhile,
 * `io-error` if a worker truncated its file.
 */
export async function sealRegion(store: Store, region: Region, options: SealOptions, actor?: string): Promise<Region> {
  store.books.change(region, { state: nextState(region, "seal") });
  store.step("seal.begun");
  region.serverLeases += 1;
  try {
    const access: Access = options.stockWritable ? "sealed-stock-writable" : "sealed";
    store.storages.of(region).memory.setAccess(region.token, access);
    store.step("seal.mode-set");
    // After the mode: a writer that locks later sees a sealed file and lets go.
    checkUsage(store, region);
    store.step("seal.writers-asked");
    const checksum = options.checksum ? await hashRegion(store, region, "sealing") : null;
    store.step("seal.hashed");
    commit(store, region, { checksum, stockWritable: options.stockWritable }, actor);
    return region;
  } catch (error) {
    if (region.state === "sealing") reopen(store, region);
    throw error;
  } finally {
    region.serverLeases -= 1;
  }
}

function checkUsage(store: Store, region: Region): void {
  const usage = store.storages.of(region).memory.usage(region.token);
  if (usage?.written === true) {
    throw new TensordError("region-has-writers", `Cannot seal ${describe(region)}: a process maps it for writing`, {
      hint: "Let every writer close its mapping, or seal from the client that wrote it, which lets go of its own first.",
    });
  }
  if (usage?.byteSize === region.byteSize) return;
  throw new TensordError(
    "io-error",
    `Cannot seal ${describe(region)}: its file has ${usage?.byteSize ?? 0} bytes, want ${region.byteSize}`,
    { hint: "A worker truncated or removed it. Delete the region and create it again." },
  );
}

/** One turn: the row, and with it the row of the region whose name this one takes. */
function commit(store: Store, region: Region, seal: Pick<Region, "checksum" | "stockWritable">, actor?: string): void {
  const holder =
    region.pendingName === null ? undefined : region.modelBooks.names.get(region.pendingName, region.version);
  const name = region.pendingName ?? region.name;
  const sealed = {
    ...seal,
    state: nextState(region, "seal-committed"),
    sealedAt: store.now(),
    name,
    pendingName: null,
    // A builder's session ends what it has not finished; from here on the owner alone decides.
    session: region.owner.kind === "session" ? region.session : null,
  };
  if (holder === undefined) store.change("seal.journaled", [region, sealed]);
  else store.change("seal.replaced-journaled", [holder, toEnding(holder, "replaced")], [region, sealed]);
  endClaim(store, region);
  store.emit({ type: "tensord.region.sealed", region });
  if (name !== null) store.waiters.wake(region.model, name);
  if (holder === undefined) return;
  tellEnd(store, holder, actor);
  void tryFree(store, holder, actor);
}

/** What was claimed is built. The seal stands already, so a claim that cannot be written off now ends with its session. */
function endClaim(store: Store, region: Region): void {
  const claim = store.claims.of(region);
  if (claim === undefined) return;
  try {
    releaseClaim(store, claim);
  } catch (error) {
    store.warn(`Cannot release the claim under which ${describe(region)} was built`, error);
  }
}

function reopen(store: Store, region: Region): void {
  store.books.change(region, { state: nextState(region, "seal-refused") });
  try {
    store.storages.of(region).memory.setAccess(region.token, "open");
  } catch (error) {
    store.warn(`Cannot give ${describe(region)} its open mode back`, error);
  }
}

/**
 * Recomputes the checksum of a sealed region.
 * @returns what was taken at the seal (null if none was) and what is there now.
 */
export async function verifyRegion(
  store: Store,
  region: Region,
): Promise<{ readonly expected: Checksum | null; readonly actual: Checksum }> {
  nextState(region, "verify");
  region.serverLeases += 1;
  try {
    return { expected: region.checksum, actual: await hashRegion(store, region, "sealed") };
  } finally {
    region.serverLeases -= 1;
  }
}

async function hashRegion(store: Store, region: Region, state: Region["state"]): Promise<Checksum> {
  const check = () => {
    if (region.state === state) return store.refuseIfStopping();
    throw new TensordError("cancelled", `Cannot hash ${describe(region)} to its end: it was deleted meanwhile`, {
      hint: "Create it anew if it is needed.",
    });
  };
  return toChecksum(
    await store.storages.of(region).bytes.hash(region.token, region.dataOffset, region.byteSize, check),
  );
}
