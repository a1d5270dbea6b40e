/** The zod schemas of what travels: requests, descriptors, lists. How a region becomes a descriptor is `to-wire.ts`'s. */

import { z } from "@hono/zod-openapi";
import { states } from "../memory/journal/region-record.ts";
import { checksumAlgorithm } from "../memory/layout/checksum.ts";
import { dtypes } from "../memory/layout/dtype.ts";
import { limits } from "../memory/limits.ts";
import { namePattern, versionPattern } from "../memory/naming.ts";

export const byteCount = z.int().min(0).max(limits.regionBytes);
export const time = z.string().openapi({ format: "date-time", example: "2026-11-21T12:00:00.000Z" });

export const Name = z.string().regex(namePattern, "want 1 to 128 of A-Z a-z 0-9 . _ - and no leading dot");
export const ModelName = Name.openapi({
  description: "A model's name; write org/name as org--name.",
  example: "llama-7b",
});
export const RegionName = Name.openapi({ description: "A region's name, unique in its model.", example: "weights" });
export const Version = z
  .string()
  .regex(versionPattern, "want at most 128 of A-Z a-z 0-9 . _ -")
  .openapi({ description: "Which build of the name; versions stand side by side. Default: empty." });
export const VersionParameter = z.string().regex(versionPattern).optional().openapi({
  description: "This version. Without one the newest that is sealed, or, where none is, the newest.",
});
export const RegionIdParameter = z.string().max(64).openapi({ example: "reg_abcdefghijklmnopqrstuvwxyz" });

export const Dtype = z.enum(dtypes).openapi("Dtype", { description: "As safetensors names it.", example: "F32" });

/** Checked by hand, and the first mistake only: zod lists every one, and 640,000 of them pass its stack. */
export const Shape = z
  .array(z.custom<number>(() => true))
  .max(limits.tensorDimensions)
  .superRefine((shape, c) => {
    const at = shape.findIndex((dimension) => !byteCount.safeParse(dimension).success);
    if (at !== -1)
      c.addIssue({ code: "custom", path: [at], message: `want a whole number from 0 to ${limits.regionBytes}` });
  })
  .openapi({
    description: "Elements in each dimension, outermost first; [] is a scalar.",
    example: [1024, 1024],
    type: "array",
    maxItems: limits.tensorDimensions,
    items: { type: "integer", minimum: 0, maximum: limits.regionBytes },
  });

const TensorName = z.string().min(1).max(limits.tensorNameBytes).openapi({ example: "w" });

export const TensorRequest = z
  .strictObject({ name: TensorName, dtype: Dtype, shape: Shape })
  .openapi("TensorRequest", { description: "A tensor to lay out in a new region." });

export const Tensor = z
  .object({
    name: TensorName,
    dtype: Dtype,
    shape: Shape,
    byte_offset: byteCount.openapi({ description: "From the start of the file or mapping.", example: 4096 }),
    byte_size: byteCount.openapi({ example: 4_194_304 }),
    aligned: z.boolean().openapi({ description: "Whether byte_offset is a multiple of the element's size." }),
    alias_of: z.string().nullable().openapi({ description: "The tensor whose bytes these are, if it is another's." }),
    logical: z
      .union([z.looseObject({}), z.null()])
      .openapi({ description: "What the elements stand for, if it is more than their dtype says." }),
  })
  .openapi("Tensor");

export const Owner = z
  .object({
    kind: z.enum(["ttl", "linger", "session", "persist"]),
    ttl_ms: z.int().optional(),
    linger_ms: z.int().optional(),
    handoff_ms: z.int().optional().openapi({ description: "How long a hand-off waits for its consumer." }),
    session: z.string().optional(),
  })
  .openapi("Owner", { description: "What decides the region's end.", example: { kind: "ttl", ttl_ms: 600_000 } });

