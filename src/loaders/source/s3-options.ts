/** What the server asks an S3 service with, and what it keeps of an object that it has opened. */

import type { S3Object } from "./s3-uri.ts";

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Of credentials that count for a while; undefined of others. */
  readonly sessionToken: string | undefined;
}

export interface S3Options {
  /** `http://` or `https://`, without a slash at its end. */
  readonly endpoint: string;
  readonly region: string;
  /** Undefined: requests are not signed, which public buckets take. */
  readonly credentials: S3Credentials | undefined;
  /** After so long without a byte a request is given up. This and what follows: the limits', unless a test says otherwise. */
  readonly stallMs?: number;
  /** How long a request may take for all of its range. */
  readonly rangeMs?: number;
  /** What is waited for before the second request. */
  readonly pauseMs?: number;
}

/** An object, and what tells that it is still the one that was opened. */
export interface S3Part extends S3Object {
  readonly byteSize: number;
  readonly etag: string;
  /** As the service says it; empty if it does not. */
  readonly lastModified: string;
}
