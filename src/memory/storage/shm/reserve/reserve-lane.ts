/** The reserve's own lane: one Worker, nicer than all others, for what makes pages ready before anybody asks for them. */

import { SystemError } from "../../../error.ts";
import type { Collapsed } from "../../../os/libc-pages.ts";
import { WorkerQueue } from "../../lane.ts";

export type ReserveJob =
  /** The first; all others run at this nice value. */
  | { readonly kind: "start"; readonly nice: number }
  /** Makes a file that must not be there, of `byteSize` bytes. */
  | { readonly kind: "make"; readonly path: string; readonly byteSize: number }
  /** Adds `byteSize` bytes to it, and makes huge pages of them. */
  | { readonly kind: "grow"; readonly fd: number; readonly byteOffset: number; readonly byteSize: number }
  /** Makes huge pages of what is there. */
  | { readonly kind: "collapse"; readonly path: string; readonly byteOffset: number; readonly byteSize: number };

export type ReserveReply =
  | { readonly ok: true; readonly value: number | Collapsed }
  | { readonly ok: false; readonly call: string; readonly errno: number; readonly code: string };

export class ReserveLane implements Disposable {
  readonly #queue = new WorkerQueue<ReserveJob, ReserveReply>({
    start: () => new Worker(new URL("./reserve.worker.ts", import.meta.url).href),
    transfers: () => [],
    read: (reply) => {
      if (reply.ok) return reply.value;
      throw new SystemError(reply.call, reply.errno, reply.code);
    },
  });

  /** Brings the Worker up. */
  async start(nice: number): Promise<void> {
    await this.#queue.run({ kind: "start", nice });
  }

  /** @returns its descriptor, the caller's to close. @throws SystemError, and then there is no file. */
  make(path: string, byteSize: number): Promise<number> {
    return this.#queue.run({ kind: "make", path, byteSize }) as Promise<number>;
  }

  /** @throws SystemError if there is no memory for it; the file may have grown by some of it. */
  grow(fd: number, byteOffset: number, byteSize: number): Promise<Collapsed> {
    return this.#queue.run({ kind: "grow", fd, byteOffset, byteSize }) as Promise<Collapsed>;
  }

  /** @throws SystemError if the file is gone. */
  collapse(path: string, byteOffset: number, byteSize: number): Promise<Collapsed> {
    return this.#queue.run({ kind: "collapse", path, byteOffset, byteSize }) as Promise<Collapsed>;
  }

  [Symbol.dispose](): void {
    this.#queue[Symbol.dispose]();
  }
}
