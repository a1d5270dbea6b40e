/** The zod schemas of devices: each with what it can do, how much of it is taken, and why it cannot be used if that is so. */

import { z } from "@hono/zod-openapi";
import { deviceRefusalReasons } from "../../memory/host/device.ts";
import { limits } from "../../memory/limits.ts";
import { byteCount } from "./common.ts";
import { openWord, openWordOrNull } from "./words.ts";

const uuidExample = "GPU-8f6d3f2a-1c5b-4f0e-9b1d-2f3a4b5c6d7e";

export const DeviceUuid = z
  .string()
  .min(1)
  .max(limits.poolCharacters)
  .openapi({ description: "As its driver writes it: GPU-…, or MIG-… of an instance.", example: uuidExample });

const Reason = openWordOrNull("Why it cannot be used; null if it can.", deviceRefusalReasons);
const detail = z.string().nullable().openapi({ description: "The same in a sentence." });
const hint = z.string().nullable().openapi({ description: "What to do about it." });

export const Device = z
  .object({
    kind: openWord("Whose driver it is.", ["cuda"]),
    uuid: z.string().nullable().openapi({
      description: "By which requests name it; null while the kernel's driver does not tell.",
      example: uuidExample,
    }),
    name: z.string().openapi({ example: "NVIDIA H100 80GB HBM3" }),
    index: z.int().nullable().openapi({
      description: "Its number in the server's process, which is another one elsewhere; null if it does not see it.",
      example: 0,
    }),
    bus_id: z.string().openapi({ description: "Its PCI address.", example: "0000:19:00.0" }),
    minor: z.int().nullable().openapi({ description: "N of /dev/nvidia<N>.", example: 0 }),
    excluded: z.boolean().openapi({ description: "The kernel's driver was told to leave it alone." }),
    compute_capability: z.string().nullable().openapi({
      description: "null, as what follows, where the driver does not tell.",
      example: "9.0",
    }),
    total_bytes: byteCount
      .nullable()
      .openapi({ description: "All its memory, by the driver.", example: 85_029_158_912 }),
    granularity: byteCount
      .nullable()
      .openapi({ description: "What a region's memory is rounded up to.", example: 2_097_152 }),
    vmm: z.boolean().nullable().openapi({ description: "Whether it has virtual memory management (cuMemCreate)." }),
    fd_handles: z.boolean().nullable().openapi({
      description: "Whether that memory can be handed to other processes as a file descriptor.",
    }),
    handle_type: openWordOrNull("What a region's memory is handed out as.", ["posix_fd"]),
    compute_mode: openWordOrNull("Who may use it.", ["default", "prohibited", "exclusive_process"]),
    mig: z.boolean().nullable().openapi({ description: "Whether it is an instance of a divided GPU (MIG)." }),
    persistence_mode: z.boolean().nullable().openapi({
      description: "Whether its driver stays up while nobody uses it; null where NVML does not tell.",
    }),
    allocated_bytes: byteCount.openapi({
      description: "What this server's regions take, draining ones too.",
      example: 0,
    }),
    limit_bytes: byteCount.nullable().openapi({ description: "What they may take; null where none are made." }),
    free_bytes: byteCount.nullable().openapi({
      description: "What nobody uses, by NVML; null without it. No context is made to find out.",
    }),
    others_bytes: byteCount.nullable().openapi({
      description:
        "What others use, the driver itself too: by NVML, less what this server has allocated. null without it.",
    }),
    usable: z.boolean().openapi({ description: "Whether regions can be made there." }),
    reason: Reason,
    detail,
    hint,
  })
  .openapi("Device");

export const DeviceList = z
  .object({
    items: z.array(Device),
    driver_version: z.string().nullable().openapi({ description: "The kernel driver's.", example: "580.65.06" }),
    cuda_version: z.string().nullable().openapi({
      description: "What the driver's library speaks; null as long as it has not answered.",
      example: "13.0",
    }),
    reason: openWordOrNull("Why none can be used; null if one can.", deviceRefusalReasons),
    detail,
    hint,
  })
  .openapi("DeviceList", {
    description: "What the driver shows the server, and what the kernel's driver lists beside.",
  });

export const DeviceCapability = z
  .object({
    kind: openWord("Whose devices.", ["cuda", "metal"]),
    available: z.boolean().openapi({ description: "Whether regions can be made on one." }),
    driver_version: z.string().nullable().openapi({ description: "The kernel driver's.", example: "580.65.06" }),
    cuda_version: z.string().nullable().openapi({ example: "13.0" }),
    vmm: z.boolean().nullable().openapi({ description: "Whether one has virtual memory management; null: not known." }),
    handle_type: openWordOrNull("What a region's memory is handed out as.", ["posix_fd"]),
    persistence_mode: z.boolean().nullable().openapi({
      description: "Whether the driver of every device stays up while nobody uses it; null where NVML does not tell.",
    }),
    survives_crash: openWord(
      "Whether regions there outlive a crash of the server. Only what was seen on a device is said.",
      ["unknown"],
    ),
    reason: openWordOrNull("Why none is available.", [...deviceRefusalReasons, "not-offered"]),
    detail,
  })
  .openapi("DeviceCapability");
