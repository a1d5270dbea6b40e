/** What the loop asks of the Worker that has an S3 service, and what that answers: many jobs at a time, each under a number. */

import type { OpenedBytes, WantedFormat } from "../file-lane.ts";
import type { Compression } from "../formats/format.ts";
import type { FileReply } from "../worker-reply.ts";
import type { S3Options, S3Part } from "./s3-options.ts";
import type { S3Object } from "./s3-uri.ts";

/**
 * Where the data of objects goes, or what it is held against up to the first byte that differs: a region's file, which stays open until the job
 * has ended.
 */
export interface FillJob {
  readonly kind: "fill" | "compare";
  readonly parts: readonly S3Part[];
  readonly pieces: Float64Array | undefined;
  readonly compression: Compression;
  readonly dataOffset: number;
  readonly byteSize: number;
  readonly toFd: number;
  /** Of a file that takes no pwrite(2), its pages; else undefined. */
  readonly mappedPageBytes: number | undefined;
}

export type S3Job =
  | { readonly kind: "start"; readonly options: S3Options }
  | { readonly kind: "open"; readonly object: S3Object; readonly format: WantedFormat }
  | FillJob;

export interface S3Request {
  readonly id: number;
  /** Undefined: what goes on under this number is to end. */
  readonly job: S3Job | undefined;
}

export type S3Reply =
  | { readonly id: number; readonly doneBytes: number }
  | { readonly id: number; readonly reply: FileReply };

/** What the loop gets of objects that were opened. */
export type OpenedObjects = Omit<OpenedBytes, "files" | "standing"> & { readonly objects: readonly S3Part[] };
