/** Spare descriptors: who gets them, when, and that nothing keeps one that it could not use. */

import { afterEach, describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TensordError } from "../../src/memory/error.ts";
import { createToken } from "../../src/memory/naming.ts";
import { raiseLimit, setAside, toOutOfDescriptors, withSpare } from "../../src/memory/os/descriptors.ts";
import { listDirectory, listIfThere, openFile, readTextIfThere } from "../../src/memory/os/files.ts";
import { askLocks } from "../../src/memory/os/kernel-lease.ts";
import { readDescriptorLimit, setDescriptorLimit } from "../../src/memory/os/libc.ts";
import { DataFile } from "../../src/memory/storage/data-file.ts";
import { Downloads } from "../../src/memory/storage/downloads.ts";
import { parsePoll } from "../../src/server/listeners.ts";
import { withApp } from "../harness/app.ts";
import { openBelow } from "../harness/open-files.ts";
import { until } from "../harness/server-wait.ts";

const spare = 6;
const untouched = readDescriptorLimit();
const open: number[] = [];

afterEach(() => {
  for (const fd of open.splice(0)) closeSync(fd);
  setDescriptorLimit(untouched);
});

/** Opens until nothing can be opened any more. @returns how many. */
function takeAll(openOne: () => number): number {
  for (let count = 0; ; count++) {
    try {
      open.push(openOne());
    } catch (error) {
      expect(error).toMatchObject({ code: "EMFILE" });
      return count;
    }
  }
}

const plain = () => openSync("/dev/null", "r");

/** As a server with few descriptors is. */
function setFew() {
  setDescriptorLimit({ soft: BigInt(listDirectory("/proc/self/fd").length + 30), hard: untouched.hard });
  const aside = setAside(spare);
  if (aside === undefined) throw new Error("nothing was set aside");
  return aside;
}

describe("spare descriptors", () => {
  test("are for work that asks for them, a half for what stays long", () => {
    using _ = setFew();
    expect(takeAll(plain)).toBeGreaterThan(10);
    expect(takeAll(() => openFile("/dev/null", "r", undefined, "long"))).toBe(spare / 2);
    expect(takeAll(() => openFile("/dev/null", "r"))).toBe(spare / 2);
    expect(() => withSpare(plain)).toThrow("EMFILE");
  });

  test("are everybody's while the limit is raised, and nobody's after that", () => {
    using _ = setFew();
    takeAll(plain);
    using raised = raiseLimit("short");
    expect(raised).toBeDefined();
    open.push(plain());
    // What needs one meanwhile takes nothing away from who raised it.
    closeSync(openFile("/dev/null", "r"));
    open.push(plain());
    raised?.[Symbol.dispose]();
    expect(plain).toThrow("EMFILE");
  });

  test("come back with the limit", () => {
    const before = readDescriptorLimit();
    setFew()[Symbol.dispose]();
    expect(readDescriptorLimit().soft).toBeLessThan(before.soft);
    expect(takeAll(plain)).toBeGreaterThan(25);
  });

  test("cannot be set aside where that would be all", () => {
    expect(setAside(Number(untouched.soft))).toBeUndefined();
    expect(readDescriptorLimit()).toEqual(untouched);
  });
});

test("what is not there is told apart from what cannot be opened", () => {
  expect(readTextIfThere("/nowhere")).toBeUndefined();
  expect(listIfThere("/nowhere")).toEqual([]);
  setDescriptorLimit({ soft: 3n, hard: untouched.hard });
  expect(() => readTextIfThere("/proc/self/limits")).toThrow("EMFILE");
  expect(() => listIfThere("/proc/self/fd")).toThrow("EMFILE");
});

