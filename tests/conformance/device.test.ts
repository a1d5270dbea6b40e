/**
 * The suite for storages, asked of device memory: by a process of its own, since the loader finds a driver when a process starts. Here
 * it finds the stand-in (tests/cuda/README.md); `npm run test:gpu` asks the same of a card's driver.
 */

import { expect } from "bun:test";
import { CudaStandIn, needsStandIn } from "../harness/cuda-stand-in.ts";
import { root, testWith } from "../harness/instance-needs.ts";

testWith(needsStandIn)(
  "memory of a device does all that the suite asks of a storage, on the stand-in driver",
  async () => {
    await using cuda = new CudaStandIn();
    const files = ["tests/conformance/storage.test.ts", "tests/conformance/regions.test.ts"];
    const child = Bun.spawn([process.execPath, "test", "--timeout", "100000", ...files, "-t", "cuda_vmm"], {
      cwd: root,
      env: { ...process.env, ...cuda.env, TEST_DEVICE_DRIVER: "stand-in" },
      stdout: "pipe",
      stderr: "pipe",
    });
    const [told, exitCode] = await Promise.all([child.stderr.text(), child.exited]);
    if (exitCode !== 0) throw new Error(told);
    expect(Number(/(\d+) pass/.exec(told)?.[1])).toBeGreaterThan(15);
  },
);
