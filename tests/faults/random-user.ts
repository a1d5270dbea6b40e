/**
 * A user of the API who does something at random, again and again, with what it and the others have. Every answer is one
 * that the document declares; which one it is depends on what the others do meanwhile.
 */

import { expect } from "bun:test";
import type { TestApp } from "../harness/app.ts";
import type { Random } from "../harness/instance-random.ts";

const KiB = 1024;
const names = ["a", "b", "c", "d"];
/** `small` has a limit of its own. */
const models = ["default", "default", "small"];

interface Body {
  readonly id?: string;
  readonly code?: string;
  readonly claim?: string | null;
  readonly evicted?: readonly unknown[];
}

export class RandomUser {
  readonly #app: TestApp;
  readonly #random: Random;
  readonly #sessions: string[] = [];
  readonly #leases: string[] = [];
  readonly #claims: { readonly model: string; readonly name: string; readonly claim: string }[] = [];
  readonly #counts: Record<string, number> = {};

  constructor(app: TestApp, random: Random) {
    this.#app = app;
    this.#random = random;
  }

  /** What all of them did, by name. */
  static sum(users: readonly RandomUser[]): Record<string, number> {
    const sums: Record<string, number> = {};
    for (const user of users) {
      for (const [what, count] of Object.entries(user.#counts)) sums[what] = (sums[what] ?? 0) + count;
    }
    return sums;
  }

  async work(steps: number): Promise<void> {
    const actions = [
      ...Array<() => Promise<unknown>>(6).fill(() => this.#create()),
      ...Array<() => Promise<unknown>>(3).fill(() => this.#seal()),
      () => this.#create(),
      () => this.#abort(),
      () => this.#openSession(),
      () => this.#endSession(),
      () => this.#renewSession(),
      () => this.#claim(),
      () => this.#claim(),
      () => this.#build(),
      () => this.#build(),
      () => this.#release(),
      () => this.#lease(),
      () => this.#endLease(),
      () => this.#endLease(),
      () => this.#delete(),
      () => this.#change(),
      () => this.#evict(),
      () => this.#model(),
    ];
    for (let step = 0; step < steps; step++) await this.#random.pick(actions)();
  }

  async #ask(what: string, method: string, path: string, body?: object, signal?: AbortSignal) {
    const begin = performance.now();
    const answer = await this.#app.request(method, path, body, signal === undefined ? {} : { signal });
    const { code, ...rest } = (answer.body ?? {}) as Body;
    expect(answer.status, `${what}: ${JSON.stringify(answer.body)}`).not.toBe(500);
    const isDone = answer.status < 300;
    const outcome = isDone ? what : `${what}: ${code}`;
    this.#counts[outcome] = (this.#counts[outcome] ?? 0) + 1;
    return { isDone, code, ms: performance.now() - begin, ...rest };
  }

  #count(what: string, count = 1): void {
    this.#counts[what] = (this.#counts[what] ?? 0) + count;
  }

  #owner(): object {
    const random = this.#random;
    const session = this.#sessions.at(-1);
    if (session !== undefined && random.isTrue(0.4)) return { session };
    const choice = random.integer(0, 2);
    if (choice === 0) return { ttl_ms: random.integer(1, 300) };
    this.#count(choice === 1 ? "lingered" : "persistent");
    return choice === 1 ? { linger_ms: random.pick([0, 50]) } : { persist: true };
  }

  #request(): Record<string, unknown> {
    const random = this.#random;
    const owner = this.#owner();
    const isNamed = "persist" in owner || random.isTrue(0.5);
    const byte_size = random.pick([0, 5 * KiB, 100 * KiB, 1024 * KiB, 3000 * KiB]);
    return {
      model: random.pick(models),
      byte_size,
      ...owner,
      ...(isNamed ? { name: random.pick(names), if_exists: random.pick(["fail", "attach", "replace"]) } : {}),
      evictable: random.isTrue(0.5),
      on_full: random.pick(["fail", "evict", "wait"]),
      deadline_ms: random.integer(1, 60),
    };
  }

