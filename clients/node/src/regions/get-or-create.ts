/**
 * One of N workers builds a name and the others wait for it, by claims. A builder that dies or fails makes room for the next in line.
 */

import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { isTensordError, TensordError } from "../errors.ts";
import type { RegionDescriptor } from "../http/wire.ts";
import { defaultModel, type GetOrCreateOptions } from "../options.ts";
import type { Session } from "../session/session.ts";
import { type Asker, type HeldClaim, makeRegion, mapExisting } from "./make-region.ts";
import { toAccess } from "./mapper.ts";
import type { Region } from "./region.ts";
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
    const { model = defaultModel, timeoutMs = Number.POSITIVE_INFINITY, strict = false } = options;
    if (!(timeoutMs >= 0)) {
      throw new TensordError("validation-failed", `Cannot wait ${timeoutMs} ms: want 0 or more`);
    }
    const deadline = performance.now() + timeoutMs;
    let data: RegionSource | undefined;
    for (let loss = 0; ; ) {
      const askedAt = performance.now();
      const { claim, region } = await this.#claim(model, name, Math.min(deadline, askedAt + longestWaitMs));
      try {
        if (claim !== undefined) {
          data ??= await build();
          return await this.#make(name, data, options, claim);
        }
        if (region?.state === "sealed") {
          return await mapExisting(
            this.#asker,
            region,
            () => toAccess({ strict }),
            () => this.#asker.api.regionByName(model, name),
          );
        }
      } catch (error) {
        if (claim !== undefined) await this.#release(model, name, claim);
        const isLoss = isTensordError(error) && (claim === undefined ? gone : lost).includes(error.code);
        loss += 1;
        if (!isLoss || loss === losses) throw error;
        continue;
      }
      const now = performance.now();
      if (now >= deadline) {
        throw new TensordError(
          "deadline-exceeded",
          `Cannot get ${model}/${name}: another process still builds it after ${timeoutMs} ms, want it sealed`,
          { hint: "wait longer; if its builder dies, the next in line builds" },
        );
      }
      if (now - askedAt < pollMs) await pause(pollMs);
    }
  }

  async #make(name: string, data: RegionSource, options: GetOrCreateOptions, claim: HeldClaim): Promise<Region> {
    const { timeoutMs: _, strict: __, checksum = false, ...rest } = options;
    // With "attach" a repeat after a lost answer finds what the lost request made.
    const region = await makeRegion(this.#asker, name, data, { ...rest, ifExists: "attach" }, claim);
    try {
      await region.seal({ checksum });
      return region;
    } catch (error) {
      region.close();
      await this.#asker.api.deleteRegion(region.id).catch(() => undefined);
      throw error;
    }
  }

  async #claim(model: string, name: string, waitUntil: number): Promise<Turn> {
    const { api } = this.#asker;
    const path = `${model}/${name}`;
    const key = this.#unanswered.get(path) ?? randomUUID();
    this.#unanswered.delete(path);
    try {
      return await this.#session().use(async (session) => {
        const { claim: id, region } = await api.claim(model, name, { session, key }, waitUntil);
        return { claim: id === null ? undefined : { id, session, key }, region };
      });
    } catch (error) {
      this.#unanswered.set(path, key);
      throw error;
    }
  }

  /** The next in line builds. */
  async #release(model: string, name: string, { id, key }: HeldClaim & { readonly key: string }): Promise<void> {
    await this.#asker.api.releaseClaim(model, name, id).catch(() => this.#unanswered.set(`${model}/${name}`, key));
  }

  #session(): Session {
    if (this.#asker.session !== undefined) return this.#asker.session;
    throw new TensordError("feature-unavailable", "Cannot build a name: this client has no session, want one", {
      hint: "connect without { session: false }",
    });
  }
}