describe("a failure of the system", () => {
  test("is out-of-descriptors for the process and for the machine, each with what to raise", () => {
    const failureOf = (code: string) => toOutOfDescriptors(Object.assign(new Error(code), { code }));
    expect(failureOf("EMFILE")).toMatchObject({ code: "out-of-descriptors", facts: { errno: "EMFILE" } });
    expect(failureOf("EMFILE")?.facts.hint).toContain("ulimit -n");
    expect(failureOf("ENFILE")?.facts.hint).toContain("fs.file-max");
    expect(failureOf("ENOENT")).toBeUndefined();
    expect(toOutOfDescriptors(new TensordError("io-error", "Cannot"))).toBeUndefined();
    expect(toOutOfDescriptors(undefined)).toBeUndefined();
  });
});

test("an upload that cannot begin leaves no descriptor behind", () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-descriptors-"));
  try {
    const path = join(folder, "file");
    writeFileSync(path, "0123456789");
    using file = DataFile.open(path, "write", (error) => error);
    const count = () => openBelow(path).length;
    const before = count();
    const body = new ReadableStream<Uint8Array>();
    body.getReader();
    for (let attempt = 0; attempt < 5; attempt++) expect(() => file.receive(body, 0)).toThrow();
    setDescriptorLimit({ soft: 3n, hard: untouched.hard });
    expect(() => file.receive(new ReadableStream<Uint8Array>(), 0)).toThrow("EMFILE");
    setDescriptorLimit(untouched);
    expect(count()).toBe(before);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a download's lease outlasts looks that no descriptor is left for, and no longer", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-descriptors-"));
  const path = join(folder, "file");
  writeFileSync(path, "0123456789");
  using downloads = new Downloads();
  // Closed again at once: what is open in this process is what a download is told by.
  const isLeased = () => {
    const fd = openSync(path, "r");
    try {
      return askLocks(fd).leased;
    } finally {
      closeSync(fd);
    }
  };
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    downloads.begin(DataFile.open(path, "read", (error) => error)).begun();
    expect(isLeased()).toBe(true);
    setDescriptorLimit({ soft: 3n, hard: untouched.hard });
    await downloads.settle({ dev: String(dev), ino: String(ino) });
    setDescriptorLimit(untouched);
    expect(isLeased()).toBe(true);
    await until("the lease is let go of", () => !isLeased());
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test(
  "every call of the storage that opens something says out-of-descriptors, and nothing stays open",
  withApp(async (app) => {
    const { id } = await app.create({ byte_size: 64 });
    const token = id.slice("reg_".length);
    const { memory, names, bytes } = app.store.storages.get("shm");
    const segment = { token: createToken(), byteSize: 8192, header: new Uint8Array(4096) };
    const calls: Readonly<Record<string, () => unknown>> = {
      allocate: () => memory.allocate(segment, new AbortController().signal),
      discardAll: () => memory.discardAll(),
      usage: () => memory.usage(token),
      setAccess: () => memory.setAccess(token, "open"),
      kept: () => names.kept(),
      open: () => bytes.open(token, "read"),
      readPrefix: () => bytes.readPrefix(token, 8),
      hash: () => bytes.hash(token, 4096, 8192, () => {}),
    };
    // A Worker that comes up opens some of its own.
    await app.start();
    const count = () => openBelow(`${app.shmDirectory}/tensord.${app.instance}`).length;
    const before = count();
    for (const [name, call] of Object.entries(calls)) {
      setDescriptorLimit({ soft: 3n, hard: untouched.hard });
      const failure = await Promise.resolve()
        .then(call)
        .catch((error: unknown) => error);
      setDescriptorLimit(untouched);
      expect([name, (failure as TensordError).code]).toEqual([name, "out-of-descriptors"]);
    }
    expect(count()).toBe(before);
  }),
);

test("a poll's entries are read with what the runtime keeps there", () => {
  const text =
    "pos:\t0\nflags:\t02000002\n" +
    "tfd:        4 events:       19 data:     7f5500001234  pos:0 ino:27 sdev:d\n" +
    "tfd:       21 events: 80002019 data: ffffffffffffffff  pos:0 ino:28 sdev:8\n";
  expect(parsePoll(text)).toEqual([
    { fd: 4, events: 0x19, data: 0x7f5500001234n },
    { fd: 21, events: 0x80002019, data: 0xffffffffffffffffn },
  ]);
});
