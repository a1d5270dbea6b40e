/**
 * Loads the models that are to be there before the first worker: one after the other, and those that cannot be loaded again and again, ever
 * more slowly. Until the last one is there the server is not ready, and says what is missing.
 */

import { setTimeout } from "node:timers/promises";
import { startLoad } from "../../loaders/load.ts";
import { TensordError } from "../../memory/error.ts";
import { registerModel } from "../../memory/sessions/models.ts";
import type { Services } from "../../routes/environment.ts";
import { toLoad } from "../../routes/load-request.ts";
import type { Preload } from "./preload-file.ts";

const firstPauseMs = 1_000;
const longestPauseMs = 60_000;

export interface PreloaderOptions extends Pick<Services, "store" | "loading"> {
  /** Hears of each model that could not be loaded. */
  readonly onFailure: (message: string, error: unknown) => void;
  readonly onLoaded: (message: string) => void;
  /** How long it waits before it tries again at first; it is doubled each time. */
  readonly pauseMs?: number;
}

export class Preloader {
  readonly #options: PreloaderOptions;
  readonly #count: number;
  #left: readonly Preload[];
  #failure: TensordError | undefined;
  #work: Promise<void> | undefined;

  constructor(preloads: readonly Preload[], options: PreloaderOptions) {
    this.#options = options;
    this.#count = preloads.length;
    this.#left = preloads;
  }

  /** Begins; it goes on until all are there, or the store stops. */
  start(): void {
    this.#work ??= this.#run();
  }

  /** Resolves when nothing of it goes on, once the store stops. */
  async ended(): Promise<void> {
    await this.#work;
  }

  /** @throws TensordError `not-ready` with what a model could not be loaded for, or `shutting-down`. */
  refuseUnlessReady(): void {
    this.#options.store.refuseIfStopping();
    const left = this.#left.length;
    if (left === 0) return;
    const state = `${left} of ${this.#count} models of TENSORD_PRELOAD ${left === 1 ? "is" : "are"} not loaded yet`;
    const why = this.#failure === undefined ? "" : `. ${this.#failure.message}`;
    throw new TensordError("not-ready", `Cannot take requests yet: ${state}${why}`, {
      hint: this.#failure?.facts.hint ?? "Ask again in a while; `tensord operations` tells how far they are.",
    });
  }

  async #run(): Promise<void> {
    const { store, pauseMs = firstPauseMs } = this.#options;
    const stopped = { signal: store.stopping };
    for (let wait = pauseMs; ; wait = Math.min(2 * wait, longestPauseMs)) {
      for (const preload of this.#left) await this.#load(preload);
      if (this.#left.length === 0 || store.stopping.aborted) return;
      await setTimeout(wait, undefined, stopped).catch(() => undefined);
    }
  }

  async #load(preload: Preload): Promise<void> {
    const { store, onFailure, onLoaded } = this.#options;
    if (store.stopping.aborted) return;
    try {
      const source = await this.#loadOnce(preload);
      this.#left = this.#left.filter((other) => other !== preload);
      if (this.#left.length === 0) this.#failure = undefined;
      onLoaded(`loaded ${source}`);
    } catch (error) {
      if (!(error instanceof TensordError)) throw error;
      this.#failure = error;
      if (!store.stopping.aborted) onFailure(`Cannot be ready: ${error.message}`, error);
    }
  }

  /** @returns the file's path. */
  async #loadOnce({ model = "default", ...asked }: Preload): Promise<string> {
    const { store, loading } = this.#options;
    if (store.books.findModel(model) === undefined) registerModel(store, model, new Map());
    const { ttl_ms, linger_ms, persist } = asked;
    const isOwned = ttl_ms !== undefined || linger_ms !== undefined || persist === true;
    // There before the first worker, and so kept for longer than any of them.
    const owned = isOwned ? asked : { ...asked, persist: true };
    const { file, wanted, target } = toLoad(store, loading.roots, model, owned);
    const operation = startLoad(store, loading.files, file, wanted, { ...target, createdBy: null }, null);
    await operation.ended;
    if (operation.failure !== null) throw operation.failure;
    return file.path;
  }
}
