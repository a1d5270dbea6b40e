/** Who hands out open files of regions, as those who open them see it; `broker/` is the one there is. */

import type { HeldFile } from "./held-file.ts";

/** What the broker is asked for. */
export interface Asked {
  readonly region: string;
  readonly access: "ro" | "rw";
  readonly lease: "consumer" | "maker" | "both";
}

/** An open file of a region with a description of its own, which is leased unless the region is barred. The caller's to close. */
export interface Handed {
  readonly file: HeldFile;
  /** The driver's own descriptor, of memory of a device, beside which `file` is the lease file. The caller's to close as well. */
  readonly handle: HeldFile | undefined;
  readonly isLeased: boolean;
  readonly instance: string;
}

/** The server's broker. Both throw what it says, `wrong-namespace`, `access-denied`, `server-unavailable`, `out-of-descriptors`. */
export interface DescriptorSource {
  attach(asked: Asked, signal?: AbortSignal | undefined): Promise<Handed>;
  /** Without a turn of the event loop; waits a moment at most. */
  attachNow(asked: Asked): Handed;
}
