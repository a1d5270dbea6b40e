/** What is told of a directory that others use as well: names of ours that get lost, and nothing else. */

import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readlinkSync, renameSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createToken, toFileName } from "../../src/memory/naming.ts";
import { KnownTokens } from "../../src/memory/storage/known-tokens.ts";
import { LostNames } from "../../src/memory/storage/lost-names.ts";
import { until } from "../harness/server-wait.ts";

const instance = "lost-names";

/** inotify's descriptors of this process. */
function countWatches(): number {
  const targets = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "";
    }
  });
  return targets.filter((target) => target === "anon_inode:inotify").length;
}

test("names that are deleted, moved away or moved onto are told, and nothing that strangers do", async () => {
  const directory = mkdtempSync(join(tmpdir(), "tensord-lost-"));
  const before = countWatches();
  const told: string[] = [];
  let messages = 0;
  const known = new KnownTokens();
  {
    using _lost = LostNames.open({
      instance,
      directory,
      known,
      onLost: (tokens) => {
        messages++;
        told.push(...tokens);
      },
      onOverflow: () => told.push("overflow"),
      onEnd: (error) => told.push(String(error)),
    });
    const [deleted, moved, covered, kept, last] = [
      createToken(),
      createToken(),
      createToken(),
      createToken(),
      createToken(),
    ];
    const at = (token: string) => join(directory, toFileName(instance, token));
    for (const token of [deleted, moved, covered, kept, last]) {
      known.add(token);
      writeFileSync(at(token), "");
    }
    for (let i = 0; i < 1000; i++) {
      writeFileSync(join(directory, `stranger-${i}`), "");
      if (i > 0) unlinkSync(join(directory, `stranger-${i}`));
      const alike = createToken();
      if (known.mayHave(alike)) continue;
      writeFileSync(at(alike), "");
      unlinkSync(at(alike));
    }
    unlinkSync(at(deleted));
    renameSync(at(moved), join(directory, "elsewhere"));
    renameSync(join(directory, "stranger-0"), at(covered));
    unlinkSync(at(last));
    await until("the last is told", () => told.includes(last));
    expect(told).toEqual([deleted, moved, covered, last]);
    // One for what a read has brought: strangers' thousand files made none, nor did a thousand that are named like ours.
    expect(messages).toBeLessThanOrEqual(4);
  }
  // The last is closed when the thread has ended.
  await until("no descriptor is left", () => countWatches() === before);
  rmSync(directory, { recursive: true });
});

test("a directory that is not there is the caller's failure, and leaves no descriptor", () => {
  const before = countWatches();
  const nowhere = join(tmpdir(), crypto.randomUUID());
  const ignore = () => {};
  expect(() =>
    LostNames.open({
      instance,
      directory: nowhere,
      known: new KnownTokens(),
      onLost: ignore,
      onOverflow: ignore,
      onEnd: ignore,
    }),
  ).toThrow("ENOENT");
  expect(countWatches()).toBe(before);
});
