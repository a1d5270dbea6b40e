/** The bytes of a region of objects: brought by the Worker, and read once there, as what was decompressed is; or held against those of another. */

import { TensordError } from "../../memory/error.ts";
import { toChecksum } from "../../memory/layout/checksum.ts";
import { hugePageBytes } from "../../memory/storage/storage.ts";
import type { Bring, Compare } from "../file-lane.ts";
import { quotePath } from "../formats/refusal.ts";
import type { FillJob, OpenedObjects } from "./s3-job.ts";

/** Objects that are open, and the URI that was asked for. */
export interface S3Content extends OpenedObjects {
  readonly path: string;
}

/** Runs a job of the Worker to its end: then nothing is written any longer. @returns whether all bytes are equal, of those that are compared. */
type RunFill = (job: FillJob, onBytes: (byteSize: number) => void, signal: AbortSignal) => Promise<boolean>;

/**
 * @returns what writes the data of a region that nobody sees yet, and has its checksum, as it reads in the region.
 * It throws what `run` throws, and TensordError `storage-unavailable` of memory that the server cannot write.
 */
export function bringBy(run: RunFill, { path, objects: parts, pieces, compression, layout }: S3Content): Bring {
  return async function bring(store, region, onBytes, signal) {
    const { token, dataOffset, byteSize } = region;
    const { bytes, hugePage, device } = store.storages.of(region);
    if (device !== null) throw unreachable(path, device.uuid);
    const mappedPageBytes = hugePage === null ? undefined : hugePageBytes[hugePage];
    {
      // Until the Worker is done: it writes by this very descriptor.
      using file = bytes.open(token, "write");
      // Of several files, where no header is set apart, it is among the bytes.
      if (pieces !== undefined && dataOffset === 0) file.write(layout.header, 0);
      const data = { parts, pieces, compression, dataOffset, byteSize, toFd: file.fd, mappedPageBytes };
      await run({ kind: "fill", ...data }, onBytes, signal);
    }
    store.step("load.filled");
    return toChecksum(await bytes.hash(token, dataOffset, byteSize, () => signal.throwIfAborted()));
  };
}

/** @returns what compares data, of which the header is not a part. It throws what `run` throws. */
export function compareBy(run: RunFill, { objects: parts, pieces, compression }: S3Content): Compare {
  return async function compare(toFd, dataOffset, byteSize, onBytes, signal) {
    const data = { parts, pieces, compression, dataOffset, byteSize, toFd, mappedPageBytes: undefined };
    return await run({ kind: "compare", ...data }, onBytes, signal);
  };
}

function unreachable(path: string, uuid: string): TensordError {
  const state = `it would go to the memory of device ${uuid}, which the server does not write by itself`;
  return new TensordError("storage-unavailable", `Cannot load ${quotePath(path)}: ${state}, want host memory`, {
    hint: "Load it into shm or memfd, and copy it to the device in a worker; or fetch it to a file below one of TENSORD_MODEL_ROOTS.",
  });
}
