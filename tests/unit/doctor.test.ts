/** The doctor's judges: from facts to findings, each with its numbers and its cure. How facts are gathered is tested for real. */

import { describe, expect, test } from "bun:test";
import { diagnose } from "../../src/memory/doctor/diagnose.ts";
import type {
  DrainFacts,
  DrainingRegion,
  Facts,
  HolderFacts,
  HostFacts,
  ServerFacts,
} from "../../src/memory/doctor/facts.ts";
import type { Finding } from "../../src/memory/doctor/finding.ts";
import { parseRemoveIpc, readRemoveIpc } from "../../src/memory/doctor/logind.ts";
import { parseMeminfo, parseOpenFilesLimit, parseWatches } from "../../src/memory/doctor/proc.ts";
import type { DeviceReport } from "../../src/memory/host/device.ts";
import { findMount } from "../../src/memory/host/mount.ts";
import { GiB, MiB } from "../../src/memory/limits.ts";
import { noDevices } from "../harness/made-up-devices.ts";

const now = Date.UTC(2026, 10, 21);

/** A host on which nothing is wrong. */
const healthyHost: HostFacts = {
  systemd: { isRunning: true, removesIpc: false },
  shm: { uid: 0, gid: 0, mode: 0o1777 },
  shmErrno: null,
  fileSystem: { type: "tmpfs", totalBytes: 8 * GiB, freeBytes: 6 * GiB, totalInodes: 100_000, freeInodes: 90_000 },
  own: { uid: 1000, gid: 1000, mode: 0o750 },
  socket: { isSocket: true, mode: 0o660 },
  broker: { isSocket: true, mode: 0o660 },
  lock: { state: "held", pid: "77" },
  moved: { shm: null, keep: null },
  limit: { limitBytes: 7 * GiB, reason: "90 % of it", cgroup: null },
  swap: { totalBytes: 0, freeBytes: 0 },
  openFiles: { limit: 20_000, used: 40 },
  isWatching: true,
  scan: { entries: 3, isWhole: true, foreign: { files: 0, bytes: 0, largest: [], owners: [] }, instances: [] },
  draining: [],
  barred: { files: [], isWhole: true },
};

const healthyServer: ServerFacts = {
  pid: 77,
  urls: ["unix:///dev/shm/tensord.a1/http.sock"],
  allowedHosts: [],
  limitBytes: 7 * GiB,
  drainingRegions: 0,
  elasticPools: 0,
  overdue: [],
  owed: [],
  drainingBytes: 0,
  draining: [],
  barred: new Map(),
  descriptors: { limit: 20_000, connections: 19_900 },
  reserve: {
    budgetBytes: 1 * GiB,
    bytes: 1 * GiB,
    absence: null,
    smallOnly: null,
    hugeChunks: 500,
    smallChunks: 11,
  },
  toBeHeld: 2,
  files: { mapped: 0, changed: [] },
};

const healthyHolder: HolderFacts = { state: "running", pid: 78, descriptors: 2, ageMs: 7_300_000 };

interface Changes {
  readonly host?: Partial<HostFacts>;
  readonly server?: Partial<ServerFacts> | null;
  readonly question?: Partial<Facts["question"]>;
  readonly holder?: HolderFacts;
  readonly devices?: DeviceReport;
}

function toFacts({ host, server, question, holder = healthyHolder, devices = noDevices }: Changes): Facts {
  return {
    question: {
      instance: "a1",
      shmDirectory: "/dev/shm",
      socket: "/dev/shm/tensord.a1/http.sock",
      broker: "/dev/shm/tensord.a1/broker.sock",
      uid: 1000,
      settingBytes: undefined,
      held: null,
      draining: [],
      ...question,
    },
    host: { ...healthyHost, ...host },
    holder,
    devices,
    server: server === null ? null : { ...healthyServer, ...server },
    now,
  };
}

/** The finding of one check; the others must be as on a healthy host. */
function findingOf(check: string, changes: Changes): Finding {
  const { ok, findings } = diagnose(toFacts(changes));
  const finding = findings.find((one) => one.check === check);
  if (finding === undefined) throw new Error(`no finding of ${check} among ${findings.map((one) => one.check)}`);
  expect(ok).toBe(findings.every(({ status }) => status !== "error"));
  return finding;
}

