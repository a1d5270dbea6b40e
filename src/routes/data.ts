/** The HTTP data plane: a region's bytes out and in, whole, by tensor, or by range. For those who cannot map it. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { TensordError } from "../memory/error.ts";
import { describe, idOf } from "../memory/journal/region-record.ts";
import { limits } from "../memory/limits.ts";
import { type DataSlice, locateData, writeData } from "../memory/regions/data.ts";
import type { Region } from "../memory/state/region.ts";
import { accessRegion } from "./access/checks.ts";
import type { Operation } from "./access/rights.ts";
import { answer } from "./answer.ts";
import { parseContentRange, toSlice } from "./byte-range.ts";
import { refuseEncoded } from "./content-encoding.ts";
import { json } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { ChangeConditions, checkRegion, toTaggedRegion } from "./preconditions.ts";
import { alwaysPossible, declareFailures } from "./problem.ts";
import { RegionIdParameter } from "./schemas/common.ts";
import * as schemas from "./schemas/region.ts";
import { bytesContent, declareBytes, RangeHeaders, sendBytes } from "./send-bytes.ts";

/** Bodies of these requests are data, of any size, and never read whole. */
export const dataPath = /^\/v1\/regions\/[^/]+\/data\/?$/;

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
    headers: RangeHeaders,
  },
  responses: declareBytes("tensor-not-found", "region-draining"),
});

const upload = createRoute({
  operationId: "writeData",
  method: "put",
  path: "/v1/regions/{region}/data",
  tags: ["regions"],
  summary: "Write an open region's bytes, for those who cannot map it",
  description:
    "The body is exactly as long as what it fills. One that fails midway leaves the bytes that came. Conditions are about " +
    "the region's ETag, which writing does not change.",
  request: {
    params,
    query,
    headers: z.object({
      "content-range": z
        .string()
        .optional()
        .openapi({ description: "The part that comes.", example: "bytes 0-1023/*" }),
      ...ChangeConditions.shape,
    }),
    body: { required: true, content: bytesContent },
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
      "revision-mismatch",
      "cancelled",
      "payload-too-large",
      "unsupported-media-type",
      "range-not-satisfiable",
      "io-error",
      "storage-unavailable",
      "shutting-down",
      "deadline-exceeded",
      "out-of-shared-memory",
    ),
  },
});

export function defineDataRoutes(app: OpenAPIHono<Environment>, { store, traffic }: Services): void {
  app.openapi(download, (c) => {
    store.refuseIfStopping();
    const { region, whole } = locate(c, "readData", c.req.valid("param").region, c.req.valid("query").tensor);
    return sendBytes(c, store, region, whole, `${region.name ?? idOf(region)}.bin`);
  });

  app.openapi(upload, async (c) => {
    store.refuseIfStopping();
    const { region, whole } = locate(c, "writeData", c.req.valid("param").region, c.req.valid("query").tensor);
    if (c.req.header("range") !== undefined) throw rangeOfUpload();
    refuseEncoded(c.req.header("content-encoding"));
    const slice = toSlice(whole, parseContentRange(c.req.valid("header")["content-range"], whole.byteSize));
    const isMeasured = checkLength(region, slice, c.req.header("content-length"));
    checkRegion(c, region, "write", toTaggedRegion(region));
    c.env?.stay?.("take the bytes");
    await writeData(store, region, slice, { body: c.req.raw.body ?? new Blob().stream(), isMeasured });
    traffic.receivedBytes += slice.byteSize;
    return answer(c, { written_bytes: slice.byteSize }, 200);
  });

  function locate(
    c: Context<Environment>,
    operation: Operation,
    id: string,
    tensor: string | undefined,
  ): { readonly region: Region; readonly whole: DataSlice } {
    const region = accessRegion(c.get("caller"), operation, store, id);
    return { region, whole: locateData(region, tensor) };
  }
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
