/** The zod schemas of requests' bodies. They are closed: a field, or a word, that is not here is refused. */

import { z } from "@hono/zod-openapi";
import { pidNamespacePattern } from "../../memory/host/process-id.ts";
import { dtypes } from "../../memory/layout/dtype.ts";
import { limits } from "../../memory/limits.ts";
import { isPlainText } from "../../memory/naming.ts";
import { type HugePage, hugePageBytes, storageKinds } from "../../memory/storage/storage.ts";
import {
  byteCount,
  idPattern,
  ModelName,
  Pid,
  RegionIdParameter,
  RegionName,
  SessionId,
  Shape,
  TensorName,
  Version,
  wantPlainText,
} from "./common.ts";
import { ClientLabels, Labels, LabelsPatch } from "./labels.ts";

const text = z.string().max(limits.clientCharacters).refine(isPlainText, wantPlainText);

/** Not `z.literal(true)`: of an enum of booleans many generators make what does not compile. */
const Persist = z.boolean().optional();

const Ttl = z.int().min(limits.sessionTtlMinMs).max(limits.sessionTtlMaxMs);

export const Dtype = z.enum(dtypes).openapi("Dtype", {
  description: "What may be asked for, as safetensors names it. What is answered may be more.",
  example: "F32",
});

export const TensorRequest = z
  .strictObject({
    name: TensorName,
    dtype: Dtype,
    shape: Shape,
    alias_of: TensorName.optional().openapi({
      description: "The tensor whose bytes these are: of this request, and no alias itself. They are counted once.",
    }),
    alias_byte_offset: byteCount.optional().openapi({
      description:
        "With `alias_of`: where it begins in that tensor. Default 0. It and that tensor's `byte_size` are multiples of " +
        "this one's element size.",
    }),
  })
  .openapi("TensorRequest", { description: "A tensor to lay out in a new region." });

export const has = (...required: string[]) => ({ required });
const persists = { ...has("persist"), properties: { persist: { const: true } } };
const handsOff = { dependentRequired: { handoff_ms: ["linger_ms"] } };
const oneSize = { oneOf: [has("tensors"), has("byte_size")] };
/** What lingers may say beside who builds it. */
const oneOwner = {
  oneOf: [has("ttl_ms"), has("linger_ms"), { ...has("session"), not: has("linger_ms") }, persists],
};
const namedIfItPersists = { anyOf: [has("name"), { not: persists }] };
/** What every new region says that has a name anyway. */
export const ownedNamedRegion = { allOf: [oneOwner, handsOff] };
/** What every new region says beside its size. */
export const ownedRegion = { allOf: [oneOwner, namedIfItPersists, handsOff] };
const oneOwnerOrNone = {
  oneOf: [has("ttl_ms"), has("linger_ms"), persists, { not: { anyOf: [has("ttl_ms"), has("linger_ms"), persists] } }],
};

/**
 * A rule of JSON Schema over several fields, as an `if` whose `else` nothing meets: validators hold requests to it. Generators read a
 * `oneOf` beside properties as so many types, and an `if` as nothing.
 */
export function exactly(rule: object) {
  return { if: rule, else: { not: {} } };
}

export const CreateRegion = z
  .strictObject({
    model: ModelName.optional().openapi({ description: "Default: `default`." }),
    name: RegionName.optional(),
    version: Version.optional(),
    storage: z
      .enum(storageKinds)
      .optional()
      .openapi({ description: "Default: the first that the server has of `shm`, `memfd` and `heap`." }),
    device_uuid: z.string().min(1).max(limits.poolCharacters).optional().openapi({
      description:
        "With `cuda_vmm` storage: the device, by its UUID. May be left out where there is exactly one. /v1/stats has a pool for each.",
      example: "GPU-8f6d3f2a-1c5b-4f0e-9b1d-2f3a4b5c6d7e",
    }),
    private: z
      .boolean()
      .optional()
      .openapi({
        description:
          "It has no name that others open, and no uid but the server's may: it is reached by a descriptor from the broker, or as " +
          "bytes over HTTP. Regions in `memfd` storage are so anyway. Default false.",
      }),
    huge_pages: z
      .enum(Object.keys(hugePageBytes) as [HugePage, ...HugePage[]])
      .optional()
      .openapi({
        description:
          "With `memfd` storage: it is made of reserved pages of this size, or refused. What the host has, capabilities say.",
      }),
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
        description:
          "With linger_ms 0: how long it waits, once it is sealed and its maker has let go, for a consumer that maps it. " +
          `Default ${limits.handoffDefaultMs}.`,
      }),
    session: z
      .string()
      .max(64)
      .optional()
      .openapi({
        ...idPattern("ses_"),
        description:
          "Owner: it ends with this session. With `linger_ms`: who builds it; until it is sealed it ends with this session, too.",
      }),
    persist: Persist.openapi({ description: "Owner: it ends by DELETE only. Needs a name. false: as if left out." }),
    claim: z
      .string()
      .max(64)
      .optional()
      .openapi({ ...idPattern("clm_"), description: "The claim under which the name is built." }),
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
      "Exactly one of `tensors` and `byte_size`, and exactly one owner: `session`, `ttl_ms`, `linger_ms` or `persist`; " +
      "`linger_ms` may have the `session` that builds it beside it.",
    example: {
      model: "default",
      name: "weights",
      tensors: [{ name: "w", dtype: "F32", shape: [1024, 1024] }],
      ttl_ms: 600_000,
    },
    ...exactly({ allOf: [oneSize, oneOwner, namedIfItPersists, handsOff] }),
  });

