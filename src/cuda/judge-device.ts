/** Whether a device can be used, by all that its drivers tell, and why not: pure, a sentence and a cure for each reason. */

import type { DeviceRefusal, DeviceRefusalReason } from "../memory/host/device.ts";
import type { DriverDevice, DriverLook } from "./device-calls.ts";
import type { KernelDevice } from "./devices.ts";
import type { NoDriverReason } from "./driver-error.ts";

/** What the driver's library has said so far. */
export type DriverAnswer =
  | { readonly state: "asked"; readonly forMs: number }
  | { readonly state: "answered"; readonly look: DriverLook }
  /** `failed`: it is there, and does not start. */
  | { readonly state: "absent"; readonly reason: NoDriverReason | "failed"; readonly message: string };

export interface Circumstances {
  readonly answer: DriverAnswer;
  readonly kernel: readonly KernelDevice[];
  /** Since when a driver that has not answered is said to hang. */
  readonly answerMs: number;
  /** What CUDA_VISIBLE_DEVICES says to this process; undefined: nothing. */
  readonly visible: string | undefined;
  /** Whether a device's node in /dev is there. */
  readonly hasNode: (minor: number) => boolean;
}

function refuse(reason: DeviceRefusalReason, detail: string, hint: string): DeviceRefusal {
  return { reason, detail, hint };
}

/** Why the driver gives no device at all; null if it gives some. */
export function judgeDriver({ answer, kernel, answerMs }: Circumstances): DeviceRefusal | null {
  if (answer.state === "answered") return null;
  if (answer.state === "asked") return judgeAsked(answer.forMs, answerMs);
  const { reason, message } = answer;
  switch (reason) {
    case "no-libcuda":
      return kernel.length === 0
        ? refuse("no-libcuda", `No CUDA driver is here: ${message}.`, "Nothing, unless this machine has an NVIDIA GPU.")
        : refuse(
            "no-libcuda",
            `The kernel lists an NVIDIA GPU, but the driver's library is not here: ${message}.`,
            "In a container, run it with NVIDIA's runtime (--gpus, NVIDIA_DRIVER_CAPABILITIES=compute,utility); else install the driver's libraries.",
          );
    case "too-old":
      return refuse(
        "driver-too-old",
        `The CUDA driver is too old: ${message}.`,
        "Install a newer driver: 470 or later. Any CUDA program still runs on it.",
      );
    case "no-device":
      return kernel.length === 0
        ? refuse("no-device", `The CUDA driver shows no device: ${message}.`, "Nothing, unless this machine has a GPU.")
        : refuse("not-visible", `The CUDA driver shows this process none of the machine's GPUs: ${message}.`, toShow);
    case "failed":
      return refuse(
        "driver-failed",
        `The CUDA driver does not start: ${message}.`,
        "See the kernel's log (dmesg, NVRM). After an update of the driver, load the kernel's modules anew, or start the machine again.",
      );
  }
}

const toShow =
  "Give this container or process the GPU: --gpus, NVIDIA_VISIBLE_DEVICES, CUDA_VISIBLE_DEVICES, a claim of the pod, the rights to /dev/nvidia*.";

function judgeAsked(forMs: number, answerMs: number): DeviceRefusal {
  if (forMs < answerMs) {
    return refuse(
      "driver-asked",
      "The CUDA driver was asked for its devices, and has not answered yet.",
      "Wait a while.",
    );
  }
  const seconds = Math.floor(forMs / 1000);
  return refuse(
    "driver-silent",
    `The CUDA driver has not answered for ${seconds} seconds: a GPU or its driver hangs.`,
    "See the kernel's log (dmesg, NVRM, Xid), and reset the GPU (nvidia-smi --gpu-reset) or start the machine again. Host memory is served meanwhile.",
  );
}

/** Why one that the driver shows cannot be used; null if it can. */
export function judgeDriverDevice(device: DriverDevice): DeviceRefusal | null {
  const { computeMode, hasVmm, hasFdHandles } = device;
  if (computeMode === "prohibited") {
    return refuse(
      "compute-mode-prohibited",
      "Its compute mode is prohibited: no process may use it.",
      "As root: nvidia-smi -i <its UUID> -c DEFAULT.",
    );
  }
  if (!hasVmm) {
    return refuse(
      "no-vmm",
      "It has no virtual memory management (cuMemCreate), of which regions are made.",
      "Use another GPU. Of a virtual GPU, ask its administrator for a profile with unified memory.",
    );
  }
  if (!hasFdHandles) {
    return refuse(
      "no-fd-handles",
      "Its memory cannot be handed to other processes as a file descriptor.",
      "Use another GPU, or Linux itself in place of a layer over another system.",
    );
  }
  return null;
}

/**
 * Why one that only the kernel's driver shows cannot be used.
 * @param isDivided whether NVML says that it is divided by MIG, so that an instance is missing if none is shown.
 */
export function judgeKernelDevice(
  device: KernelDevice,
  circumstances: Circumstances,
  isDivided = false,
): DeviceRefusal {
  if (device.excluded) {
    return refuse("excluded", "The kernel's driver is told to leave it alone.", "Take it out of NVreg_ExcludedGpus.");
  }
  const ofDriver = judgeDriver(circumstances);
  if (ofDriver !== null && ofDriver.reason !== "not-visible") return ofDriver;
  const { answer, visible, hasNode } = circumstances;
  const shown = answer.state === "answered" ? answer.look.devices : [];
  const instances = shown.filter((one) => isMig(one) && one.busId === device.busId.toLowerCase());
  if (instances.length > 0) {
    return refuse(
      "mig-parent",
      `It is divided by MIG: its memory is that of its instances (${instances.map(({ uuid }) => uuid).join(", ")}).`,
      "Name an instance by its UUID. Whole it is there again without MIG (nvidia-smi -mig 0).",
    );
  }
  if (isDivided) {
    return refuse(
      "mig-parent",
      "It is divided by MIG, and the driver shows none of its instances to this process.",
      "Make an instance (nvidia-smi mig -cgi, -C), or give one to this container by its UUID; whole it is there again without MIG (nvidia-smi -mig 0).",
    );
  }
  if (visible !== undefined) {
    return refuse(
      "not-visible",
      `The driver does not show it to this process: CUDA_VISIBLE_DEVICES is ${JSON.stringify(visible)}.`,
      "Add its UUID to CUDA_VISIBLE_DEVICES of the server, or leave that out.",
    );
  }
  if (device.minor !== null && !hasNode(device.minor)) {
    return refuse("not-visible", `It is not given to this container: /dev/nvidia${device.minor} is not here.`, toShow);
  }
  return refuse("not-visible", "The driver does not show it to this process.", toShow);
}

export function isMig({ uuid }: Pick<DriverDevice, "uuid">): boolean {
  return uuid.startsWith("MIG-");
}