export const Storage = z
  .object({
    kind: z.enum(["shm"]),
    format: z.enum(["safetensors", "raw"]).openapi({
      description: "`safetensors`: a valid safetensors file. `raw`: data from the first byte on.",
    }),
    shm_name: z.string().nullable().openapi({
      description: "For shm_open; null outside /dev/shm.",
      example: "/tensord.default.abcdefghijklmnopqrstuvwxyz",
    }),
    path: z.string().nullable().openapi({
      description: "The file to map; null of storage that has no name.",
      example: "/dev/shm/tensord.default.abcdefghijklmnopqrstuvwxyz",
    }),
    dev: z.string().openapi({ description: "Device and inode: another one means another /dev/shm.", example: "27" }),
    ino: z.string().openapi({ example: "4711" }),
    byte_size: byteCount.openapi({ description: "The whole file.", example: 4_198_400 }),
    page_size: z.int().openapi({ example: 4096 }),
  })
  .openapi("Storage");

export const Checksum = z
  .object({
    algorithm: z.enum([checksumAlgorithm]),
    chunk_bytes: z.int().openapi({ example: limits.checksumChunkBytes }),
    value: z.string().openapi({ description: "16 hexadecimal digits.", example: "2d06800538d394c2" }),
  })
  .openapi("Checksum", { description: "Specified in docs/protocol.md." });

/** Checked by hand: zod drops `__proto__` in silence, and lists 800,000 mistakes. */
function labelsOf<Value>(isValue: (value: unknown) => boolean, schema: { type: "string" | ["string", "null"] }) {
  return z
    .custom<Record<string, Value>>(
      (labels) => typeof labels === "object" && labels !== null && !Array.isArray(labels),
      {
        message: "want an object",
        abort: true,
      },
    )
    .superRefine((labels, c) => {
      const entries = Object.entries(labels);
      if (entries.length > limits.labels)
        return c.addIssue({ code: "custom", message: `want at most ${limits.labels} labels` });
      for (const [key, value] of entries) {
        const isKey = key !== "" && key.length <= limits.labelKeyCharacters && key !== "__proto__";
        if (!isKey)
          return c.addIssue({ code: "custom", message: `want keys of 1 to ${limits.labelKeyCharacters} characters` });
        if (!isValue(value)) {
          c.addIssue({
            code: "custom",
            path: [key],
            message: `want text of at most ${limits.labelValueCharacters} characters`,
          });
          return;
        }
      }
    })
    .openapi({
      type: "object",
      additionalProperties: schema,
      maxProperties: limits.labels,
      example: { job: "nightly" },
    });
}
const isLabelValue = (value: unknown) => typeof value === "string" && value.length <= limits.labelValueCharacters;
export const Labels = labelsOf<string>(isLabelValue, { type: "string" });
const LabelsPatch = labelsOf<string | null>((value) => value === null || isLabelValue(value), {
  type: ["string", "null"],
});

export const Client = z
  .object({
    name: z.union([z.string(), z.null()]),
    pid: z.union([z.int(), z.null()]),
    pid_namespace: z.string().nullable().openapi({ description: "The PID namespace in which it has that pid." }),
    hostname: z.union([z.string(), z.null()]),
    version: z.union([z.string(), z.null()]),
    labels: z.record(z.string(), z.string()),
  })
  .openapi("Client", { description: "Who the worker says it is." });

export const RegionFacts = z
  .object({
    id: z.string().openapi({ example: "reg_abcdefghijklmnopqrstuvwxyz" }),
    model: ModelName,
    name: z.string().nullable().openapi({ example: "weights" }),
    version: Version,
    pending_name: z.string().nullable().openapi({ description: "The name it takes over when it is sealed." }),
    state: z.enum(states),
    revision: z.int().openapi({ description: "Raised by every change; also the ETag." }),
    owner: Owner,
    session: z.union([z.string(), z.null()]).openapi({
      description: "The session that ends it: its owner, or who builds it under a claim until it is sealed.",
    }),
    expires_at: z.union([time, z.null()]),
    evictable: z.boolean(),
    labels: z.record(z.string(), z.string()),
    storage: Storage,
    tensor_count: z.int(),
    checksum: z.union([Checksum, z.null()]),
    created_at: time,
    sealed_at: z.union([time, z.null()]),
    last_used_at: time,
  })
  .openapi("RegionFacts", {
    description: "A region's descriptor without its tensors, of which there may be thousands.",
  });

