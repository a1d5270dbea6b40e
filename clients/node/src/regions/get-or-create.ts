/**
 * One of N workers builds a name and the others wait for it, by claims. A builder that dies or fails makes room for the next in line.
 */

import { randomUUID } from "node:crypto";
import { isTensordError, TensordError } from "../errors.ts";
import type { NamedRegion } from "../http/api.ts";
import { type RegionDescriptor, shownVersion } from "../http/wire.ts";
import { defaultModel, type GetOrCreateOptions } from "../options.ts";
import type { Session } from "../session/session.ts";
import { deadlineAfter, pause } from "../waiting.ts";
import type { Asker } from "./asker.ts";
import { type HeldClaim, makeRegion, mapExisting } from "./make-region.ts";
import { toAccess } from "./mapper.ts";
import { toOwner } from "./owner.ts";
import { type Region, viewOf } from "./region.ts";
import type { RegionSource } from "./sources.ts";

const longestWaitMs = 300_000;
/** How often to look in the last second, for which the server does not hold its answer back. */
const pollMs = 50;
/** A region may be deleted while it is being mapped, and a claim be lost while it is built under; not every time. */
const losses = 5;

/** What may happen to a sealed region between the answer and the mapping. */
const gone = ["region-not-found", "region-draining", "stale-ref"];
/** What a builder hears whose session ended while it built. */
const lost = ["claim-not-found", "session-not-found", "name-taken"];

/** What the server says: the builder's claim, or else the region that others see. */
interface Turn {
  readonly claim: (HeldClaim & { readonly key: string }) | undefined;
  readonly region: RegionDescriptor | null;
}

/** Builds and finds names in a client's session. */
export class GetOrCreate {
  readonly #asker: Asker;
  /** Keys of claims that may be ours without our knowing: the same key gets the same claim again. */
  readonly #unanswered = new Map<string, string>();

  constructor(asker: Asker) {
    this.#asker = asker;
  }

  /** `client.getOrCreate`. */
  async run(
    name: string,
    build: () => RegionSource | Promise<RegionSource>,
    options: GetOrCreateOptions,
  ): Promise<Region> {
    const { model = defaultModel, timeoutMs = Number.POSITIVE_INFINITY, strict = false, signal } = options;
    const { rebuild = false, version = rebuild ? "" : undefined } = options;
    const deadline = deadlineAfter(timeoutMs);
    const named = { model, name, version };
    // Refused here, before anybody builds.
    toOwner(options);
    const stale = rebuild ? await this.#findSealed(named, signal) : undefined;
    let data: RegionSource | undefined;
    for (let loss = 0; ; ) {
      const askedAt = performance.now();
      const waitUntil = Math.min(deadline, askedAt + longestWaitMs);
      const { claim, region } = await this.#claim(named, stale, waitUntil, signal);
      try {
        if (claim !== undefined) {
          data ??= await build();
          signal?.throwIfAborted();
          return await this.#make(name, data, options, claim, stale);
        }
        if (region?.state === "sealed") {
          return await mapExisting(
            this.#asker,
            region,
            () => toAccess({ strict }),
            () => this.#asker.api.regionByName(named, { signal, isToMap: true }),
          );
        }
      } catch (error) {
        if (claim !== undefined) await this.#giveUp(named, claim.session, claim.key, stale);
        const isLoss = isTensordError(error) && (claim === undefined ? gone : lost).includes(error.code);
        loss += 1;
        if (!isLoss || loss === losses) throw error;
        continue;
      }
      const now = performance.now();
      if (now >= deadline) {
        const wanted = `${model}/${name}${shownVersion(version)}`;
        throw new TensordError(
          "deadline-exceeded",
          `Cannot get ${wanted}: another process still builds it after ${timeoutMs} ms, want it sealed`,
          { hint: "wait longer; if its builder dies, the next in line builds" },
        );
      }
      if (now - askedAt < pollMs) await pause(pollMs, { signal });
    }
  }

  async #make(
    name: string,
    data: RegionSource,
    options: GetOrCreateOptions,
    claim: HeldClaim,
    stale: string | undefined,
  ): Promise<Region> {
    const { timeoutMs: _, strict: __, rebuild: ___, checksum = false, ...rest } = options;
    // Not "fail": a repeat after a lost answer finds what the lost request made.
    const ifExists = stale === undefined ? "attach" : "replace";
    const region = await makeRegion(this.#asker, name, data, { ...rest, ifExists }, claim);
    try {
      // Who builds it is one of those for whom it is built.
      viewOf(region).attachment.useAsWell();
      await region.seal({ checksum, signal: options.signal });
      return region;
    } catch (error) {
      region.close();
      await this.#asker.api.deleteRegion(region.id).catch(() => undefined);
      throw error;
    }
  }

  /** The id of the region that is to be built anew, if there is one; what is still open is being built already. */
  async #findSealed(named: NamedRegion, signal: AbortSignal | undefined): Promise<string | undefined> {
    const region = await this.#asker.api.regionByName(named, { signal }).catch(toUndefined);
    return region?.state === "sealed" ? region.id : undefined;
  }

  /** @param stale the id of a region that counts as if it were not there */
  async #claim(
    named: NamedRegion,
    stale: string | undefined,
    waitUntil: number,
    signal: AbortSignal | undefined,
  ): Promise<Turn> {
    const { api } = this.#asker;
    const path = pathOf(named);
    const key = this.#unanswered.get(path) ?? randomUUID();
    this.#unanswered.delete(path);
    let asking: string | undefined;
    try {
      return await this.#session().use(async (session) => {
        asking = session;
        const asked = { session, key, rebuild: stale };
        const { claim: id, region } = await api.claim(named, asked, { signal, waitUntil });
        return { claim: id === null ? undefined : { id, session, key }, region };
      }, signal);
    } catch (error) {
      if (signal?.aborted && asking !== undefined) void this.#giveUp(named, asking, key, stale);
      else this.#unanswered.set(path, key);
      throw error;
    }
  }

  /**
   * Lets the next in line build. Asked for by the key, since the answer that brought the claim may be one that nobody heard;
   * so may be the one of a create, whose region would stand in the way, or be left until the session ends. It is named in full: by the name alone the server
   * would tell of another version that is sealed by now.
   */
  async #giveUp(
    { model, name, version = "" }: NamedRegion,
    session: string,
    key: string,
    stale: string | undefined,
  ): Promise<void> {
    const { api } = this.#asker;
    const built = { model, name, version };
    try {
      const { claim } = await api.claim(built, { session, key, rebuild: stale });
      if (claim === null) return;
      for await (const region of api.regions({ model, session })) {
        const isNamed = (region.pendingName ?? region.name) === name && region.version === version;
        const isBuilt = isNamed && region.owner.kind !== "session" && region.state !== "sealed";
        if (isBuilt) await api.deleteRegion(region.id);
      }
      await api.releaseClaim(built, claim);
    } catch {
      this.#unanswered.set(pathOf(built), key);
    }
  }

  #session(): Session {
    if (this.#asker.session !== undefined) return this.#asker.session;
    throw new TensordError("feature-unavailable", "Cannot build a name: this client has no session, want one", {
      hint: "connect without { session: false }",
    });
  }
}

/** One for each claim: without a version the empty one is claimed. */
function pathOf({ model, name, version = "" }: NamedRegion): string {
  return `${model}/${name}/${version}`;
}

function toUndefined(error: unknown): undefined {
  if (!isTensordError(error, "region-not-found") && !isTensordError(error, "model-not-found")) throw error;
}
