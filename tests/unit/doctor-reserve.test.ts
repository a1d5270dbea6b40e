/** What doctor says of the reserve: what lies ready, and what a host without one could gain. None of it is a fault. */

import { expect, test } from "bun:test";
import type { Facts, ReserveFacts } from "../../src/memory/doctor/facts.ts";
import { judgeReserve } from "../../src/memory/doctor/judge-reserve.ts";
import { GiB, MiB } from "../../src/memory/limits.ts";

const full: ReserveFacts = {
  budgetBytes: GiB,
  bytes: 512 * MiB,
  absence: null,
  smallOnly: null,
  hugeChunks: 192,
  smallChunks: 64,
};

function judge(change: Partial<ReserveFacts>): string {
  const finding = judgeReserve({ server: { reserve: { ...full, ...change } } } as Facts);
  expect(finding).toMatchObject({ check: "reserve", status: "ok", cure: null });
  return finding?.summary ?? "";
}

test("what lies ready is told, and of which pages", () => {
  expect(judge({})).toBe("512 MiB of 1 GiB lie ready for regions to come; of the chunks so far 75 % are huge pages.");
  expect(judge({ hugeChunks: 0, smallChunks: 0 })).toBe("512 MiB of 1 GiB lie ready for regions to come.");
});

test("a host that has none is told what it could gain, or why it needs none", () => {
  expect(judge({ budgetBytes: 0, bytes: 0 })).toContain(
    "with a reserve a large region is written several times as fast",
  );
  expect(judge({ absence: "files of /dev/shm are of huge pages by themselves" })).toContain(
    "of huge pages by themselves.",
  );
  expect(judge({ smallOnly: "this kernel makes no huge page" })).toContain("With huge pages large ones would gain");
});

test("without a server there is nothing to tell", () => {
  expect(judgeReserve({ server: null } as Facts)).toBeUndefined();
});
