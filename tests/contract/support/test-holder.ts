/** What a server's fd holder does, in the test's own process: it has the memory of regions without a name over a restart. */

import { closeSync, openSync } from "node:fs";
import type { FdHolder, Keepable } from "../../../src/memory/storage/fd-holder/fd-holder.ts";

export class TestHolder implements FdHolder, Disposable {
  readonly held = new Map<string, number>();

  async keep(token: string, what: Keepable): Promise<void> {
    const fd = typeof what === "number" ? what : await what();
    this.held.set(token, openSync(`/proc/self/fd/${fd}`, "r+"));
    if (typeof what !== "number") closeSync(fd);
  }

  async give(token: string): Promise<number> {
    const fd = this.held.get(token);
    if (fd === undefined) throw new Error(`nothing is kept of ${token}`);
    return openSync(`/proc/self/fd/${fd}`, "r+");
  }

  async drop(token: string): Promise<void> {
    const fd = this.held.get(token);
    if (fd !== undefined) closeSync(fd);
    this.held.delete(token);
  }

  async list(): Promise<readonly string[]> {
    return [...this.held.keys()];
  }

  [Symbol.dispose](): void {
    for (const fd of this.held.values()) closeSync(fd);
    this.held.clear();
  }
}
