/** NVIDIA's own `libcuda.so.1` on a machine without a card: the binding finds every function in it, and says what it says. */

import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { CudaProcess } from "../harness/cuda-process.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNvidiaDriver, nvidiaDriver, withoutDeviceFiles } from "../harness/nvidia-driver.ts";

testWith(needsNvidiaDriver)(
  "NVIDIA's library has every function of the binding, and says that there is no device",
  async () => {
    await using child = new CudaProcess({ LD_LIBRARY_PATH: nvidiaDriver }, { prefix: withoutDeviceFiles });
    expect(await child.call<string[]>("missing")).toEqual([]);
    expect(await child.call<number>("bindAll")).toBeGreaterThan(35);
    await expect(child.call("askUninitialised")).rejects.toThrow(
      "cuDeviceGetCount: CUDA_ERROR_NOT_INITIALIZED (initialization error)",
    );
    expect(await child.call("describe", 4711)).toBe("cuInit: CUresult 4711");
    const failed = await child.call("open").catch((error) => error.facts);
    expect(failed).toEqual({
      kind: "NoDriver",
      message: "cuInit: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)",
      reason: "no-device",
    });
    // As root it would have made this.
    expect(existsSync("/dev/nvidiactl")).toBeFalse();
  },
);
