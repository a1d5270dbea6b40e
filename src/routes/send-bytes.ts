/**
 * How bytes of a region leave: under the client's conditions, whole or in ranges. Up to `limits.downloadCopyBytes` they are
 * read and checked before the answer begins, and its connection is kept; more is sent by the kernel, from the file.
 */

import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { FailureCode } from "../memory/error.ts";
import { limits } from "../memory/limits.ts";
import { copyData, type DataSlice, sendData } from "../memory/regions/data.ts";
import { nextState } from "../memory/state/lifecycle.ts";
import type { Region } from "../memory/state/region.ts";
import type { Store } from "../memory/state/store.ts";
import { contentRange, download } from "./answer-headers.ts";
import { parseRanges, toSlice } from "./byte-range.ts";
import type { Environment } from "./environment.ts";
import { multipartMediaType, toContentRange, toMultipart } from "./multipart.ts";
import { isKnown, notModified, ReadConditions, setBytesTag, type Tagged, toTaggedBytes } from "./preconditions.ts";
import { alwaysPossible, declareFailures } from "./problem.ts";

const mediaType = "application/octet-stream";
const binary = { schema: z.string().openapi({ format: "binary" }) };

export const bytesContent = { [mediaType]: binary } as const;

export const RangeHeaders = z.object({
  range: z
    .string()
    .optional()
    .openapi({
      description: `Ranges of bytes, at most ${limits.ranges}. Several that together are more than ${limits.downloadCopyBytes} bytes are answered with all of it.`,
      example: "bytes=0-1023",
    }),
  "if-range": z
    .string()
    .optional()
    .openapi({ description: "The ETag that the range is of; of another one, all is sent." }),
  ...ReadConditions.shape,
});

/** What a route that sends bytes answers. @param codes failures of its own. */
export function declareBytes(...codes: FailureCode[]) {
  return {
    200: { description: "All of it. Of a sealed region it has an ETag.", headers: download, content: bytesContent },
    // No content of its own for several: generators stop at a media type that they do not know, and ask for no two ranges.
    206: {
      description: "The range; several are parts of `multipart/byteranges`.",
      headers: { ...download, ...contentRange },
      content: bytesContent,
    },
    ...notModified,
    ...declareFailures(
      ...alwaysPossible,
      ...codes,
      "region-not-found",
      "storage-unavailable",
      "region-busy",
      "revision-mismatch",
      "range-not-satisfiable",
      "io-error",
      "shutting-down",
    ),
  };
}

/** @param whole what the ranges are of. @param fileName by which whoever saves them calls them. */
export function sendBytes(c: Context<Environment>, store: Store, region: Region, whole: DataSlice, fileName: string) {
  nextState(region, "read");
  const tagged = toTaggedBytes(region);
  setBytesTag(c, tagged);
  if (isKnown(c, tagged)) return c.body(null, 304);
  const ranges = selectRanges(c, tagged, whole.byteSize);
  c.header("Accept-Ranges", "bytes");
  c.header("Content-Disposition", `attachment; filename="${fileName}"`);
  const [range, ...more] = ranges ?? [];
  if (ranges !== undefined && more.length > 0) {
    const slices = ranges.map((each) => toSlice(whole, each));
    if (slices.reduce((sum, { byteSize }) => sum + byteSize, 0) <= limits.downloadCopyBytes) {
      const boundary = `tensord-${crypto.randomUUID()}`;
      const body = toMultipart(boundary, ranges, copyData(store, region, slices), whole.byteSize);
      return send(c, body, `${multipartMediaType}; boundary=${boundary}`, 206);
    }
  }
  if (range === undefined || more.length > 0) return sendSlice(c, store, region, whole, 200);
  c.header("Content-Range", toContentRange(range, whole.byteSize));
  return sendSlice(c, store, region, toSlice(whole, range), 206);
}

/** The ranges that count: those of If-Range only if nothing has changed, by the letter of the ETag and never by a date. */
function selectRanges(c: Context<Environment>, { tags: [tag] }: Tagged, size: number) {
  const ifRange = c.req.header("if-range");
  if (ifRange !== undefined && (tag === undefined || ifRange.trim() !== `"${tag}"`)) return undefined;
  return parseRanges(c.req.header("range"), size);
}

function sendSlice(c: Context<Environment>, store: Store, region: Region, slice: DataSlice, status: 200 | 206) {
  const { byteOffset, byteSize } = slice;
  if (byteSize <= limits.downloadCopyBytes) {
    return send(c, copyData(store, region, [slice])[0] ?? "", mediaType, status);
  }
  c.env?.stay?.("send the bytes");
  const sending = sendData(store, region, slice);
  // Its end is told by the runtime, and its breaking off as well.
  if (sending instanceof ReadableStream) return sendStream(c, sending, byteSize, status);
  const { path, begun } = sending;
  c.env?.onBegun?.(begun);
  // The runtime takes a file that a worker truncated meanwhile for sent. Only the connection's end tells the client, who
  // would wait for the rest, and take the next answer for it.
  c.header("Connection", "close");
  // Sent by the kernel, from the page cache to the socket: no byte of it comes into this process.
  return send(c, Bun.file(path).slice(byteOffset, byteOffset + byteSize), mediaType, status);
}

function sendStream(c: Context<Environment>, stream: ReadableStream, byteSize: number, status: 200 | 206) {
  c.env?.sent?.(byteSize);
  return c.body(stream, status, { "content-type": mediaType }) as never;
}

/** Hono knows no body that the runtime sends by itself, but hands on what it is given. */
function send(c: Context<Environment>, body: Blob | Uint8Array | string, contentType: string, status: 200 | 206) {
  c.env?.sent?.(body instanceof Blob ? body.size : body.length);
  return c.body(body as string, status, { "content-type": contentType }) as never;
}