export const ChangeRegion = z
  .strictObject({
    ttl_ms: z.int().min(1).max(limits.ttlMs).optional().openapi({ description: "A new TTL, counted from now." }),
    linger_ms: z.int().min(0).max(limits.ttlMs).optional(),
    handoff_ms: z.int().min(0).max(limits.ttlMs).optional(),
    persist: Persist.openapi({ description: "false: as if left out." }),
    evictable: z.boolean().optional(),
    labels: LabelsPatch.optional(),
  })
  .openapi("ChangeRegion", {
    description: "Merged into what is there (RFC 7396). At most one owner, as in CreateRegion.",
    example: { ttl_ms: 3_600_000 },
    ...exactly({ allOf: [oneOwnerOrNone, handsOff] }),
  });

export const SealRegion = z
  .strictObject({
    checksum: z.boolean().optional().openapi({ description: "Take a checksum of the data. Default false." }),
    stock_writable: z.boolean().optional().openapi({
      description: "Leave the file writable by mode, for stock readers that always open read-write. Default false.",
    }),
  })
  .openapi("SealRegion", { example: { checksum: true } });

const memoryLimit = byteCount.nullable().optional().openapi({ description: "Of host memory; null: none of its own." });

const PoolLimitRequest = z
  .strictObject({
    pool: z.string().min(1).max(limits.poolCharacters).openapi({
      description: "`host`, or a device's UUID.",
      example: "GPU-8f6d3f2a-1c5b-4f0e-9b1d-2f3a4b5c6d7e",
    }),
    limit_bytes: byteCount.nullable(),
  })
  .openapi("PoolLimitRequest", { description: "What a model's regions may take of a pool; null: any amount." });

const poolLimits = z
  .array(PoolLimitRequest)
  .min(1)
  .max(limits.poolsLimited)
  .optional()
  .openapi({ description: "Limits by pool. Pools that are not here keep theirs." });

export const RegisterModel = z
  .strictObject({ name: ModelName, memory_limit_bytes: memoryLimit, limits: poolLimits })
  .openapi("RegisterModel", { example: { name: "llama-7b", memory_limit_bytes: 17_179_869_184 } });

export const ChangeModel = z
  .strictObject({ memory_limit_bytes: memoryLimit, limits: poolLimits })
  .refine((request) => Object.values(request).some((value) => value !== undefined), "want memory_limit_bytes or limits")
  .openapi("ChangeModel", {
    ...exactly({ anyOf: [has("memory_limit_bytes"), has("limits")] }),
    example: { memory_limit_bytes: 34_359_738_368 },
  });

export const ClientRequest = z
  .strictObject({
    name: text.optional(),
    pid: Pid.optional().openapi({ description: "As it knows it itself." }),
    pid_namespace: z.string().regex(pidNamespacePattern).optional().openapi({
      description: "What /proc/self/ns/pid links to: the server then says the PID as it sees it.",
    }),
    hostname: text.optional(),
    version: text.optional(),
    labels: ClientLabels.optional(),
  })
  .openapi("ClientRequest", { example: { name: "gunicorn worker", pid: 4711 } });

export const OpenSession = z
  .strictObject({
    name: text.optional(),
    client: ClientRequest.optional(),
    quota_bytes: byteCount
      .optional()
      .openapi({ description: "What it may own at once. Default: no bound of its own." }),
    ttl_ms: Ttl.optional().openapi({
      description: `It ends this long after its last renewal, unless it is held. Default ${limits.sessionTtlDefaultMs}.`,
    }),
  })
  .openapi("OpenSession", { example: { client: { name: "trainer", pid: 4711 }, ttl_ms: 30_000 } });

export const ClaimRequest = z
  .strictObject({
    session: SessionId,
    version: Version.optional().openapi({
      description: "Which build. Without one whichever there is, and the empty one is built if there is none.",
    }),
    rebuild: RegionIdParameter.optional().openapi({
      description:
        "The sealed region that is to be built anew: it counts as if it were not there. Whatever was sealed in its place is " +
        "yours as a reader, so that of many who ask for it one builds. Create the new one with `if_exists: replace`.",
    }),
    key: z.string().min(1).max(128).refine(isPlainText, wantPlainText).optional().openapi({
      description:
        "What you call this request. Asking again with the same key gets the same claim, should an answer be lost.",
    }),
  })
  .openapi("ClaimRequest", { example: { session: "ses_abcdefghijklmnopqrstuvwxyz", key: "1f2e3d" } });

export const TakeLease = z
  .strictObject({
    ttl_ms: Ttl,
    session: SessionId.optional().openapi({ description: "It ends with this session, too." }),
  })
  .openapi("TakeLease", { example: { ttl_ms: 60_000 } });

export const EvictRequest = z
  .strictObject({
    bytes: byteCount.openapi({ description: "What is wanted free, beyond what is free now." }),
    model: ModelName.optional().openapi({ description: "Only this model's regions." }),
    pool: z.string().min(1).max(limits.poolCharacters).optional().openapi({
      description: "Of which memory: `host`, which is the default, or a device by its UUID.",
    }),
    dry_run: z.boolean().optional().openapi({ description: "Say what would go, and keep it." }),
  })
  .openapi("EvictRequest", { example: { bytes: 1_073_741_824, dry_run: true } });
