/**
 * Which names of one instance were taken out of the shared directory, or moved onto. The kernel tells of every name there,
 * so a Worker reads it and passes on those that are ours: what strangers do costs the event loop nothing.
 */

import { closeSync } from "node:fs";
import { openInotify, watchNames } from "../os/libc.ts";
import type { KnownTokens } from "./known-tokens.ts";

export interface LostNamesOptions {
  readonly instance: string;
  /** The directory of public names. */
  readonly directory: string;
  /** What is none of these is not told. */
  readonly known: KnownTokens;
  readonly onLost: (tokens: readonly string[]) => void;
  /** More happened than the kernel keeps: any name may be among it. */
  readonly onOverflow: () => void;
  /** The Worker died: nothing more is told. */
  readonly onEnd: (error: Error) => void;
}

export interface LostNamesTask {
  readonly fd: number;
  readonly instance: string;
  /** Of `KnownTokens`. */
  readonly known: SharedArrayBuffer;
}

export interface LostNamesReport {
  readonly tokens: readonly string[];
  readonly isOverflow: boolean;
}

/** Watches until it is disposed of; what happens between `open` and the Worker's first read is kept by the kernel. */
export class LostNames implements Disposable {
  readonly #worker: Worker;
  readonly #started = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<void>();

  private constructor(fd: number, options: LostNamesOptions) {
    this.#worker = new Worker(new URL("./lost-names.worker.ts", import.meta.url).href);
    this.#worker.unref();
    // Not before: it would read from whoever got the descriptor's number next.
    this.#worker.addEventListener("close", () => {
      closeSync(fd);
      this.#ended.resolve();
    });
    // Who waits for the start is told; who does not is told by `onEnd`.
    this.#started.promise.catch(() => {});
    this.#worker.onerror = (event) => {
      const error = new Error(`the Worker that watches names died: ${event.message}`);
      this.#started.reject(error);
      options.onEnd(error);
    };
    this.#worker.onmessage = ({ data }: MessageEvent<LostNamesReport | "up">) => {
      if (data === "up") return this.#started.resolve();
      const { tokens, isOverflow } = data;
      if (tokens.length > 0) options.onLost(tokens);
      if (isOverflow) options.onOverflow();
    };
    this.#worker.postMessage({ fd, instance: options.instance, known: options.known.memory } satisfies LostNamesTask);
  }

  /** @throws SystemError if the kernel gives no watch (`fs.inotify.max_user_instances`, `max_user_watches`). */
  static open(options: LostNamesOptions): LostNames {
    const fd = openInotify();
    try {
      watchNames(fd, options.directory);
      return new LostNames(fd, options);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Resolves when the Worker is up. @throws Error if it dies before that. */
  get started(): Promise<void> {
    return this.#started.promise;
  }

  /** Nothing is told any more; the descriptor is closed behind the Worker's end. */
  [Symbol.dispose](): void {
    this.#worker.onmessage = null;
    this.#worker.onerror = null;
    // Its end is waited for.
    this.#worker.ref();
    this.#worker.terminate();
  }

  /**
   * Resolves once the Worker has ended, of itself or by disposal, and the descriptor is closed: a user has 128 inotify
   * instances by default, and who opens many stores in a row would use them up.
   */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }
}