  async #create(): Promise<void> {
    const { ms, isDone, code } = await this.#ask("created", "POST", "/v1/regions", this.#request());
    if (ms > 5 && (isDone || code === "deadline-exceeded")) this.#count("waited");
  }

  /** A client that goes away before its answer. */
  async #abort(): Promise<void> {
    const aborter = new AbortController();
    const request = { ...this.#request(), byte_size: 3000 * KiB };
    const asked = this.#ask("aborted", "POST", "/v1/regions", request, aborter.signal).catch((error) => {
      if (!aborter.signal.aborted) throw error;
    });
    await Bun.sleep(this.#random.integer(0, 3));
    aborter.abort();
    await asked;
  }

  /** Any region that stands, or drains. */
  #region(state?: string): string | undefined {
    const all = [...this.#app.store.books.regions.after(0)].filter((one) => state === undefined || one.state === state);
    return all.length === 0 ? undefined : `reg_${this.#random.pick(all).token}`;
  }

  async #seal(): Promise<void> {
    const id = this.#region(this.#random.isTrue(0.9) ? "open" : undefined);
    if (id !== undefined)
      await this.#ask("sealed", "POST", `/v1/regions/${id}/seal`, { checksum: this.#random.isTrue(0.3) });
  }

  async #delete(): Promise<void> {
    const id = this.#region();
    if (id !== undefined) await this.#ask("deleted", "DELETE", `/v1/regions/${id}`);
  }

  async #change(): Promise<void> {
    const id = this.#region();
    const owner = this.#random.pick([
      {},
      { ttl_ms: 100 },
      { linger_ms: 20 },
      { evictable: true },
      { evictable: false },
    ]);
    if (id !== undefined) await this.#ask("changed", "PATCH", `/v1/regions/${id}`, { ...owner, labels: { a: "1" } });
  }

  async #openSession(): Promise<void> {
    const quota = this.#random.isTrue(0.5) ? { quota_bytes: this.#random.pick([0, 1, 4000]) * KiB } : {};
    const { id } = await this.#ask("sessions opened", "POST", "/v1/sessions", {
      ttl_ms: this.#random.pick([1000, 60_000]),
      ...quota,
    });
    if (id !== undefined) this.#sessions.push(id);
  }

  async #endSession(): Promise<void> {
    const id = this.#random.isTrue(0.7) ? this.#sessions.shift() : this.#sessions.at(-1);
    if (id === undefined) return;
    // Twice at once is once.
    const asked = this.#random.isTrue(0.2) ? [id, id] : [id];
    await Promise.all(asked.map((one) => this.#ask("sessions ended", "DELETE", `/v1/sessions/${one}`)));
  }

  async #renewSession(): Promise<void> {
    const id = this.#sessions.at(-1);
    if (id !== undefined) await this.#ask("sessions renewed", "POST", `/v1/sessions/${id}/renew`);
  }

  async #claim(): Promise<void> {
    const session = this.#sessions.at(-1);
    if (session === undefined) return;
    const [model, name] = [this.#random.pick(models), this.#random.pick(names)];
    const path = `/v1/models/${model}/regions/${name}/claim`;
    const { claim = null } = await this.#ask("claimed", "POST", path, { session, key: "key" });
    if (claim !== null) this.#claims.push({ model, name, claim });
  }

  async #build(): Promise<void> {
    const claimed = this.#claims.shift();
    if (claimed === undefined) return;
    const request = { ...this.#request(), ...claimed, persist: true };
    const { id } = await this.#ask("built", "POST", "/v1/regions", toOneOwner(request));
    if (id !== undefined && this.#random.isTrue(0.7))
      await this.#ask("built and sealed", "POST", `/v1/regions/${id}/seal`, {});
  }

  async #release(): Promise<void> {
    const claimed = this.#claims.shift();
    if (claimed === undefined) return;
    const { model, name, claim } = claimed;
    await this.#ask("claims released", "DELETE", `/v1/models/${model}/regions/${name}/claim?claim=${claim}`);
  }

  async #lease(): Promise<void> {
    const region = this.#region("sealed") ?? this.#region();
    if (region === undefined) return;
    const session = this.#sessions.at(-1);
    const owner = session !== undefined && this.#random.isTrue(0.5) ? { session } : {};
    const { id } = await this.#ask("leased", "POST", `/v1/regions/${region}/leases`, { ttl_ms: 1000, ...owner });
    if (id !== undefined) this.#leases.push(id);
  }

  async #endLease(): Promise<void> {
    const id = this.#leases.shift();
    if (id !== undefined) await this.#ask("leases ended", "DELETE", `/v1/leases/${id}`);
  }

  async #evict(): Promise<void> {
    const request = { bytes: this.#random.integer(1, 8000) * KiB, dry_run: this.#random.isTrue(0.2) };
    const { evicted = [] } = await this.#ask("evictions", "POST", "/v1/evict", request);
    if (!request.dry_run) this.#count("evicted", evicted.length);
  }

  async #model(): Promise<void> {
    const limit = { memory_limit_bytes: this.#random.pick([0, 2000, 6000]) * KiB };
    const choice = this.#random.integer(0, 5);
    if (choice === 0) await this.#ask("models ended", "DELETE", "/v1/models/small?drain=true");
    else if (choice < 3) await this.#ask("models changed", "PATCH", "/v1/models/small", limit);
    else await this.#ask("models registered", "POST", "/v1/models", { name: "small", ...limit });
  }
}

/** A builder's region persists, whatever owner was drawn for it. */
function toOneOwner(request: Record<string, unknown>): Record<string, unknown> {
  const { session: _, ttl_ms: __, linger_ms: ___, if_exists: ____, ...rest } = request;
  return rest;
}