export const Region = RegionFacts.extend({ tensors: z.array(Tensor) }).openapi("Region", {
  description: "A region's descriptor: enough to map it.",
});

export const RegionDetail = Region.extend({
  in_use: z.boolean().openapi({ description: "Whether any process maps it, as the kernel knows." }),
  has_writers: z.boolean().openapi({ description: "Whether any process maps it for writing." }),
  leases: z.int().openapi({ description: "Leases by request." }),
  holders: z
    .array(
      z
        .object({
          session: z.string(),
          client: z.union([Client, z.null()]),
          mappings: z.int(),
          writable: z.boolean(),
        })
        .openapi("Holder"),
    )
    .openapi({ description: "Who maps it, as their clients report over the hold socket." }),
  unknown_holders: z.boolean().openapi({ description: "The kernel knows of a mapping that nobody reported." }),
  drain: z
    .object({
      reason: z.string().nullable(),
      waits_for: z.enum(["lease", "hard-link"]).nullable().openapi({
        description: "`lease`: a process still maps it. `hard-link`: something outside links its file.",
      }),
    })
    .optional()
    .openapi({ description: "Only while it drains." }),
}).openapi("RegionDetail", { description: "A descriptor, and what the kernel says of it now." });

export const CreateRegion = z
  .strictObject({
    model: ModelName.optional().openapi({ description: "Default: `default`." }),
    name: RegionName.optional(),
    version: Version.optional(),
    storage: z
      .enum(["shm", "memfd", "file", "heap", "cuda_vmm"])
      .optional()
      .openapi({ description: "Default: `shm`." }),
    tensors: z.array(TensorRequest).min(1).max(limits.regionTensors).optional(),
    byte_size: byteCount.optional().openapi({ description: "Instead of `tensors`: one U8 tensor named `data`." }),
    ttl_ms: z.int().min(1).max(limits.ttlMs).optional().openapi({ description: "Owner: it ends this long after now." }),
    linger_ms: z.int().min(0).max(limits.ttlMs).optional().openapi({
      description: "Owner: it ends this long after the last lease. 0 hands it off: gone when its consumer lets go.",
    }),
    handoff_ms: z
      .int()
      .min(0)
      .max(limits.ttlMs)
      .optional()
      .openapi({
        description: `With linger_ms 0: how long it waits for a consumer that maps it. Default ${limits.handoffDefaultMs}.`,
      }),
    session: z.string().max(64).optional().openapi({ description: "Owner: it ends with this session." }),
    persist: z.literal(true).optional().openapi({ description: "Owner: it ends by DELETE only. Needs a name." }),
    claim: z.string().max(64).optional().openapi({ description: "The claim under which the name is built." }),
    evictable: z.boolean().optional().openapi({
      description: "Once it is sealed and nobody maps it, it may go to make room. Default false.",
    }),
    on_full: z.enum(["fail", "evict", "wait"]).optional().openapi({
      description:
        "Without room: `fail` (the default), `evict` what may go, or `wait` for it as well, up to `deadline_ms`.",
    }),
    deadline_ms: z
      .int()
      .min(1)
      .max(limits.deadlineMs)
      .optional()
      .openapi({
        description: `How long to wait for memory. Default ${limits.deadlineDefaultMs}.`,
      }),
    if_exists: z.enum(["fail", "attach", "replace"]).optional().openapi({
      description:
        "Default `fail`. `attach`: the existing region, if its tensors agree. `replace`: takes the name over when it is sealed.",
    }),
    labels: Labels.optional(),
  })
  .openapi("CreateRegion", {
    description:
      "Exactly one of `tensors` and `byte_size`, and exactly one owner: `session`, `ttl_ms`, `linger_ms` or `persist`.",
    example: {
      model: "default",
      name: "weights",
      tensors: [{ name: "w", dtype: "F32", shape: [1024, 1024] }],
      ttl_ms: 600_000,
    },
  });

