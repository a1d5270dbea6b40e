/** The zod schemas of what is answered about regions: descriptors, lists, and what became of a request. */

import { z } from "@hono/zod-openapi";
import { type Owner as RegionOwner, states, toldEndReasons } from "../../memory/journal/region-record.ts";
import { limits } from "../../memory/limits.ts";
import { fileChanges } from "../../memory/storage/file/origin.ts";
import { hugePageBytes } from "../../memory/storage/storage.ts";
import { byteCount, createdBy, ModelName, nextCursor, Pid, Shape, TensorName, time, Version } from "./common.ts";
import {
  ChecksumAlgorithm,
  DtypeWord,
  openWord,
  openWordOrNull,
  StorageEnd,
  StorageFormat,
  StorageKind,
} from "./words.ts";

const Logical = z
  .object({
    type: z.string().openapi({ description: "By the name that the file's format has for it.", example: "Q4_K" }),
    shape: Shape.openapi({ description: "In elements of that type." }),
  })
  .openapi("Logical", {
    description:
      "What the bytes stand for where no dtype says it, such as blocks of quantised elements of a GGUF file.",
  });

export const Tensor = z
  .object({
    name: TensorName,
    dtype: DtypeWord,
    shape: Shape,
    byte_offset: byteCount.openapi({ description: "From the start of the file or mapping.", example: 4096 }),
    byte_size: byteCount.openapi({ example: 4_194_304 }),
    aligned: z.boolean().openapi({ description: "Whether byte_offset is a multiple of the element's size." }),
    alias_of: z
      .string()
      .nullable()
      .openapi({ description: "The tensor whose bytes these are, whole or inside it, if they are another's." }),
    // Not `nullable`, as below.
    logical: z.union([Logical, z.null()]),
  })
  .openapi("Tensor");

export const Owner = z
  .object({
    kind: openWord("What the others say more of.", [
      "ttl",
      "linger",
      "session",
      "persist",
    ] satisfies RegionOwner["kind"][]),
    ttl_ms: z.int().optional(),
    linger_ms: z.int().optional(),
    handoff_ms: z.int().optional().openapi({ description: "How long a hand-off waits for its consumer." }),
    session: z.string().optional(),
  })
  .openapi("Owner", { description: "What decides the region's end.", example: { kind: "ttl", ttl_ms: 600_000 } });

export const Storage = z
  .object({
    kind: StorageKind,
    format: StorageFormat,
    shm_name: z.string().nullable().openapi({
      description: "For shm_open; null outside /dev/shm.",
      example: "/tensord.default.abcdefghijklmnopqrstuvwxyz",
    }),
    path: z.string().nullable().openapi({
      description: "The file to map, of `file` storage as the server sees it; null of storage that has no name.",
      example: "/dev/shm/tensord.default.abcdefghijklmnopqrstuvwxyz",
    }),
    dev: z.string().openapi({ description: "Device and inode: another one means another /dev/shm.", example: "27" }),
    ino: z.string().openapi({ example: "4711" }),
    byte_size: byteCount.openapi({ description: "The whole file.", example: 4_198_400 }),
    page_size: z.int().openapi({ example: 4096 }),
    ends_with: StorageEnd,
    private: z.boolean().openapi({
      description:
        "Whether it has no name to open: it is reached by a descriptor from the broker, or as bytes over HTTP.",
      example: false,
    }),
    href: z.string().nullable().openapi({
      description:
        "Where its bytes are, of storage that no process maps: they are uploaded and downloaded there. Else null.",
      example: null,
    }),
    huge_pages: openWordOrNull("The size of its pages, if they are huge ones; else null.", Object.keys(hugePageBytes)),
    device_uuid: z.string().nullable().openapi({
      description: "The device whose memory it is, of `cuda_vmm` storage; else null.",
      example: null,
    }),
    handle_type: openWordOrNull(
      "What the descriptor of that memory is, which the broker sends beside the lease file; else null.",
      ["posix_fd"],
    ),
    allocation_bytes: byteCount.openapi({
      description:
        "What it takes: the size in whole pages, and nothing of `file` storage. On a device that is what has to be mapped.",
      example: 4_198_400,
    }),
    granularity: z.int().nullable().openapi({
      description: "On a device: what addresses and sizes of its mappings are multiples of; else null.",
      example: null,
    }),
    maker_byte: z.boolean().openapi({
      description: "Whether who makes it holds the maker's byte in place of the lease byte (docs/protocol.md).",
      example: true,
    }),
    immutable: z.boolean().openapi({
      description:
        "Whether the server sees to it that nothing is written to it once it is sealed. Of `file` storage it is false: the file is " +
        "somebody else's.",
      example: true,
    }),
    mtime_ns: z.string().nullable().openapi({
      description:
        "Of `file` storage: when the file was last written, in ns since the epoch. Where it shows another time it was written to since.",
      example: null,
    }),
    changed: openWordOrNull(
      "Of `file` storage: what has become of the file since it was loaded, as it was last looked at; null if nothing has. Do not map it then: " +
        "load it again, as another version.",
      fileChanges,
    ),
  })
  .openapi("Storage");

