/** Which parts of sealed files huge pages are made of, and when that ends; the kernel's part is `libc-pages.test.ts`'s. */

import { expect, test } from "bun:test";
import { MiB } from "../../src/memory/limits.ts";
import type { CollapseRefusal } from "../../src/memory/os/libc-pages.ts";
import { Collapser } from "../../src/memory/storage/shm/reserve/collapser.ts";

/** Collapses `sizes` one after the other. @returns what was asked of the kernel. */
async function collapse(
  sizes: readonly number[],
  { refusal, isWanted = () => true }: { refusal?: CollapseRefusal; isWanted?: (asked: number) => boolean } = {},
) {
  const asked: [path: string, from: number, byteSize: number][] = [];
  const failures: unknown[] = [];
  const collapser = new Collapser({
    lane: {
      collapse: async (path, byteOffset, byteSize) => {
        asked.push([path, byteOffset / MiB, byteSize / MiB]);
        if (path === "gone") throw Object.assign(new Error("no such file"), { code: "ENOENT" });
        return { hugeChunks: 0, smallChunks: 0, refusal };
      },
    },
    mayWork: () => true,
    onCollapsed: () => {},
    onFailure: (error) => failures.push(error),
  });
  for (const [index, byteSize] of sizes.entries()) {
    collapser.add({ path: index === 1 ? "gone" : `${index}`, byteSize, isWanted: () => isWanted(asked.length) });
  }
  expect(asked, "nothing before the seal was answered").toEqual([]);
  await collapser.settled();
  return { asked, failures };
}

test("whole chunks are, in windows, and never the one in which the file ends", async () => {
  const { asked } = await collapse([2 * MiB - 1, 0, 11 * MiB, 2 * MiB + 4096]);
  expect(asked).toEqual([
    ["2", 0, 4],
    ["2", 4, 4],
    ["2", 8, 2],
    ["3", 0, 2],
  ]);
});

test("a region that is deleted meanwhile is left alone from then on", async () => {
  const { asked } = await collapse([64 * MiB], { isWanted: (count) => count < 2 });
  expect(asked.length).toBe(2);
});

test("a refusal of the kernel ends it for that region, and a file that is gone is no more than told", async () => {
  const { asked, failures } = await collapse([64 * MiB, 64 * MiB, 64 * MiB], { refusal: "ENOMEM" });
  expect(asked.map(([path]) => path)).toEqual(["0", "gone", "2"]);
  expect(failures.length).toBe(1);
});