export const ChangeRegion = z
  .strictObject({
    ttl_ms: z.int().min(1).max(limits.ttlMs).optional().openapi({ description: "A new TTL, counted from now." }),
    linger_ms: z.int().min(0).max(limits.ttlMs).optional(),
    handoff_ms: z.int().min(0).max(limits.ttlMs).optional(),
    persist: z.literal(true).optional(),
    evictable: z.boolean().optional(),
    labels: LabelsPatch.optional(),
  })
  .openapi("ChangeRegion", { description: "Merged into what is there (RFC 7396).", example: { ttl_ms: 3_600_000 } });

export const SealRegion = z
  .strictObject({
    checksum: z.boolean().optional().openapi({ description: "Take a checksum of the data. Default false." }),
    stock_writable: z.boolean().optional().openapi({
      description: "Leave the file writable by mode, for stock readers that always open read-write. Default false.",
    }),
  })
  .openapi("SealRegion", { example: { checksum: true } });

export const Verification = z
  .object({
    ok: z.boolean().nullable().openapi({ description: "null: it was sealed without a checksum." }),
    algorithm: z.enum([checksumAlgorithm]),
    expected: z.string().nullable(),
    actual: z.string(),
  })
  .openapi("Verification");

export const DataWritten = z.object({ written_bytes: byteCount }).openapi("DataWritten");

export const Deletion = z
  .object({
    state: z.enum(["deleted", "draining"]),
    freed_bytes: byteCount,
  })
  .openapi("Deletion", { description: "`draining`: a process still maps it; the bytes go when the last one lets go." });

export const Pool = z
  .object({
    pool: z.string().openapi({ description: "`host`, or a device's UUID.", example: "host" }),
    limit_bytes: byteCount.nullable().openapi({ description: "What regions may take together; null without a limit." }),
    used_bytes: byteCount.openapi({ description: "Charged, the draining ones apart." }),
    draining_bytes: byteCount,
  })
  .openapi("Pool", { description: "A limit and its sums, of host memory or of the memory of one device." });

export const Model = z
  .object({
    name: ModelName,
    pools: z.array(Pool).openapi({ description: "What its regions take: `host` always, and each device they are on." }),
    regions: z.int(),
    revision: z.int(),
    created_at: time,
  })
  .openapi("Model");

export const RegisterModel = z
  .strictObject({ name: ModelName, memory_limit_bytes: byteCount.nullable().optional() })
  .openapi("RegisterModel", { example: { name: "llama-7b", memory_limit_bytes: 17_179_869_184 } });

export const ChangeModel = z
  .strictObject({ memory_limit_bytes: byteCount.nullable() })
  .openapi("ChangeModel", { example: { memory_limit_bytes: 34_359_738_368 } });

export const ServerPool = Pool.extend({
  available_bytes: byteCount.openapi({ description: "What may still be allocated, by the limit and what is free." }),
  unaccounted_bytes: z.int().openapi({ description: "In use there, and not by this instance." }),
}).openapi("ServerPool", { description: "A pool of the server's, beside what the machine says." });

export const Stats = z
  .object({
    instance: z.string(),
    version: z.string(),
    epoch: z.int().openapi({ description: "Raised at every start of the server." }),
    pools: z.array(ServerPool),
    journal_bytes: byteCount.openapi({ description: "What the server's own database and ballast occupy." }),
    inodes: z.object({ used: z.int(), free: z.int() }),
    regions: z.object({
      creating: z.int(),
      open: z.int(),
      sealing: z.int(),
      sealed: z.int(),
      draining: z.int(),
    }),
    models: z.int(),
    sessions: z.int(),
    claims: z.int(),
    leases: z.int().openapi({ description: "Leases by request; kernel locks are not counted." }),
    http: z.object({
      requests: z.int(),
      received_bytes: z
        .int()
        .openapi({ description: "Request bodies. Tensor bytes are among them only by PUT …/data." }),
      sent_bytes: z.int().openapi({ description: "Response bodies." }),
    }),
  })
  .openapi("Stats");

export const nextCursor = z.string().nullable().openapi({ description: "For the next page; null at the end." });
export const RegionList = z.object({ items: z.array(RegionFacts), next_cursor: nextCursor }).openapi("RegionList");
export const ModelList = z.object({ items: z.array(Model), next_cursor: nextCursor }).openapi("ModelList");
