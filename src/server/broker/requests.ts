/** The zod schemas of what the broker is asked: closed, as over HTTP. `docs/protocol.md` specifies them. */

import { z } from "@hono/zod-openapi";
import { TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import { leaseKinds } from "../../memory/os/kernel-lease.ts";
import { Report } from "../../routes/hold.ts";
import { ModelName, RegionIdParameter, RegionName, SessionId, Version } from "../../routes/schemas/common.ts";
import { DeviceUuid } from "../../routes/schemas/device.ts";
import { ClientRequest, OpenSession } from "../../routes/schemas/requests.ts";
import { toValidationFailure } from "../../routes/validation-failure.ts";
import type { Frame } from "./frames.ts";

const lease = z.enum(leaseKinds).optional();

const Hello = z.strictObject({
  id: z.int(),
  op: z.literal("hello"),
  v: z.int().min(1),
  token: z.string().max(limits.brokerTokenCharacters).optional(),
  client: ClientRequest.optional(),
  session: z.union([SessionId, OpenSession]).optional(),
});

const Attach = z
  .strictObject({
    id: z.int(),
    op: z.literal("attach"),
    region: RegionIdParameter.optional(),
    model: ModelName.optional(),
    name: RegionName.optional(),
    version: Version.optional(),
    access: z.enum(["ro", "rw"]),
    lease,
    count: z.int().min(0).max(limits.brokerDescriptors).optional(),
    tensors: z.boolean().optional(),
  })
  .refine(({ region, name }) => (region === undefined) !== (name === undefined), "want one of region and name")
  .refine(
    ({ region, model, version }) => region === undefined || (model === undefined && version === undefined),
    "want no model and no version beside region",
  );

const Release = z.strictObject({ id: z.int(), op: z.literal("release"), region: RegionIdParameter, lease });

const Reports = z.strictObject({
  id: z.int(),
  op: z.literal("report"),
  reports: z.array(Report).min(1).max(limits.brokerReports),
});

/** Numbers in a row: the first, and how many. */
const pageRanges = z.array(z.tuple([z.int().min(1), z.int().min(1).max(limits.elasticPages)])).max(limits.elasticPages);
const countPages = (ranges: readonly (readonly [number, number])[]) =>
  ranges.reduce((sum, [, count]) => sum + count, 0);
const poolId = z.string().max(64);

const Pool = z
  .strictObject({
    id: z.int(),
    op: z.literal("pool"),
    model: ModelName.optional(),
    device_uuid: DeviceUuid,
    moves: z.boolean(),
    slot: z.int().min(0).max(limits.regionBytes).optional(),
    taken: pageRanges.optional(),
  })
  .refine(({ slot, taken }) => slot !== undefined || taken === undefined, "want a slot beside taken");

const Take = z.strictObject({
  id: z.int(),
  op: z.literal("take"),
  pool: poolId,
  pages: pageRanges
    .min(1)
    .refine(
      (ranges) => countPages(ranges) <= limits.brokerDescriptors,
      `want at most ${limits.brokerDescriptors} pages`,
    ),
});

const LetGo = z.strictObject({
  id: z.int(),
  op: z.literal("let_go"),
  pool: poolId,
  pages: pageRanges,
  sequence: z.string().regex(/^\d{1,16}$/, "want the id of an event"),
});

const Leave = z.strictObject({ id: z.int(), op: z.literal("leave"), pool: poolId });

const poolSchemas = { pool: Pool, take: Take, let_go: LetGo, leave: Leave } as const;
const schemas = { hello: Hello, attach: Attach, release: Release, report: Reports, ...poolSchemas } as const;

export type HelloRequest = z.infer<typeof Hello>;
export type AttachRequest = z.infer<typeof Attach>;
export type ReleaseRequest = z.infer<typeof Release>;
export type ReportRequest = z.infer<typeof Reports>;
export type PoolRequest = z.infer<typeof Pool>;
export type TakeRequest = z.infer<typeof Take>;
export type LetGoRequest = z.infer<typeof LetGo>;
export type LeaveRequest = z.infer<typeof Leave>;
/** What is asked of elastic pools. */
export type ElasticRequest = PoolRequest | TakeRequest | LetGoRequest | LeaveRequest;
export type BrokerRequest = HelloRequest | AttachRequest | ReleaseRequest | ReportRequest | ElasticRequest;

const hint = "docs/protocol.md, The broker, has what each request takes.";

/** @throws TensordError `validation-failed`. */
export function parseRequest(frame: Frame): BrokerRequest {
  if (!Object.hasOwn(schemas, frame.op)) {
    const wanted = Object.keys(schemas).join(", ");
    throw new TensordError("validation-failed", `Cannot accept the request at op: want one of ${wanted}`, { hint });
  }
  const result = schemas[frame.op as keyof typeof schemas].safeParse(frame);
  if (result.success) return result.data;
  const { code, message, facts } = toValidationFailure(result.error.issues);
  throw new TensordError(code, message, { ...facts, hint });
}