describe("a diagnosis", () => {
  test("of a healthy server has every check, all of them fine and without a cure", () => {
    const { ok, findings } = diagnose(toFacts({}));
    expect(ok).toBeTrue();
    expect(findings.filter(({ status, cure }) => status !== "ok" || cure !== null)).toEqual([]);
    expect(findings.map(({ check }) => check)).toEqual([
      "server",
      "shm-file-system",
      "shm-size",
      "shm-space",
      "inodes",
      "sticky-bit",
      "moved-directory",
      "instance-directory",
      "socket",
      "broker",
      "foreign-files",
      "other-instances",
      "pool-limit",
      "swap",
      "reserve",
      "remove-ipc",
      "loopback-tcp",
      "name-watch",
      "open-files",
      "fd-holder",
      "draining",
      "barred-leases",
      "devices",
    ]);
  });

  test("is all sentences", () => {
    const all = Object.values(traps).flatMap(([changes]) => diagnose(toFacts(changes)).findings);
    for (const { check, status, summary, cure } of all) {
      expect(check).toMatch(/^[a-z-]+$/);
      expect(summary).toMatch(/\.$/);
      expect(summary).not.toMatch(/undefined|NaN|null|Infinity|\[object|\.\.$/);
      if (status === "ok") expect(cure).toBeNull();
      else expect(cure?.length).toBeGreaterThan(10);
    }
  });
});

const cgroup = { bytes: 1 * GiB, reason: "the 1342177280 bytes in memory.max", otherwiseBytes: 7 * GiB };
const leased: DrainingRegion = { token: "t1", description: "reg_t1", byteSize: 5 * MiB, waitsFor: "lease" };
const linked: DrainingRegion = { token: "t2", description: "reg_t2", byteSize: MiB, waitsFor: "hard-link" };
const drained = (token: string, agoMs: number): DrainFacts => ({ token, sinceMs: now - agoMs, links: 2, ino: "4711" });
const foreign = (bytes: number) => ({
  ...healthyHost.scan,
  foreign: {
    files: 3,
    bytes,
    largest: [{ path: "/dev/shm/torch_1", uid: 1001, bytes }],
    owners: [{ uid: 1001, files: 3, bytes }],
  },
});
const other = { instance: "b2", uid: 0, regions: 2, bytes: 3 * MiB } as const;
const withOther = (state: "held" | "free" | "unknown", regions = 2) => ({
  ...healthyHost.scan,
  instances: [{ ...other, regions, lock: { state, pid: state === "held" ? "99" : null } }],
});
const fileSystem = healthyHost.fileSystem as NonNullable<HostFacts["fileSystem"]>;

/** What is wrong, the check that must find it, its status, and words of the summary and of the cure. */
const traps: Readonly<
  Record<string, readonly [changes: Changes, check: string, status: string, summary: string, cure: string]>
> = {
  "no server that answers": [
    { server: null, host: { lock: { state: "free", pid: null } } },
    "server",
    "warning",
    "No server answers for instance a1",
    "npm start",
  ],
  "a server that holds the lock and does not answer": [
    { server: null },
    "server",
    "error",
    "A server runs on instance a1, pid 77, and does not answer",
    "end it and start it again",
  ],
  "a shared directory that is not there": [
    { host: { fileSystem: null, shm: null, shmErrno: "ENOENT" } },
    "shm-file-system",
    "error",
    "/dev/shm cannot be opened: ENOENT",
    "TENSORD_SHM_DIR",
  ],
  "a file system that is none in memory": [
    { host: { fileSystem: { ...fileSystem, type: "ext4" } } },
    "shm-file-system",
    "warning",
    "on ext4 and not on a tmpfs",
    "Mount a tmpfs there",
  ],
  "a container's 64 MiB": [
    { host: { fileSystem: { ...fileSystem, totalBytes: 64 * MiB, freeBytes: 60 * MiB } } },
    "shm-size",
    "error",
    "/dev/shm has 64 MiB in all: a container's default",
    "--shm-size=8g",
  ],
  "half a GiB": [
    { host: { fileSystem: { ...fileSystem, totalBytes: 512 * MiB, freeBytes: 500 * MiB } } },
    "shm-size",
    "warning",
    "512 MiB",
    "Mount it larger",
  ],
  "little space": [
    { host: { fileSystem: { ...fileSystem, freeBytes: 80 * MiB } } },
    "shm-space",
    "warning",
    "80 MiB of the file system are free (0 %)",
    "tensord rm",
  ],
  "no space": [{ host: { fileSystem: { ...fileSystem, freeBytes: 0 } } }, "shm-space", "error", "0 B", "tensord rm"],
  "few inodes": [
    { host: { fileSystem: { ...fileSystem, freeInodes: 1000 } } },
    "inodes",
    "warning",
    "1000 inodes of the file system are free (1 %)",
    "nr_inodes",
  ],
  "one inode, where a region takes two": [
    { host: { fileSystem: { ...fileSystem, freeInodes: 1 } } },
    "inodes",
    "error",
    "1 inode of the",
    "nr_inodes",
  ],
  "an emptyDir's mode": [
    { host: { shm: { uid: 0, gid: 0, mode: 0o777 } } },
    "sticky-bit",
    "warning",
    "/dev/shm has mode 777, without the sticky bit",
    "chmod +t /dev/shm",
  ],
  "a file system mounted over the shared directory": [
    { host: { moved: { shm: "/dev/shm", keep: "/dev/shm/tensord.a1/keep" } } },
    "moved-directory",
    "error",
    "another directory than the server's",
    "Unmount",
  ],
  "an instance's directory that was moved": [
    { host: { moved: { shm: null, keep: "/dev/shm/away/keep" } } },
    "moved-directory",
    "error",
    "whose keeper is at /dev/shm/away/keep",
    "Move it back to /dev/shm/tensord.a1",
  ],
  "a directory of another uid": [
    { host: { own: { uid: 0, gid: 0, mode: 0o750 } } },
    "instance-directory",
    "error",
    "belongs to uid 0, gid 0, with mode 750, and this is uid 1000",
    "another TENSORD_INSTANCE",
  ],
  "a directory that its group cannot enter": [
    { host: { own: { uid: 1000, gid: 2000, mode: 0o700 } } },
    "instance-directory",
    "error",
    "workers of gid 2000 cannot reach the socket",
    "chmod 750 /dev/shm/tensord.a1",
  ],
  "a directory that is too open": [
    { host: { own: { uid: 1000, gid: 1000, mode: 0o777 } } },
    "instance-directory",
    "error",
    "want 750: the next start would refuse it",
    "chmod 750",
  ],
  "a socket that is gone": [{ host: { socket: null } }, "socket", "error", "is not there", "Restart the server"],
  "a broker's socket that is gone": [
    { host: { broker: null } },
    "broker",
    "error",
    "is not there",
    "Restart the server",
  ],
  "a file in the socket's place": [
    { host: { socket: { isSocket: false, mode: 0o660 } } },
    "socket",
    "error",
    "is no socket",
    "Restart the server",
  ],
  "a socket that its group cannot use": [
    { host: { socket: { isSocket: true, mode: 0o600 } } },
    "socket",
    "warning",
    "has mode 600",
    "chmod 660",
  ],
  "files of others": [
    { host: { scan: foreign(4 * GiB) } },
    "foreign-files",
    "warning",
    "4 GiB of /dev/shm are in 3 files of others: uid 1001 4 GiB in 3 files. " +
      "The largest: /dev/shm/torch_1 (4 GiB, uid 1001)",
    "remove those that nobody uses",
  ],
  "another instance whose server is gone": [
    { host: { scan: withOther("free") } },
    "other-instances",
    "warning",
    "b2 of uid 0 with 2 regions (3 MiB), its server does not run",
    "tensord purge --instance b2",
  ],
  "a pool for which nothing is left": [
    { host: { limit: { failure: "Cannot start the pool: 0 bytes are left", hint: "Raise what the sentence names." } } },
    "pool-limit",
    "error",
    "Cannot start the pool: 0 bytes are left.",
    "Raise what the sentence names",
  ],
  "a cgroup smaller than the file system": [
    { host: { limit: { limitBytes: GiB, reason: "the cgroup", cgroup } }, server: { limitBytes: GiB } },
    "pool-limit",
    "warning",
    "A cgroup bounds the pool to 1 GiB, where it could have 7 GiB",
    "Raise the cgroup's memory limit",
  ],
  "a cgroup that shrank under the pool": [
    { host: { limit: { limitBytes: GiB, reason: "the cgroup", cgroup } } },
    "pool-limit",
    "error",
    "The pool may take 7 GiB, and the cgroup leaves it 1 GiB now",
    "Raise the cgroup's memory limit",
  ],
  "a file system that grew since the start": [
    { server: { limitBytes: 3 * GiB } },
    "pool-limit",
    "warning",
    "The pool may take 3 GiB, as decided at the start; now it would be 90 % of it.",
    "Restart the server",
  ],
  "swap in use": [
    { host: { swap: { totalBytes: 2 * GiB, freeBytes: GiB } } },
    "swap",
    "warning",
    "1 GiB of 2 GiB of swap are in use",
    "memory.swap.max=0",
  ],
  "a person's uid under RemoveIPC": [
    { host: { systemd: { isRunning: true, removesIpc: true } } },
    "remove-ipc",
    "warning",
    "when the last session of uid 1000 ends, everything of it in /dev/shm is removed",
    "RemoveIPC=no",
  ],
  "TCP without tokens": [
    { server: { urls: [...healthyServer.urls, "http://127.0.0.1:7411"] } },
    "loopback-tcp",
    "warning",
    "Every local user can reach http://127.0.0.1:7411",
    "TENSORD_PORT empty",
  ],
  "TCP without tokens behind a proxy": [
    { server: { urls: [...healthyServer.urls, "http://127.0.0.1:7411"], allowedHosts: ["gpu.example.com", "b:1"] } },
    "loopback-tcp",
    "warning",
    "whoever reaches what stands in front of it as gpu.example.com; b:1: TCP asks for no token",
    "a password or a certificate",
  ],
  "no watch": [{ host: { isWatching: false } }, "name-watch", "warning", "does not watch /dev/shm", "inotify"],
  "few descriptors": [
    { host: { openFiles: { limit: 1012, used: 20 } }, server: { descriptors: { limit: 1024, connections: 992 } } },
    "open-files",
    "warning",
    "may open 1024 files and has 20 open; 992 connections fit at once",
    "LimitNOFILE",
  ],
  "descriptors that run out": [
    { host: { openFiles: { limit: 20_000, used: 19_000 } } },
    "open-files",
    "error",
    "has 19000 open",
    "LimitNOFILE",
  ],
  "no fd holder for a memfd region": [
    { holder: { state: "none" }, server: { toBeHeld: 1 } },
    "fd-holder",
    "warning",
    "No fd holder runs for 1 descriptor: a crash of the server now loses memfd regions.",
    "tries again by itself",
  ],
  "an fd holder that lacks some": [
    { holder: { ...healthyHolder, descriptors: 1 } },
    "fd-holder",
    "warning",
    "pid 78, keeps 1 descriptor, and has run for 2 hours; 2 descriptors should be kept",
    "its log says why",
  ],
  "an fd holder that is stopped": [
    { holder: { state: "silent", reason: "process 78 did not answer in time", hint: "Is it stopped? kill -CONT 78" } },
    "fd-holder",
    "error",
    "The fd holder does not answer: process 78 did not answer in time.",
    "kill -CONT 78",
  ],
  "an fd holder without a server": [
    { holder: { ...healthyHolder, ageMs: 200_000 }, server: null },
    "fd-holder",
    "warning",
    "keeps 2 descriptors, and has run for 3 minutes, for a server that is not there.",
    "tensord purge",
  ],
  "a region that drains for long": [
    {
      server: { drainingRegions: 1, drainingBytes: 5 * MiB, draining: [leased] },
      host: { draining: [drained("t1", 90_000)] },
    },
    "draining",
    "warning",
    "1 region (5 MiB) drain: reg_t1, 5 MiB, for 90 s: a process maps it",
    "End the processes",
  ],
  "a region whose file is linked elsewhere": [
    {
      server: { drainingRegions: 1, drainingBytes: MiB, draining: [linked] },
      host: { draining: [drained("t2", 1000)] },
    },
    "draining",
    "warning",
    "its file is linked elsewhere (inode 4711, 2 links)",
    "find -xdev -inum",
  ],
  "a region whose leases somebody bars": [
    {
      server: { barred: new Map([["t1", "reg_t1 (m/w)"]]) },
      host: { barred: { files: [{ token: "t1", ino: "4711" }], isWhole: true } },
    },
    "barred-leases",
    "warning",
    "write-locks the lease byte of 1 region: reg_t1 (m/w) (inode 4711). Clients map them all the same",
    "grep tensord.a1",
  ],
};

describe("a diagnosis finds", () => {
  for (const [what, [changes, check, status, summary, cure]] of Object.entries(traps)) {
    test(`${what}, by ${check}`, () => {
      const finding = findingOf(check, changes);
      expect(finding.status).toBe(status as never);
      expect(finding.summary).toContain(summary);
      expect(finding.cure).toContain(cure);
    });
  }
});

describe("a diagnosis does not mind", () => {
  const harmless: Readonly<Record<string, readonly [changes: Changes, check: string]>> = {
    "a tmpfs without a size": [{ host: { fileSystem: { ...fileSystem, totalBytes: 0, freeBytes: 0 } } }, "shm-size"],
    "a directory that only its owner writes": [{ host: { shm: { uid: 0, gid: 0, mode: 0o755 } } }, "sticky-bit"],
    "few small files of others": [{ host: { scan: foreign(MiB) } }, "foreign-files"],
    "another instance whose server runs": [{ host: { scan: withOther("held") } }, "other-instances"],
    "another instance that it may not look into": [{ host: { scan: withOther("unknown") } }, "other-instances"],
    "another instance without regions": [{ host: { scan: withOther("free", 0) } }, "other-instances"],
    "a cgroup that leaves more than the file system": [
      { host: { limit: { limitBytes: 7 * GiB, reason: "90 %", cgroup: { ...cgroup, bytes: 9 * GiB } } } },
      "pool-limit",
    ],
    "swap that nobody uses": [{ host: { swap: { totalBytes: GiB, freeBytes: GiB } } }, "swap"],
    "RemoveIPC, as a system user": [
      { host: { systemd: { isRunning: true, removesIpc: true } }, question: { uid: 999 } },
      "remove-ipc",
    ],
    "RemoveIPC, with another directory": [
      { host: { systemd: { isRunning: true, removesIpc: true } }, question: { shmDirectory: "/dev/shmem" } },
      "remove-ipc",
    ],
    "RemoveIPC, where systemd does not run": [
      { host: { systemd: { isRunning: false, removesIpc: true } } },
      "remove-ipc",
    ],
    "any number of descriptors": [
      { host: { openFiles: { limit: Number.POSITIVE_INFINITY, used: 10 } }, server: { descriptors: null } },
      "open-files",
    ],
    "a region that has drained for a moment": [
      {
        server: { drainingRegions: 1, drainingBytes: 1, draining: [leased] },
        host: { draining: [drained("t1", 5000)] },
      },
      "draining",
    ],
  };
  for (const [what, [changes, check]] of Object.entries(harmless)) {
    test(`${what}`, () => {
      expect(findingOf(check, changes)).toMatchObject({ status: "ok", cure: null });
    });
  }

  test("a pid that the lock does not tell, and more draining regions than it looks at", () => {
    const silent = findingOf("server", { server: null, host: { lock: { state: "held", pid: null } } });
    expect(silent.summary).toContain("pid unknown");
    const many = findingOf("draining", { server: { drainingRegions: 12, drainingBytes: 1, draining: [leased] } });
    expect(many.summary).toEndWith("; 11 more.");
    const barred = findingOf("barred-leases", { host: { barred: { files: [], isWhole: false } } });
    expect(barred.summary).toContain("among those that were looked at");
  });

  test("a path that was made to look like something else", () => {
    const scan = foreign(4 * GiB);
    const path = `/dev/shm/\u001b[31m\n${"x".repeat(500)}`;
    const { summary } = findingOf("foreign-files", {
      host: { scan: { ...scan, foreign: { ...scan.foreign, largest: [{ path, uid: 1, bytes: 1 }] } } },
    });
    expect(summary).toContain('"/dev/shm/\\u001b[31m\\nxxx');
    expect(summary.length).toBeLessThan(600);
  });
});

describe("RemoveIPC", () => {
  const read = (files: Record<string, string>) =>
    readRemoveIpc({
      read: (path) => files[path],
      list: (folder) =>
        Object.keys(files)
          .filter((path) => path.startsWith(`${folder}/`) && !path.slice(folder.length + 1).includes("/"))
          .map((path) => path.slice(folder.length + 1)),
    });

  test("is on where nothing is said", () => {
    expect(read({})).toBeTrue();
    expect(read({ "/etc/systemd/logind.conf": "[Login]\n#RemoveIPC=no\n" })).toBeTrue();
  });

  test("is read from its section only, the last word counts, and what cannot be read does not", () => {
    expect(parseRemoveIpc("[Manager]\nRemoveIPC=no\n")).toBeUndefined();
    expect(parseRemoveIpc("[Login]\nRemoveIPC=no\n[Login]\nRemoveIPC = Yes \n")).toBeTrue();
    expect(parseRemoveIpc("[Login]\nRemoveIPC=off\nRemoveIPC=perhaps\n")).toBeFalse();
    expect(parseRemoveIpc("[Login]\nXRemoveIPC=no\n;RemoveIPC=no\n")).toBeUndefined();
  });

  test("of the strongest main file counts, and drop-ins come after it in the order of their names", () => {
    const main = {
      "/etc/systemd/logind.conf": "[Login]\nRemoveIPC=no",
      "/usr/lib/systemd/logind.conf": "[Login]\nRemoveIPC=yes",
    };
    expect(read(main)).toBeFalse();
    expect(read({ ...main, "/usr/lib/systemd/logind.conf.d/50-ipc.conf": "[Login]\nRemoveIPC=yes" })).toBeTrue();
    expect(
      read({
        ...main,
        "/usr/lib/systemd/logind.conf.d/90-ipc.conf": "[Login]\nRemoveIPC=yes",
        "/etc/systemd/logind.conf.d/10-ipc.conf": "[Login]\nRemoveIPC=no",
      }),
    ).toBeTrue();
  });

  test("of a drop-in is hidden by one of the same name in a stronger folder, and other files are none", () => {
    expect(
      read({
        "/usr/lib/systemd/logind.conf.d/ipc.conf": "[Login]\nRemoveIPC=no",
        "/etc/systemd/logind.conf.d/ipc.conf": "",
        "/etc/systemd/logind.conf.d/ipc.conf.bak": "[Login]\nRemoveIPC=no",
      }),
    ).toBeTrue();
  });
});

describe("texts of /proc", () => {
  test("meminfo is read in bytes", () => {
    const text =
      "MemTotal:       24683100 kB\nSwapTotal:       1048572 kB\nSwapFree:         524288 kB\nHugePages_Total:   0\n";
    expect(parseMeminfo(text)).toEqual({
      MemTotal: 24_683_100 * 1024,
      SwapTotal: 1_048_572 * 1024,
      SwapFree: 524_288 * 1024,
    });
  });

  test("the soft limit of open files is read, and no limit is infinite", () => {
    expect(
      parseOpenFilesLimit("Max processes  1  2  processes\nMax open files            1024       4096       files\n"),
    ).toBe(1024);
    expect(parseOpenFilesLimit("Max open files            unlimited    unlimited    files\n")).toBe(
      Number.POSITIVE_INFINITY,
    );
    expect(parseOpenFilesLimit("")).toBe(Number.POSITIVE_INFINITY);
  });

  test("watches are read with the device as stat tells it", () => {
    const text =
      "pos:\t0\nflags:\t02004000\ninotify wd:2 ino:2 sdev:18 mask:fc6 ignored_mask:0 fhandle-bytes:c\n" +
      "inotify wd:1 ino:4d2 sdev:10300102 mask:fc6 ignored_mask:0\n";
    expect(parseWatches(text)).toEqual([
      { ino: 2n, dev: 0x18n },
      // Major 259, minor 258: of the minor the low byte stays, the rest goes above the major.
      { ino: 1234n, dev: 2n | (259n << 8n) | (0x100n << 12n) },
    ]);
  });

  test("a mount is the longest above the path, and the last of several on one point", () => {
    const text = [
      "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw",
      "25 22 0:24 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw,size=65536k,huge=advise",
      "26 22 0:26 / /dev/shm rw - ramfs none rw",
      "27 22 0:27 / /mnt/a\\040b rw - tmpfs none rw,size=4k",
      "28 22 0:28 / /dev/shmem rw - tmpfs none rw",
      "",
    ].join("\n");
    expect(findMount(text, "/dev/shm")).toEqual({ mountPoint: "/dev/shm", type: "ramfs", options: ["rw"] });
    expect(findMount(text, "/mnt/a b/c")?.type).toBe("tmpfs");
    expect(findMount(text, "/mnt/a")?.mountPoint).toBe("/");
    expect(findMount("", "/dev/shm")).toBeUndefined();
  });
});
