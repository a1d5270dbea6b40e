/** What the store relies on in every storage: its memory, its names and its bytes. One suite, run on each that there is. */

import { describe, expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  fstatSync,
  linkSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { SystemError, TensordError } from "../../src/memory/error.ts";
import { roundUpToPage } from "../../src/memory/host/capacity.ts";
import { toChecksum } from "../../src/memory/layout/checksum.ts";
import { MiB } from "../../src/memory/limits.ts";
import { createToken } from "../../src/memory/naming.ts";
import { leaseByte } from "../../src/memory/os/kernel-lease.ts";
import { isLocked, tryReadLock } from "../../src/memory/os/libc.ts";
import { createMemfd } from "../../src/memory/os/libc-memory.ts";
import type { FileStorage } from "../../src/memory/storage/file/file-storage.ts";
import type { Identity, Segment, Storage } from "../../src/memory/storage/storage.ts";
import { onesChecksums, patternChecksums, toPattern } from "../contract/support/checksum.ts";
import { bar, hold, lease } from "../contract/support/lease.ts";
import { TestApp } from "../harness/app.ts";
import { isZeros } from "../harness/instance-content.ts";
import { testWith } from "../harness/instance-needs.ts";
import { type OpenStorage, storageCases } from "./support/storages.ts";

const header = new Uint8Array(4096).fill(0x20);
const never = new AbortController().signal;
const nothing = () => {};
/** The number that statfs(2) has of it (<linux/magic.h>). */
const tmpfs = 0x0102_1994;
/** One huge page, for what is no larger than 3 MiB; and as many as a region of 40 MiB is made of by extending them. */
const ready = { some: 4 * MiB, much: 24 * MiB };

interface Made {
  readonly token: string;
  readonly identity: Identity;
}

async function allocate({ storage }: OpenStorage, byteSize: number): Promise<Made> {
  const token = createToken();
  return { token, identity: await storage.memory.allocate(toSegment(storage, token, byteSize), never) };
}

function toSegment({ hasHeader }: Storage, token: string, byteSize: number): Segment {
  return { token, byteSize, header: hasHeader ? header : new Uint8Array(0) };
}

/** Allocated, kept and published, as a region that was answered is. */
async function make(open: OpenStorage, byteSize: number): Promise<Made> {
  const made = await allocate(open, byteSize);
  open.storage.names.keep(made.token);
  const identity = open.bind?.(made.token, byteSize) ?? made.identity;
  open.storage.names.publish(made.token);
  return { ...made, identity };
}

function write({ storage }: OpenStorage, token: string, data: Uint8Array): void {
  using file = storage.bytes.open(token, "write");
  file.write(data, header.length);
}

async function failure(work: Promise<unknown>): Promise<unknown> {
  return work.then(() => undefined).catch((error: unknown) => error);
}

for (const one of storageCases) {
  const {
    name,
    kind,
    accesses,
    isFile,
    isElsewhere = false,
    isPointing = false,
    isReady = false,
    pageBytes = 4096,
    needs,
    open: openCase,
  } = one;
  if (needs !== undefined) {
    testWith(needs)(`${name} does all that the suite asks of a storage`, async () => {});
    continue;
  }
  /** A test's body with a storage of its own. */
  const withStorage =
    (use: (open: OpenStorage) => Promise<void>, readyBytes = ready.some) =>
    async () => {
      await using open = await openCase(readyBytes);
      await use(open);
    };

  /** Of memory that is the storage's own. */
  const testOwn = isPointing ? () => {} : test;

  if (isPointing) {
    test(
      `${name} points at files, which it neither makes, locks, changes nor frees`,
      withStorage(async (open) => {
        const { memory, names, bytes } = open.storage;
        const { token, identity } = await make(open, 8192);
        const path = open.pathOf(token);
        const before = statSync(path, { bigint: true });
        for (const access of ["open", "sealed-stock-writable"] as const) memory.setAccess(token, access);
        expect(names.kept()).toEqual([{ token, identity, byteSize: 8192, access: "sealed" }]);
        expect(names.address(token)).toEqual({ path, shmName: null });
        {
          using _ = lease(path);
          expect(memory.usage(token)).toMatchObject({ leased: false, byteSize: 8192 });
        }
        expect(() => memory.openDescription(token, "read")).toThrow("its readers open by themselves");
        expect(() => bytes.open(token, "write")).toThrow("it is somebody else's");
        {
          using file = bytes.open(token, "read");
          expect([isLocked(file.fd, leaseByte, 1n), file.byteSize]).toEqual([false, 8192]);
        }
        expect(names.inspect(token, identity)).toBe("intact");
        truncateSync(path, 5);
        expect(names.inspect(token, identity)).toBe("changed");
        names.settle?.(token);
        expect(names.inspect(token, identity)).toBe("intact");
        expect(() => bytes.readPrefix(token, 1)).toThrow("it was written to since it was loaded");
        expect(memory.elsewhereBytes).toBe(-4096);
        names.withdraw(token, identity);
        expect(await memory.free(token, 8192)).toBe("freed");
        expect([memory.elsewhereBytes, existsSync(path)]).toEqual([0, true]);
        const { ino, mode, nlink } = statSync(path, { bigint: true });
        expect({ ino, mode, nlink }).toEqual({ ino: before.ino, mode: before.mode, nlink: before.nlink });
      }),
    );

    test(
      `${name} looks beside the event loop at what is not known as local, and reads nothing of it`,
      withStorage(async (open) => {
        const { names, bytes } = open.storage;
        const { token, identity } = await allocate(open, 8192);
        names.keep(token);
        open.bind?.(token, 8192, true);
        const { promise, resolve } = Promise.withResolvers<string>();
        (open.storage as FileStorage).listen(resolve);
        truncateSync(open.pathOf(token), 5);
        // What is known is told; the look goes on by itself, and tells of what it found.
        expect(names.inspect(token, identity)).toBe("intact");
        expect(await promise).toBe(token);
        expect(names.inspect(token, identity)).toBe("changed");
        expect(() => bytes.open(token, "read")).toThrow("its file system may keep the server waiting");
      }),
    );
  }

  describe(`the memory of ${name}`, () => {
    for (const byteSize of [4096, 4097, 3 * MiB, 40 * MiB + 1]) {
      test(
        `gives ${byteSize} bytes: the header, and zeros behind it`,
        withStorage(
          async (open) => {
            const { token, identity } = await make(open, byteSize);
            const { dev, ino } = statSync(open.pathOf(token), { bigint: true });
            expect(identity).toEqual({ dev: dev.toString(), ino: ino.toString() });
            if (isElsewhere) {
              const { memory } = open.storage;
              expect(memory.space().usedBytes).toBe(roundUpToPage(byteSize, memory.pageSize));
              return;
            }
            const content = readFileSync(open.pathOf(token));
            expect(content.length).toBe(pageBytes === 4096 ? byteSize : roundUpToPage(byteSize, pageBytes));
            expect(content.subarray(0, header.length).equals(header)).toBeTrue();
            expect(isZeros(content.subarray(header.length))).toBeTrue();
          },
          byteSize > 3 * MiB ? ready.much : ready.some,
        ),
      );
    }

    for (const byteSize of [3 * MiB, 40 * MiB + 1]) {
      testOwn(
        `has all pages of ${byteSize} bytes that are written whole by when they are complete, whoever wrote which`,
        withStorage(
          async (open) => {
            const { memory, names } = open.storage;
            const token = createToken();
            await memory.allocate({ ...toSegment(open.storage, token, byteSize), isWritten: true }, never);
            const wholeBytes = roundUpToPage(byteSize, memory.pageSize);
            names.keep(token);
            const occupied = () => statSync(open.pathOf(token)).blocks * 512;
            // What lay ready whole is there already.
            const isLate = memory.latePages !== undefined && !(isReady && byteSize === 3 * MiB);
            // The stand-in allocates nothing.
            if (!isElsewhere && kind !== "file") expect(occupied() < wholeBytes).toBe(isLate);
            // Nothing is written to memory that is elsewhere, and all of it is there.
            if (isElsewhere) return expect(memory.latePages).toBeUndefined();
            const written = new Uint8Array(100_000).fill(7);
            const write = async () => {
              using file = open.storage.bytes.open(token, "write");
              file.write(written, MiB + 5);
            };
            await (memory.latePages?.write(token, byteSize, write) ?? write());
            await memory.latePages?.complete(token, byteSize, never);
            if (kind === "file") return;
            // A disk has blocks of its own beside.
            if (statfsSync(open.pathOf(token)).type === tmpfs) expect(occupied()).toBe(wholeBytes);
            else expect(occupied()).toBeGreaterThanOrEqual(wholeBytes);
            const content = readFileSync(open.pathOf(token));
            expect(content.subarray(0, header.length).equals(header)).toBeTrue();
            expect(isZeros(content.subarray(header.length, MiB + 5))).toBeTrue();
            expect(content.subarray(MiB + 5, MiB + 100_005).equals(written)).toBeTrue();
            expect(isZeros(content.subarray(MiB + 100_005))).toBeTrue();
            expect(content.length).toBeGreaterThanOrEqual(byteSize);
          },
          byteSize > 3 * MiB ? ready.much : ready.some,
        ),
      );
    }

    testOwn(
      "says of a page that did not come that memory is short, and nothing of what else its writer fails with",
      withStorage(async ({ storage }) => {
        const { latePages } = storage.memory;
        if (latePages === undefined) return;
        const token = createToken();
        await storage.memory.allocate({ ...toSegment(storage, token, 40 * MiB), isWritten: true }, never);
        const failing = (error: Error) => failure(latePages.write(token, 40 * MiB, () => Promise.reject(error)));
        const refused = await failing(new SystemError("write", 28, "ENOSPC"));
        const facts = { requested_bytes: 40 * MiB, available_bytes: expect.any(Number) };
        expect(refused).toMatchObject({ code: "out-of-shared-memory", facts });
        const others = new SystemError("pread", 0, "EOF");
        expect(await failing(others)).toBe(others);
        await storage.memory.discard(token, 40 * MiB);
      }),
    );

    test(
      "keeps nothing before it is told to, and discards what it made, twice if need be",
      withStorage(async (open) => {
        const { token } = await allocate(open, 3 * MiB);
        expect(open.storage.names.kept()).toEqual([]);
        await open.storage.memory.discard(token, 3 * MiB);
        await open.storage.memory.discard(token, 3 * MiB);
        expect(() => open.storage.names.keep(token)).toThrow();
      }),
    );

    testOwn(
      "stops when it is told to, and leaves what discard removes",
      withStorage(async (open) => {
        const { memory, names } = open.storage;
        const token = createToken();
        const cancel = new AbortController();
        const work = failure(memory.allocate(toSegment(open.storage, token, 64 * MiB), cancel.signal));
        cancel.abort(new TensordError("cancelled", "Cannot go on: the test says so"));
        expect(await work).toBe(cancel.signal.reason);
        await memory.discard(token, 64 * MiB);
        expect(names.kept()).toEqual([]);
      }),
    );

    testOwn(
      "refuses more than there is, with the numbers",
      withStorage(async (open) => {
        const { memory } = open.storage;
        const token = createToken();
        const byteSize = memory.space().freeBytes + 1024 * MiB;
        const error = await failure(memory.allocate(toSegment(open.storage, token, byteSize), never));
        expect(error).toBeInstanceOf(TensordError);
        const code = isElsewhere ? "out-of-device-memory" : "out-of-shared-memory";
        expect(error).toMatchObject({ code, facts: { requested_bytes: expect.any(Number) } });
        await memory.discard(token, byteSize);
      }),
    );

    test(
      "discards all that an earlier server was making, and nothing that is kept",
      withStorage(async (open) => {
        const kept = await make(open, 4096);
        await allocate(open, 4096);
        await allocate(open, 3 * MiB);
        await open.storage.memory.discardAll();
        expect(open.storage.names.kept().map(({ token }) => token)).toEqual([kept.token]);
      }),
    );

    testOwn(
      "knows who maps a region and who writes, and what became of its size",
      withStorage(async (open) => {
        const { memory } = open.storage;
        const { token } = await make(open, 2 * pageBytes);
        const path = open.pathOf(token);
        const free = { leased: false, consumed: false, made: false, barred: false, written: false };
        expect(memory.usage(token)).toEqual({ ...free, byteSize: 2 * pageBytes });
        {
          using _ = lease(path);
          expect(memory.usage(token)).toMatchObject({ ...free, leased: true, consumed: true });
        }
        {
          using _ = hold(path);
          expect(memory.usage(token)).toMatchObject({ ...free, leased: true, made: true });
        }
        {
          using _ = bar(path);
          expect(memory.usage(token)).toMatchObject({ ...free, leased: true, barred: true });
        }
        {
          using _ = lease(path, "write");
          expect(memory.usage(token)).toMatchObject({ leased: true, written: true });
        }
        expect(memory.usage(token)).toMatchObject({ leased: false, written: false });
        if (isElsewhere) {
          // Whoever cuts a lease file has cut nothing of the region.
          expect(memory.usage(token)).toMatchObject({ byteSize: 2 * pageBytes });
        } else if (isFile) {
          truncateSync(path, 4096);
          expect(memory.usage(token)).toMatchObject({ byteSize: 4096 });
        } else {
          for (const pages of [1, 3]) expect(() => truncateSync(path, pages * pageBytes)).toThrow("EPERM");
          expect(memory.usage(token)).toMatchObject({ byteSize: 2 * pageBytes });
        }
        expect(memory.usage(createToken())).toBeUndefined();
      }),
    );

    testOwn(
      "is opened anew for whoever is handed it: without locks, shared with nobody, and to read alone if that was said",
      withStorage(async (open) => {
        const { memory } = open.storage;
        const { token, identity } = await make(open, 2 * pageBytes);
        if (!open.storage.isMappable) {
          expect(() => memory.openDescription(token, "read")).toThrow("which no process maps");
          expect(() => memory.descriptionPath(token)).toThrow("which no process maps");
          return;
        }
        const [reader, writer] = [memory.openDescription(token, "read"), memory.openDescription(token, "write")];
        try {
          expect(memory.usage(token)).toMatchObject({ leased: false, written: false });
          for (const fd of [reader, writer]) expect(fstatSync(fd, { bigint: true }).ino.toString()).toBe(identity.ino);
          expect(tryReadLock(reader, leaseByte, 1n)).toBeTrue();
          expect(memory.usage(token)).toMatchObject({ consumed: true });
          // One description is not kept out by its own lock.
          expect(isLocked(reader, leaseByte, 1n)).toBeFalse();
          expect(isLocked(writer, leaseByte, 1n)).toBeTrue();
          expect(() => writeSync(reader, "x", 0)).toThrow("EBADF");
        } finally {
          for (const fd of [reader, writer]) closeSync(fd);
        }
        expect(memory.usage(token)).toMatchObject({ leased: false });
        expect(() => memory.openDescription(createToken(), "read")).toThrow();
      }),
    );

    testOwn(
      "tells by itself who may open it how",
      withStorage(async (open) => {
        const { memory, names } = open.storage;
        const { token } = await make(open, 4096);
        for (const access of accesses) {
          memory.setAccess(token, access);
          expect(names.kept()).toMatchObject([{ token, access }]);
        }
        if (accesses.includes("sealed-stock-writable")) return;
        const before = names.kept();
        expect(() => memory.setAccess(token, "sealed-stock-writable")).toThrow("it has no name");
        expect(names.kept()).toEqual(before);
      }),
    );

    test(
      "is sealed by a word that says whether it is final, and may be sealed again",
      withStorage(async (open) => {
        const { token } = await make(open, 8192);
        expect(await open.storage.memory.seal(token)).toBeTrue();
        expect(await open.storage.memory.seal(token)).toBeTrue();
        expect(open.storage.memory.usage(token)).toMatchObject({ leased: false, byteSize: 8192 });
      }),
    );

    testOwn(
      "says what it takes elsewhere than beside its names",
      withStorage(async (open) => {
        const { memory } = open.storage;
        const [small, large] = [await make(open, 5000), await allocate(open, 3 * MiB)];
        expect(memory.elsewhereBytes).toBe(
          isFile || isElsewhere ? 0 : roundUpToPage(5000, pageBytes) + roundUpToPage(3 * MiB, pageBytes),
        );
        await memory.free(small.token, 5000);
        await memory.discard(large.token, 3 * MiB);
        expect(memory.elsewhereBytes).toBe(0);
      }),
    );

    test(
      "is freed once nobody else links it, and freeing it again is no mistake",
      withStorage(async (open) => {
        const { memory, names } = open.storage;
        for (const byteSize of [4096, 3 * MiB]) {
          const { token, identity } = await make(open, byteSize);
          const elsewhere = `${open.pathOf(token)}.elsewhere`;
          if (isFile) linkSync(open.pathOf(token), elsewhere);
          names.withdraw(token, identity);
          if (isFile) {
            expect(await memory.free(token, byteSize)).toBe("hard-link");
            rmSync(elsewhere);
          }
          expect(await memory.free(token, byteSize)).toBe("freed");
          expect(memory.usage(token)).toBeUndefined();
          expect(await memory.free(token, byteSize)).toBe("freed");
        }
      }),
    );
  });

  describe(`the names of ${name}`, () => {
    testOwn(
      "say what is kept, with its identity and size",
      withStorage(async (open) => {
        const made = [await make(open, 4096), await make(open, 5000)];
        const kept = open.storage.names.kept().toSorted((a, b) => a.byteSize - b.byteSize);
        expect(kept).toEqual([
          { ...made[0], byteSize: 4096, access: "open" },
          { ...made[1], byteSize: 5000, access: "open" },
        ] as typeof kept);
      }),
    );

    testOwn(
      "are there from publish to withdraw, which may come twice",
      withStorage(async (open) => {
        const { names } = open.storage;
        const { token, identity } = await make(open, 4096);
        // The proof alone tells of what has no name and says so.
        expect(names.isPublished(token, identity) ?? true).toBeTrue();
        const { path } = names.address(token);
        expect(path === null || existsSync(path)).toBeTrue();
        expect(names.inspect(token, identity)).toBe("intact");
        names.withdraw(token, identity);
        names.withdraw(token, identity);
        expect(path !== null && existsSync(path)).toBeFalse();
      }),
    );

    testOwn(
      "that somebody took away or replaced are mended; what is gone for good is lost",
      withStorage(async (open) => {
        const { names } = open.storage;
        const { token, identity } = await make(open, 4096);
        const { path } = names.address(token);
        if (path !== null) {
          rmSync(path);
          expect(names.isPublished(token, identity)).toBeFalse();
          expect(names.inspect(token, identity)).toBe("relinked");
          rmSync(path);
          writeFileSync(path, "foreign");
          expect(names.isPublished(token, identity)).toBeFalse();
          expect(() => names.publish(token)).toThrow();
          names.withdraw(token, identity);
          expect(readFileSync(path, "utf8")).toBe("foreign");
          expect(names.inspect(token, identity)).toBe("replaced");
          expect(names.inspect(token, identity)).toBe("intact");
          rmSync(path);
        }
        if (isFile) rmSync(open.pathOf(token));
        else await open.storage.memory.free(token, 4096);
        expect(names.inspect(token, identity)).toBe("lost");
      }),
    );
  });

  describe(`the bytes of ${name}`, () => {
    if (isElsewhere) {
      test(
        "do not pass through the server, which says where they are",
        withStorage(async (open) => {
          const { bytes, memory } = open.storage;
          const { token } = await make(open, 8192);
          for (const access of ["read", "write"] as const) {
            expect(() => bytes.open(token, access)).toThrow(`in the memory of device ${memory.pool}`);
          }
          expect(() => bytes.readPrefix(token, 1)).toThrow(`in the memory of device ${memory.pool}`);
          expect(memory.usage(token)).toMatchObject({ leased: false, written: false });
        }),
      );

      test(
        "are filled from a file and hashed where they lie, chunk by chunk, as protocol.md says",
        withStorage(async (open) => {
          const { bytes } = open.storage;
          // Each is two processes: a byte, a chunk that is not whole, and two chunks.
          const patterns = patternChecksums.filter(([byteSize]) => byteSize === 1 || byteSize === MiB);
          const [byteSize, ofOnes] = onesChecksums[1] ?? [0, ""];
          const contents = [
            ...patterns.map(([byteSize, value]) => [toPattern(byteSize), value] as const),
            [new Uint8Array(byteSize).fill(1), ofOnes] as const,
          ];
          for (const [content, value] of contents) {
            const { token } = await make(open, content.length);
            const source = createMemfd("conformance-source");
            try {
              // Not from its beginning, as the bytes of a region with a header are not.
              writeSync(source, content, 0, content.length, header.length);
              const from = { fd: source, byteOffset: header.length, isForeign: false };
              const filled = await bytes.fill(token, 0, content.length, from, nothing);
              const hashed = await bytes.hash(token, 0, content.length, nothing);
              expect([toChecksum(filled).value, toChecksum(hashed).value]).toEqual([value, value]);
            } finally {
              closeSync(source);
            }
            await open.storage.memory.free(token, content.length);
          }
        }),
      );
      return;
    }

    testOwn(
      "are read and written where they lie, under a worker's locks",
      withStorage(async (open) => {
        const { bytes, memory } = open.storage;
        const { token } = await make(open, 8192);
        const data = toPattern(1000);
        {
          using file = bytes.open(token, "write");
          expect(memory.usage(token)).toMatchObject({ leased: true, written: true });
          file.write(data, 4096);
          expect(file.byteSize).toBe(8192);
        }
        {
          using file = bytes.open(token, "read");
          expect(memory.usage(token)).toMatchObject({ leased: true, written: false });
          expect(readFileSync(file.path).subarray(4096, 5096).equals(data)).toBeTrue();
        }
        expect(memory.usage(token)).toMatchObject({ leased: false, written: false });
        expect(Buffer.from(bytes.readPrefix(token, 5096)).subarray(4096).equals(data)).toBeTrue();
        expect(bytes.readPrefix(token, 100_000).length).toBe(8192);
      }),
    );

    test(
      "are as much in memory as the kernel says, are let go of only where they are somewhere else, and are flushed",
      withStorage(async (open) => {
        const { bytes } = open.storage;
        const { token } = await make(open, 64 * 1024);
        if (!isPointing) write(open, token, toPattern(60 * 1024));
        expect(await bytes.flush(token)).toBeBoolean();
        await bytes.advise(token, 64 * 1024, "dontneed");
        const left = (await bytes.resident(token, 64 * 1024)) ?? 0;
        expect(left).toBeLessThanOrEqual(64 * 1024);
        await bytes.advise(token, 64 * 1024, "willneed");
        const prefix = bytes.readPrefix(token, 64 * 1024);
        expect(prefix.length).toBe(64 * 1024);
        if (!isPointing) expect(Buffer.from(prefix.subarray(4096)).equals(toPattern(60 * 1024))).toBeTrue();
      }),
    );

    testOwn(
      "are hashed chunk by chunk, as protocol.md says",
      withStorage(async (open) => {
        for (const [byteSize, value] of patternChecksums) {
          const { token } = await make(open, header.length + byteSize);
          write(open, token, toPattern(byteSize));
          const hashes = await open.storage.bytes.hash(token, header.length, header.length + byteSize, nothing);
          expect(toChecksum(hashes).value).toBe(value);
        }
        const [byteSize, value] = onesChecksums[1] ?? [0, ""];
        const { token } = await make(open, header.length + byteSize);
        write(open, token, new Uint8Array(byteSize).fill(1));
        let looks = 0;
        const count = () => {
          looks += 1;
        };
        const hashes = await open.storage.bytes.hash(token, header.length, header.length + byteSize, count);
        expect({ looks, value: toChecksum(hashes).value }).toEqual({ looks: 2, value });
      }),
    );

    test(
      "are not hashed to the end if somebody says stop, or if they are no longer there",
      withStorage(async (open) => {
        const { bytes } = open.storage;
        const { token } = await make(open, header.length + MiB);
        const stop = new TensordError("cancelled", "Cannot go on: the test says so");
        const work = bytes.hash(token, header.length, header.length + MiB, () => {
          throw stop;
        });
        expect(await failure(work)).toBe(stop);
        if (!isFile) return;
        truncateSync(open.pathOf(token), header.length + 5);
        const cut = await failure(bytes.hash(token, header.length, header.length + MiB, nothing));
        expect(cut).toMatchObject({ code: "io-error" });
      }),
    );
  });
}

test("the suite runs on every storage that a server has, and on no stand-in in its place", async () => {
  const app = await TestApp.open();
  const forms = [...app.store.storages.all].map(({ form }) => form);
  await app.close();
  const covered = await Promise.all(
    storageCases
      .filter(({ name, needs }) => needs === undefined && !name.startsWith("a stand-in"))
      .map(async (one) => {
        await using open = await one.open(ready.some);
        return open.storage.form;
      }),
  );
  expect(forms.filter((form) => !covered.includes(form) && !form.startsWith("memfd-"))).toEqual([]);
});
