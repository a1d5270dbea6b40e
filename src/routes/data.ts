/** The HTTP data plane: a region's bytes out and in, whole, by tensor, or by range. For those who cannot map it. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TensordError } from "../memory/error.ts";
import { describe, idOf } from "../memory/journal/region-record.ts";
import { limits } from "../memory/limits.ts";
import { type DataSlice, locateData, readData, writeData } from "../memory/regions/data.ts";
import type { Region } from "../memory/state/region.ts";
import { answer } from "./answer.ts";
import { parseContentRange, parseRange, toSlice } from "./byte-range.ts";
import { refuseEncoded } from "./content-encoding.ts";
import { json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { alwaysPossible, declareFailures } from "./problem.ts";
import { RegionIdParameter } from "./schemas/common.ts";
import * as schemas from "./schemas/region.ts";

/** Bodies of these requests are data, of any size, and never read whole. */
export const dataPath = /^\/v1\/regions\/[^/]+\/data\/?$/;

const bytes = { "application/octet-stream": { schema: z.string().openapi({ format: "binary" }) } };
const params = z.object({ region: RegionIdParameter });
const query = z.object({
  tensor: z.string().max(limits.tensorNameBytes).optional().openapi({
    description: "Only this tensor's bytes. Left out: those of all tensors, from the end of the header on.",
    example: "w",
  }),
});

const download = createRoute({
  operationId: "readData",
  method: "get",
  path: "/v1/regions/{region}/data",
  tags: ["regions"],
  summary: "A region's bytes, for those who cannot map it",
  description:
    "A region that can be mapped needs no download: this is for `heap` regions, other hosts and debugging. A " +
    "sealed region's bytes never change, so that its ETag is good for resuming with `Range` and `If-Range`.",
  request: {
    params,
    query,
    headers: z.object({
      range: z.string().optional().openapi({ description: "One range of bytes.", example: "bytes=0-1023" }),
      "if-range": z
        .string()
        .optional()
        .openapi({ description: "The ETag that the range is of; of another one, all is sent." }),
    }),
  },
  responses: {
    200: { description: "All of it. Of a sealed region it has an ETag.", content: bytes },
    206: { description: "The range.", content: bytes },
    ...declareFailures(
      ...alwaysPossible,
      "region-not-found",
      "tensor-not-found",
      "region-busy",
      "region-draining",
      "range-not-satisfiable",
      "io-error",
      "shutting-down",
    ),
  },
});

const upload = createRoute({
  operationId: "writeData",
  method: "put",
  path: "/v1/regions/{region}/data",
  tags: ["regions"],
  summary: "Write an open region's bytes, for those who cannot map it",
  description: "The body is exactly as long as what it fills. One that fails midway leaves the bytes that came.",
  request: {
    params,
    query,
    headers: z.object({
      "content-range": z
        .string()
        .optional()
        .openapi({ description: "The part that comes.", example: "bytes 0-1023/*" }),
    }),
    body: { required: true, content: bytes },
  },
  responses: {
    200: json("Written.", schemas.DataWritten),
    ...declareFailures(
      ...alwaysPossible,
      "region-not-found",
      "tensor-not-found",
      "region-busy",
      "region-sealed",
      "region-draining",
      "cancelled",
      "payload-too-large",
      "unsupported-media-type",
      "range-not-satisfiable",
      "io-error",
      "shutting-down",
      "deadline-exceeded",
      "out-of-shared-memory",
    ),
  },
});

export function defineDataRoutes(app: OpenAPIHono<Environment>, { store, traffic }: Services): void {
  app.openapi(download, (c) => {
    store.refuseIfStopping();
    const { region, whole } = locate(c.req.valid("param").region, c.req.valid("query").tensor);
    const etag = region.state === "sealed" ? `"${idOf(region)}"` : undefined;
    const { range: header, "if-range": ifRange } = c.req.valid("header");
    const range = ifRange === undefined || ifRange === etag ? parseRange(header, whole.byteSize) : undefined;
    const { byteOffset, byteSize } = toSlice(whole, range);
    if (etag !== undefined) c.header("ETag", etag);
    c.header("Accept-Ranges", "bytes");
    c.header("Content-Type", "application/octet-stream");
    c.header("Content-Disposition", `attachment; filename="${region.name ?? idOf(region)}.bin"`);
    if (range !== undefined) c.header("Content-Range", `bytes ${range.first}-${range.last}/${whole.byteSize}`);
    const path = readData(store, region);
    traffic.sentBytes += byteSize;
    // The runtime takes a file that a worker truncated meanwhile for sent. Only the connection's end tells the client, who
    // would wait for the rest, and take the next answer for it.
    c.header("Connection", "close");
    // Sent by the kernel, from the page cache to the socket: no byte of it comes into this process.
    return send(c, byteSize === 0 ? "" : Bun.file(path).slice(byteOffset, byteOffset + byteSize), range ? 206 : 200);
  });

  app.openapi(upload, async (c) => {
    store.refuseIfStopping();
    const { region, whole } = locate(c.req.valid("param").region, c.req.valid("query").tensor);
    if (c.req.header("range") !== undefined) throw rangeOfUpload();
    refuseEncoded(c.req.header("content-encoding"));
    const slice = toSlice(whole, parseContentRange(c.req.valid("header")["content-range"], whole.byteSize));
    const isMeasured = checkLength(region, slice, c.req.header("content-length"));
    await writeData(store, region, slice, { body: c.req.raw.body ?? new Blob().stream(), isMeasured });
    traffic.receivedBytes += slice.byteSize;
    return answer(c, { written_bytes: slice.byteSize }, 200);
  });

  function locate(id: string, tensor: string | undefined): { readonly region: Region; readonly whole: DataSlice } {
    const region = store.books.region(id);
    return { region, whole: locateData(region, tensor) };
  }
}

/** Hono knows no body that the runtime sends by itself, but hands on what it is given. */
function send(c: Context<Environment>, body: Blob | string, status: 200 | 206) {
  return c.body(body as string, status) as never;
}

/**
 * What the sender says beforehand is refused beforehand, before a byte is written.
 * @returns whether it said anything; the transport holds it to its word.
 */
function checkLength(region: Region, slice: DataSlice, header: string | undefined): boolean {
  if (header === undefined) return false;
  const length = Number(header);
  if (length === slice.byteSize) return true;
  throw new TensordError(
    length > slice.byteSize ? "payload-too-large" : "validation-failed",
    `Cannot write to ${describe(region)}: the body has ${length} bytes, want ${slice.byteSize}`,
    { hint: "Nothing was written. Send exactly the bytes of the tensor, or say with Content-Range which part comes." },
  );
}

function rangeOfUpload(): TensordError {
  return new TensordError("validation-failed", "Cannot write: Range belongs to a download, want Content-Range", {
    hint: "Say which part comes with Content-Range: bytes 0-1023/*.",
  });
}
