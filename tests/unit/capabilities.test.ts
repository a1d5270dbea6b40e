/** What the server says that it can do: it has an operation for each feature, and its numbers are the ones it refuses by. */

import { expect, test } from "bun:test";
import { describeStorages, features, parseHugePages, readCapabilities } from "../../src/memory/host/capabilities.ts";
import { operations } from "../harness/answers.ts";

/** The operation that each feature is about. */
const operationOf: Readonly<Record<(typeof features)[number], string>> = {
  regions: "createRegion",
  models: "registerModel",
  attach: "createRegion",
  replace: "createRegion",
  wait: "getRegionByName",
  groups: "openGroup",
  labels: "changeRegion",
  checksum: "verifyRegion",
  "stock-writable": "sealRegion",
  sessions: "openSession",
  claims: "claimName",
  rebuild: "claimName",
  leases: "takeLease",
  linger: "createRegion",
  "hand-offs": "createRegion",
  evict: "evict",
  "on-full": "createRegion",
  events: "listEvents",
  data: "readData",
  aliases: "createRegion",
  private: "createRegion",
  "huge-pages": "createRegion",
  devices: "getDevice",
  "elastic-pools": "createElasticPool",
  map: "loadModel",
  advise: "adviseRegion",
  flush: "flushRegion",
  doctor: "diagnose",
  metrics: "getMetrics",
};

test("each feature has its operation, and is named once", () => {
  const known = operations.map(({ operationId }) => operationId);
  expect(features.filter((feature) => !known.includes(operationOf[feature]))).toEqual([]);
  expect(new Set(features).size).toBe(features.length);
});

test("every kind of storage is named once, and what is missing has a reason", () => {
  for (const there of [
    [],
    [{ kind: "shm", endsWith: "file_system" } as const],
    [{ kind: "memfd", endsWith: "server" } as const],
  ]) {
    const storages = describeStorages(there);
    expect(storages.map(({ kind }) => kind).toSorted()).toEqual(["cuda_vmm", "file", "heap", "memfd", "shm"]);
    for (const { available, reason } of storages) expect(reason === null).toBe(available);
    for (const { kind, endsWith } of there) {
      const survivesRestart = endsWith !== "server";
      expect(storages.find((one) => one.kind === kind)).toMatchObject({ available: true, survivesRestart, endsWith });
    }
  }
});

const mounted = (type: string, ...options: string[]) => ({ mountPoint: "/dev/shm", type, options });
const enabled = (word: string) => `always within_size advise never deny force `.replace(`${word} `, `[${word}] `);

for (const [what, mount, shmemEnabled, want] of [
  ["a tmpfs without the option", mounted("tmpfs", "rw", "size=64k"), enabled("never"), "never"],
  ["a tmpfs that offers them", mounted("tmpfs", "rw", "huge=within_size"), enabled("never"), "within_size"],
  ["a tmpfs for which they are denied", mounted("tmpfs", "huge=always"), enabled("deny"), "never"],
  ["a tmpfs on which they are forced", mounted("tmpfs", "rw"), enabled("force"), "always"],
  ["a kernel that has none", mounted("tmpfs", "huge=always"), "", "never"],
  ["an option of a later kernel", mounted("tmpfs", "huge=sometimes"), enabled("never"), "never"],
  ["another file system", mounted("ext4", "huge=always"), enabled("force"), "never"],
  ["no mount that is known", undefined, enabled("force"), "never"],
] as const) {
  test(`huge pages of ${what} are "${want}"`, () => {
    expect(parseHugePages(mount, shmemEnabled)).toBe(want);
  });
}

test("the host's capabilities are of the directory that was asked for", async () => {
  const { shm, os, kernel } = readCapabilities("/dev/shm");
  expect({ os, path: shm.path, fileSystem: shm.fileSystem }).toEqual({
    os: "linux",
    path: "/dev/shm",
    fileSystem: "tmpfs",
  });
  expect(kernel).toMatch(/^\d+\.\d+/);
  expect(readCapabilities("/proc").shm.fileSystem).toBe("proc");
});
