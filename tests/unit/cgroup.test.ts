import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { findMemoryLimits } from "../../src/memory/host/cgroup.ts";
import { GiB } from "../../src/memory/limits.ts";
import * as trees from "./fixtures/cgroup/trees.ts";

const find = (tree: trees.Tree) => findMemoryLimits((path) => (Object.hasOwn(tree, path) ? tree[path] : undefined));

describe("findMemoryLimits", () => {
  test("finds the own limit in a docker container on v2", () => {
    expect(find(trees.dockerV2)).toEqual([{ path: "/sys/fs/cgroup/memory.max", version: 2, maximumBytes: GiB }]);
  });

  test("finds the own limit in a docker container on v1, whose mount begins at the own cgroup", () => {
    const path = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
    expect(find(trees.dockerV1)).toEqual([{ path, version: 1, maximumBytes: GiB }]);
  });

  test("finds a pod's limit on v1 in memory.stat, where no file of the pod can be seen", () => {
    const path = "/sys/fs/cgroup/memory/memory.stat";
    expect(find(trees.kubernetesV1)).toEqual([{ path, version: 1, maximumBytes: 2 * GiB }]);
  });

  test("finds v1 limits from the own cgroup upwards on a hybrid host", () => {
    const base = "/sys/fs/cgroup/memory/user.slice";
    expect(find(trees.hybrid)).toEqual([
      { path: `${base}/user-1000.slice/memory.limit_in_bytes`, version: 1, maximumBytes: GiB },
      { path: `${base}/memory.limit_in_bytes`, version: 1, maximumBytes: 2 * GiB },
    ]);
  });

  test("finds the limits of a pod and of the node's share above a container without one", () => {
    const base = "/sys/fs/cgroup/kubepods.slice";
    const pod = `${base}/kubepods-burstable.slice/kubepods-burstable-pod1.slice`;
    expect(find(trees.kubernetesV2)).toEqual([
      { path: `${pod}/memory.max`, version: 2, maximumBytes: 2 * GiB },
      { path: `${base}/memory.max`, version: 2, maximumBytes: 4 * GiB },
    ]);
  });

  test("takes a backslash in /proc/self/cgroup for what it is", () => {
    expect(find(trees.userSlice).map(({ maximumBytes }) => maximumBytes)).toEqual([GiB, 4 * GiB]);
  });

  test("finds ancestors in a second mount, counts what both show once, and leaves other cgroups alone", () => {
    expect(find(trees.bindMounts)).toEqual([
      { path: "/sys/fs/cgroup/memory.max", version: 2, maximumBytes: GiB },
      { path: "/host root/sys/fs/cgroup/system.slice/memory.max", version: 2, maximumBytes: 2 * GiB },
    ]);
  });

  test("reads only the mount's root where the way down from it lies outside of the namespace", () => {
    expect(find(trees.unshared)).toEqual([{ path: "/sys/fs/cgroup/memory.max", version: 2, maximumBytes: 4 * GiB }]);
  });

  test("takes no neighbour for an ancestor after the process was moved out of its namespace", () => {
    expect(find(trees.movedAway)).toEqual([]);
    expect(find(trees.movedAside).map(({ maximumBytes }) => maximumBytes)).toEqual([GiB]);
  });

  test("sees the last mount of several on one point", () => {
    expect(find(trees.overmounted)).toEqual([]);
  });

  test("takes the own memory.stat and not that of an ancestor", () => {
    const tree = {
      "/proc/self/cgroup": "4:memory:/x\n",
      "/proc/self/mountinfo":
        "1 0 0:1 /.. /above rw - cgroup cgroup rw,memory\n2 0 0:1 / /own rw - cgroup cgroup rw,memory\n",
      "/above/memory.stat": `hierarchical_memory_limit ${4 * GiB}\n`,
      "/own/x/memory.stat": `hierarchical_memory_limit ${2 * GiB}\n`,
    };
    expect(find(tree)).toEqual([{ path: "/own/x/memory.stat", version: 1, maximumBytes: 2 * GiB }]);
  });

  test("is not led astray by a broken line after the good one", () => {
    const own = `${trees.dockerV2["/proc/self/cgroup"]}0::/a/../b\n5::/c\n0::\n`;
    expect(find({ ...trees.dockerV2, "/proc/self/cgroup": own })).toEqual(find(trees.dockerV2));
  });

  test("finds nothing without cgroups and in garbage", () => {
    expect(find(trees.noCgroup)).toEqual([]);
    expect(find({})).toEqual([]);
    expect(find(trees.garbage)).toEqual([]);
  });

  const values: [string, number | undefined][] = [
    ["0\n", 0],
    ["4096", 4096],
    ["9007199254740991\n", Number.MAX_SAFE_INTEGER],
    ["9007199254740992\n", undefined],
    ["9223372036854771712\n", undefined],
    ["9223372036854710272\n", undefined],
    ["18446744073709551615\n", undefined],
    ["max\n", undefined],
    ["-1\n", undefined],
    ["1e9\n", undefined],
    ["0x10\n", undefined],
    ["1 2\n", undefined],
    ["", undefined],
  ];
  for (const [text, bytes] of values) {
    test(`reads ${JSON.stringify(text)} as ${bytes ?? "no limit"}`, () => {
      const found = find({ ...trees.dockerV2, "/sys/fs/cgroup/memory.max": text });
      expect(found.map(({ maximumBytes }) => maximumBytes)).toEqual(bytes === undefined ? [] : [bytes]);
    });
  }

  test("never fails, whatever the files say", () => {
    const line = fc.array(
      fc.oneof(
        fc.constantFrom(" ", "/", "..", ":", "0::", "1:memory:", " - ", "cgroup2", "cgroup", "memory", "\\04"),
        fc.string(),
      ),
    );
    const text = fc.array(line.map((parts) => parts.join(""))).map((lines) => lines.join("\n"));
    fc.assert(
      fc.property(text, text, text, (own, mounts, limit) => {
        const read = (path: string) => (path.endsWith("/cgroup") ? own : path.endsWith("mountinfo") ? mounts : limit);
        expect(findMemoryLimits(read)).toBeArray();
      }),
    );
  });

  test.skipIf(!existsSync("/proc/self/cgroup"))("finds on this host only limits that its files say", () => {
    const readReal = (path: string) => {
      try {
        return readFileSync(path, "utf8");
      } catch {
        return undefined;
      }
    };
    for (const { path, version, maximumBytes } of findMemoryLimits(readReal)) {
      expect(path).toMatch(version === 1 ? /memory\.(limit_in_bytes|stat)$/ : /memory\.max$/);
      expect(readReal(path)).toContain(`${maximumBytes}`);
    }
  });
});
