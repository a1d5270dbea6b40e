/** A server that is hardly asked lets go of its program's pages, ever less often; what it has changed in memory stays. */

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { limits } from "../../src/memory/limits.ts";
import { dropProgramPages, parseMappings } from "../../src/memory/os/libc-program.ts";
import { calmDelayMs } from "../../src/server/connections.ts";
import { Rest } from "../../src/server/rest.ts";

test("it lets go at the first calm look, the second, the fourth, and anew after work", async () => {
  let asked = 0;
  let drops = 0;
  const rest = new Rest({
    asked: () => asked,
    drop: async () => void drops++,
    onWarning: (message) => expect.unreachable(message),
  });
  const dropsAfter = async (requests: readonly number[]) => {
    const seen: number[] = [];
    for (const count of requests) {
      asked += count;
      await rest.look();
      seen.push(drops);
    }
    return seen;
  };
  expect(await dropsAfter([0, 0, 1, 0, limits.restRequests])).toEqual([0, 1, 2, 2, 3]);
  expect(await dropsAfter([limits.restRequests + 1, 0])).toEqual([3, 4]);
});

test("where pages cannot be let go it says so once, and does not try again", async () => {
  const warnings: string[] = [];
  const drop = () => Promise.reject(new Error("no /proc"));
  const rest = new Rest({ asked: () => 0, drop, onWarning: (message) => void warnings.push(message) });
  for (let looks = 0; looks < 5; looks++) await rest.look();
  expect(warnings).toHaveLength(1);
});

test("pages of the program go, and those that it has changed stay", async () => {
  const read = () => {
    const all = parseMappings(readFileSync("/proc/self/smaps", "utf8"));
    const files = all.filter(({ inode, permissions }) => inode !== 0 && /^r-[x-]p$/.test(permissions));
    const sum = (field: "residentBytes" | "anonymousBytes") => files.reduce((total, each) => total + each[field], 0);
    return { changed: sum("anonymousBytes"), resident: sum("residentBytes") };
  };
  const before = read();
  expect(before.changed).toBeGreaterThan(0);
  await dropProgramPages();
  const after = read();
  expect(after.resident).toBeLessThan(before.resident);
  expect(after.changed).toBe(before.changed);
});

test("the kernel's words about a mapping are read, and those of others left", () => {
  const text = [
    "01a40000-0684a000 r-xp 01838000 fe:00 10053896                           /opt/a b/tensord",
    "Size:              79912 kB",
    "Rss:               22632 kB",
    "Pss:                7873 kB",
    "Anonymous:             4 kB",
    "VmFlags: rd ex mr mw me",
    "7f0b00000000-7f0b00001000 rw-p 00000000 00:00 0 ",
    "Rss:                   0 kB",
    "Anonymous:             0 kB",
    "",
  ].join("\n");
  const [code, memory, ...more] = parseMappings(text);
  expect(code).toEqual({
    address: 0x1a40000n,
    byteSize: 0x4e0a000n,
    permissions: "r-xp",
    inode: 10053896,
    residentBytes: 22632 * 1024,
    anonymousBytes: 4096,
  });
  expect(memory).toMatchObject({ permissions: "rw-p", inode: 0, residentBytes: 0 });
  expect(more).toEqual([]);
});

test("the more descriptors are free, the later it is asked whether one is", () => {
  const { calmLookMs, idleLookMs, takenDescriptorsPerMs } = limits;
  expect(calmDelayMs(64, 40)).toBe(calmLookMs);
  // Before Linux 6.2 nobody knows.
  expect(calmDelayMs(1_000_000, 0)).toBe(calmLookMs);
  expect(calmDelayMs(20_000, 100)).toBe(19_900 / takenDescriptorsPerMs);
  expect(calmDelayMs(1_000_000, 100)).toBe(idleLookMs);
});