export const Checksum = z
  .object({
    algorithm: ChecksumAlgorithm,
    chunk_bytes: z.int().openapi({ example: limits.checksumChunkBytes }),
    value: z.string().openapi({ description: "16 hexadecimal digits.", example: "2d06800538d394c2" }),
  })
  .openapi("Checksum", { description: "Specified in docs/protocol.md." });

export const ClientDescriptor = z
  .object({
    name: z.string().nullable(),
    pid: Pid.nullable().openapi({
      description: "As the server sees it; null if it said none, or if no process here surely is it.",
    }),
    pid_namespace: z.string().nullable().openapi({
      description: "The PID namespace that it is in, if that is another than the server's.",
      example: null,
    }),
    namespace_pid: Pid.nullable().openapi({ description: "Its PID in `pid_namespace`: another process's here." }),
    hostname: z.string().nullable(),
    version: z.string().nullable(),
    labels: z.record(z.string(), z.string()),
  })
  .openapi("ClientDescriptor", { description: "Who the worker says it is." });

const RegionState = z.enum(states).openapi("RegionState", {
  description: "Closed: it says what may be done with a region, so another state would be another protocol.",
});

export const RegionFacts = z
  .object({
    id: z.string().openapi({ example: "reg_abcdefghijklmnopqrstuvwxyz" }),
    model: ModelName,
    name: z.string().nullable().openapi({ example: "weights" }),
    version: Version,
    pending_name: z.string().nullable().openapi({ description: "The name it takes over when it is sealed." }),
    state: RegionState,
    revision: z.int().openapi({ description: "Raised by every change; the ETag has it in it." }),
    owner: Owner,
    session: z.string().nullable().openapi({
      description: "The session that ends it: its owner, or who builds it under a claim until it is sealed.",
    }),
    expires_at: time.nullable(),
    evictable: z.boolean(),
    labels: z.record(z.string(), z.string()),
    storage: Storage,
    tensor_count: z.int(),
    // Not `nullable`, which would make every `Checksum` null's.
    checksum: z.union([Checksum, z.null()]),
    created_at: time,
    created_by: createdBy,
    sealed_at: time.nullable(),
    last_used_at: time,
  })
  .openapi("RegionFacts", {
    description: "A region's descriptor without its tensors, of which there may be thousands.",
  });

// Spread, and not extended: of `allOf` some generators lose that a property may be null.
export const Region = z.object({ ...RegionFacts.shape, tensors: z.array(Tensor) }).openapi("Region", {
  description: "A region's descriptor: enough to map it.",
});

export const RegionDetail = z
  .object({
    ...Region.shape,
    in_use: z.boolean().openapi({ description: "Whether any process maps it, its maker too, as the kernel knows." }),
    lease_barred: z.boolean().openapi({
      description:
        "Whether a process write-locks the lease byte: who maps the region then has no kernel lock, and a lease by request.",
    }),
    has_writers: z.boolean().openapi({ description: "Whether any process maps it for writing." }),
    leases: z.int().openapi({ description: "Leases by request." }),
    holders: z
      .array(
        z
          .object({
            session: z.string(),
            client: z.union([ClientDescriptor, z.null()]),
            mappings: z.int(),
            writable: z.boolean(),
          })
          .openapi("Holder"),
      )
      .openapi({ description: "Who maps it, as their clients report over the hold socket." }),
    unknown_holders: z.boolean().openapi({ description: "The kernel knows of a mapping that nobody reported." }),
    drain: z
      .object({
        reason: openWordOrNull("Why it ends.", [...toldEndReasons, "aborted"]),
        waits_for: openWordOrNull("`lease`: a process still maps it. `hard-link`: something outside links its file.", [
          "lease",
          "hard-link",
        ]),
      })
      .optional()
      .openapi({ description: "Only while it drains." }),
  })
  .openapi("RegionDetail", { description: "A descriptor, and what the kernel says of it now." });

export const RegionList = z.object({ items: z.array(RegionFacts), next_cursor: nextCursor }).openapi("RegionList");

export const Verification = z
  .object({
    ok: z.boolean().nullable().openapi({ description: "null: it was sealed without a checksum." }),
    algorithm: ChecksumAlgorithm,
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
