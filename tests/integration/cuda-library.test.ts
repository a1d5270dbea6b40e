/** NVIDIA's own `libcuda.so.1` on a machine without a card: the binding finds every function in it, and the server says what it says. */

import { expect } from "bun:test";
import { existsSync } from "node:fs";
import type { Diagnosis } from "../../src/memory/doctor/finding.ts";
import { CudaProcess } from "../harness/cuda-process.ts";
import { createInstance } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNvidiaDriver, nvidiaDriver, withoutDeviceFiles } from "../harness/nvidia-driver.ts";
import { startServer } from "../harness/server.ts";
import { runTensord } from "../harness/server-command.ts";
import { until } from "../harness/server-wait.ts";

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

testWith(needsNvidiaDriver)(
  "a server beside NVIDIA's library says in its words that there is no device, and doctor without a server the same",
  async () => {
    const env = { LD_LIBRARY_PATH: nvidiaDriver };
    const words = "cuInit: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)";
    {
      await using server = await startServer({ env, prefix: withoutDeviceFiles });
      const answer = await until("the driver has answered", async () => {
        const found = await server.api.call<{ reason: string; detail: string }>("GET", "/v1/devices");
        return found.reason !== "driver-asked" && found;
      });
      const told = { items: [], reason: "no-device", detail: `The CUDA driver shows no device: ${words}.` };
      expect(answer).toMatchObject(told);
      expect(await server.api.problem("POST", "/v1/regions", { storage: "cuda_vmm", byte_size: 1 })).toMatchObject({
        code: "storage-unavailable",
        detail: `Cannot use cuda_vmm storage: ${words}`,
      });
    }
    const { name: TENSORD_INSTANCE, shmDirectory: TENSORD_SHM_DIR } = createInstance();
    const alone = { ...env, TENSORD_INSTANCE, TENSORD_SHM_DIR };
    const { stdout } = await runTensord(["doctor", "--json"], alone, withoutDeviceFiles);
    const { findings } = JSON.parse(stdout) as Diagnosis;
    const finding = findings.find(({ check }) => check === "devices");
    expect(finding).toMatchObject({ status: "ok", summary: `The CUDA driver shows no device: ${words}.` });
    expect(existsSync("/dev/nvidiactl")).toBeFalse();
  },
);
