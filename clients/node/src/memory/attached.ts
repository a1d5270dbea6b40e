/** What a tensor needs of a mapping, whether it has it alone or shares it: the file, buffers, and an end in this process. */

import { TensordError } from "../errors.ts";
import type { Place } from "./attach.ts";
import type { Access } from "./pages.ts";

/** A mapped range of a region's file, until `close`. Every use after that throws `closed`. */
export interface Attached {
  readonly place: Place;
  readonly access: Access;
  readonly isClosed: boolean;
  /** A hand-off that was open when the server was last asked: it ends with its maker's session. */
  readonly isOpenHandOff: boolean;
  /** @throws TensordError `closed` */
  check(): void;
  /** A buffer over this range of the *file*, which keeps what is mapped. @throws TensordError `closed` */
  buffer(byteOffset: number, byteSize: number): ArrayBuffer;
  /** Calls `ended` when it was closed or collected, and the last buffer that it gave was collected. */
  whenOver(ended: () => void): void;
  /** Lets go. Buffers that are out stay valid. Safe to call twice. */
  close(): void;
}

/** What to throw after `close`. */
export function closedHere({ region }: Place): TensordError {
  return new TensordError("closed", `Cannot use region ${region}: it was closed here`, {
    hint: "attach it again; arrays taken before stay valid",
  });
}
