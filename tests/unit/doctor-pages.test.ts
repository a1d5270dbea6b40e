/** What the doctor says of pages of elastic pools that should be gone. */

import { expect, test } from "bun:test";
import type { Facts, ServerFacts } from "../../src/memory/doctor/facts.ts";
import { judgePages } from "../../src/memory/doctor/judge-pages.ts";
import { MiB } from "../../src/memory/limits.ts";

const now = Date.UTC(2026, 10, 29);
const pool = 'vmm_abcdefghijklmnopqrstuvwxyz (model "llama")';

function judge(server: Partial<ServerFacts> | null) {
  const facts = { now, server: server && { elasticPools: 1, overdue: [], owed: [], ...server } };
  return judgePages(facts as unknown as Facts);
}

test("where no pool is, or no server, there is nothing to say", () => {
  expect([judge(null), judge({ elasticPools: 0 })]).toEqual([[], []]);
  expect(judge({ elasticPools: 2 })).toMatchObject([
    { check: "elastic-pools", status: "ok", summary: "2 elastic pools: no page is overdue, and none is owed." },
  ]);
});

test("a worker that has what left long ago is named, with how much and for how long", () => {
  const overdue = [
    { pool, worker: "worker 3 (trainer)", isConnected: false, byteSize: 128 * MiB, sinceMs: now - 12_000 },
  ];
  const [finding] = judge({ overdue });
  expect(finding).toMatchObject({ check: "elastic-pools", status: "warning", cure: expect.stringContaining("let go") });
  expect(finding?.summary).toBe(
    `Pages that left are still in use: worker 3 (trainer), whose connection has ended, has 128 MiB of ${pool} for 12 s since that left.`,
  );
});

test("a page that is stuck, or not released, is named with what the driver said", () => {
  const facts = { pool, sinceMs: now - 3000, reason: "CUDA_ERROR_UNKNOWN" };
  const owed = [
    { ...facts, page: 7, isStuck: true },
    { ...facts, page: 8, isStuck: false },
  ];
  const overdue = [{ pool, worker: "worker 0", isConnected: true, byteSize: 2 * MiB, sinceMs: now - 20_000 }];
  const findings = judge({ overdue, owed });
  expect(findings).toHaveLength(2);
  expect(findings[1]?.summary).toBe(
    `The driver has not taken back what nobody uses: page 7 of ${pool} is stuck for 3 s (CUDA_ERROR_UNKNOWN); ` +
      `page 8 of ${pool} is not released for 3 s (CUDA_ERROR_UNKNOWN).`,
  );
});
