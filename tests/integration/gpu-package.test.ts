/**
 * What goes to a machine with a card and without a network: one file, unpacked and run in a folder of its own, by a Python that has no
 * package of ours. Here it finds the stand-in driver (tests/cuda/README.md), which shows that it runs, and nothing of a GPU.
 */

import { expect } from "bun:test";
import { mkdtempSync, readFileSync, realpathSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CudaStandIn, needsStandIn } from "../harness/cuda-stand-in.ts";
import { needsStockPython, root, testWith } from "../harness/instance-needs.ts";

const MiB = 2 ** 20;
const isLong = process.env.TEST_LONG !== undefined;
/** At least one row of each file. */
const shortRows = ["name the card", "by two processes", "128 GiB of range", "from pinned memory", "conformance suite"];

async function run(command: readonly string[], cwd: string, env: Record<string, string | undefined>) {
  const child = Bun.spawn([...command], { cwd, env, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, status] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { stdout, stderr, status };
}

testWith(needsStandIn ?? needsStockPython)(
  "the tests that want a card run from one file, without anything of this checkout",
  async () => {
    const form = isLong ? [] : ["--fast"];
    const packed = await run(["node", "scripts/test-gpu.mjs", "--pack", ...form], root, process.env);
    expect([packed.status, packed.stderr]).toEqual([0, ""]);
    const [, archive = ""] = /^(\S+): [\d.]+ MiB/.exec(packed.stdout) ?? [];
    if (isLong) expect(statSync(archive).size).toBeLessThan(60 * MiB);
    const folder = mkdtempSync(join(tmpdir(), "tensord-gpu-"));
    try {
      const python = realpathSync(join(root, ".venv/bin/python"));
      expect(await run([python, "-m", "tarfile", "-e", archive, folder], root, {})).toMatchObject({ status: 0 });
      const command = [python, "tensord-gpu-tests/tests/gpu/run.py"];
      const env = {
        ...{ PATH: "/usr/bin:/bin", HOME: folder, TEST_TOKEN: process.env.TEST_TOKEN ?? "" },
        // The whole suite runs on the stand-in in tests/conformance, too.
        ...(!isLong && { TEST_CONFORMANCE: "a region of cuda_vmm" }),
      };
      await using cuda = new CudaStandIn();
      const chosen = isLong ? [] : shortRows.flatMap((part) => ["--only", part]);
      const seen = await run([...command, ...chosen], folder, { ...env, ...cuda.env, REQUIRE_GPU: "1" });
      expect(seen).toMatchObject({ status: 0, stderr: expect.not.stringContaining("FAILED") });
      const rows = seen.stdout.trim().split("\n");
      expect(rows.length).toBeGreaterThanOrEqual(isLong ? 16 : shortRows.length);
      const page = readFileSync(join(root, "docs/gpu-verification.md"), "utf8");
      for (const row of rows) {
        const [what = "", card, driver] = row.slice(2).split(" | ");
        expect(page).toContain(`| ${what} |`);
        expect([card, driver]).toEqual(["the stand-in, no card", "none"]);
      }
      // Where there is no driver at all.
      expect(await run(command, folder, env)).toMatchObject({ status: 0, stdout: "" });
      const required = await run(command, folder, { ...env, REQUIRE_GPU: "1" });
      expect(required).toMatchObject({ status: 1, stderr: expect.stringContaining("`tensord doctor` says why") });
    } finally {
      rmSync(folder, { recursive: true });
      rmSync(archive);
    }
  },
);
