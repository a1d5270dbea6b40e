/**
 * A region's file by its path, for readers that know nothing of leases: an engine that maps it there takes none, so this process
 * takes one for it.
 */

import "../dispose.ts";
import { inspect } from "node:util";
import { TensordError } from "../errors.ts";
import { type RegionDescriptor, shown } from "../http/wire.ts";
import type { Attachment } from "../memory/attachment.ts";
import { openFile } from "../memory/open.ts";
import type { Asker } from "./asker.ts";
import { isHeap } from "./heap.ts";
import { mapReported } from "./make-region.ts";

/**
 * The path of a region's file, which is in use until `close`, or until this thread or process ends. Made by `client.hold`: declare it
 * with `using`, or close it after the engine has let go of the file.
 */
export class PathHold {
  /** What the server said when it was asked. */
  readonly descriptor: RegionDescriptor;
  readonly #attachment: Attachment;
  readonly #path: string;

  constructor(descriptor: RegionDescriptor, attachment: Attachment, path: string) {
    this.descriptor = descriptor;
    this.#attachment = attachment;
    this.#path = path;
  }

  /**
   * Where this process finds the file: its name in the shared directory, or, where it has none that this process can open
   * (`private`, `memfd`, another mount namespace), `/proc/self/fd/…`, which is this process's alone.
   * @throws TensordError `closed`
   */
  get path(): string {
    if (!this.isClosed) return this.#path;
    throw new TensordError("closed", `Cannot use the path of ${shown(this.descriptor)}: it was let go here`, {
      hint: "hold it again",
    });
  }

  get isClosed(): boolean {
    return this.#attachment.isClosed;
  }

  /** Ends the lease. What still maps the file keeps its bytes, and not the region. Safe to call twice. */
  close(): void {
    this.#attachment.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** As `console.log` shows it. */
  [inspect.custom](): string {
    return `PathHold of ${shown(this.descriptor)}, ${this.isClosed ? "closed" : this.#path}`;
  }
}

/** @param find gets the region, and gets it anew where its file is not what it said. */
export async function holdPath(
  asker: Asker,
  find: () => Promise<RegionDescriptor>,
  signal: AbortSignal | undefined,
): Promise<PathHold> {
  const findFile = async () => checkHasPath(await find());
  // Mapped, and never read: the mapping has the lease.
  const [mapped] = await mapReported(asker, [await findFile()], {
    ask: async () => [await findFile()],
    choose: () => "strict",
    signal,
  });
  const { region, attachment } = mapped as NonNullable<typeof mapped>;
  try {
    return new PathHold(region, attachment, await toPath(attachment, signal));
  } catch (error) {
    attachment.close();
    throw error;
  }
}

async function toPath(attachment: Attachment, signal: AbortSignal | undefined): Promise<string> {
  const { path } = attachment.place;
  if (attachment.attachedBy === "name" && path !== null) return path;
  const { file } = await openFile(attachment.place, { isWriter: false, isLeased: false, signal });
  attachment.whenOver(() => file.close());
  return `/proc/self/fd/${file.fd}`;
}

function checkHasPath(region: RegionDescriptor): RegionDescriptor {
  const { kind, deviceUuid } = region.storage;
  if (!isHeap(region) && deviceUuid == null) return region;
  throw new TensordError(
    "feature-unavailable",
    `Cannot hold ${shown(region)} by a path: it is in ${kind} storage, whose bytes no file has`,
    { hint: 'copy it into one that has a file, client.copy(region, { storage: "shm" }), and hold that' },
  );
}
