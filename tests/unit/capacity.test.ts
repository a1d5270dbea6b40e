import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { TensordError } from "../../src/memory/error.ts";
import { globalLimit, roundUpToPage } from "../../src/memory/host/capacity.ts";
import { GiB, limits, MiB } from "../../src/memory/limits.ts";

const cgroup = (maximumBytes: number) => ({ path: "/sys/fs/cgroup/memory.max", version: 2 as const, maximumBytes });

describe("globalLimit", () => {
  test("is the setting where that is the smallest", () => {
    const limit = globalLimit({ settingBytes: GiB, tmpfsBytes: 16 * GiB, memoryLimits: [cgroup(16 * GiB)] });
    expect(limit.limitBytes).toBe(GiB);
    expect(limit.reason).toBe("TENSORD_MEMORY_LIMIT_BYTES: 1073741824 bytes");
    expect(limit.candidates.map(({ bytes }) => bytes)).toEqual([
      GiB,
      Math.floor(14.4 * GiB),
      16 * GiB - Math.floor(0.8 * GiB),
    ]);
  });

  test("is 90 % of the tmpfs where that is the smallest, in whole pages", () => {
    const limit = globalLimit({ settingBytes: 16 * GiB, tmpfsBytes: 64 * MiB, memoryLimits: [] });
    expect(limit.limitBytes).toBe(60_395_520);
    expect(limit.reason).toBe("90 % of the 67108864 bytes of the shared memory file system: 60395520 bytes");
  });

  test("is a cgroup's maximum less 256 MiB, or less 5 % where that is more", () => {
    const of = (maximumBytes: number) =>
      globalLimit({
        settingBytes: undefined,
        tmpfsBytes: 2 ** 50,
        memoryLimits: [cgroup(2 ** 49), cgroup(maximumBytes)],
      });
    expect(of(GiB).limitBytes).toBe(768 * MiB);
    expect(of(5 * GiB).limitBytes).toBe(5 * GiB - 256 * MiB);
    expect(of(100 * GiB).limitBytes).toBe(95 * GiB);
    expect(of(GiB).reason).toBe(
      "the 1073741824 bytes in /sys/fs/cgroup/memory.max, less 268435456 of headroom: 805306368 bytes",
    );
  });

  test("takes a tmpfs of size 0 for one without a limit", () => {
    expect(globalLimit({ settingBytes: GiB, tmpfsBytes: 0, memoryLimits: [] }).limitBytes).toBe(GiB);
  });

  test("refuses to start with nothing that bounds it", () => {
    const failure = failureOf({ settingBytes: undefined, tmpfsBytes: 0, memoryLimits: [] });
    expect(failure.code).toBe("out-of-shared-memory");
    expect(failure.facts.hint).toContain("TENSORD_MEMORY_LIMIT_BYTES");
  });

  test("refuses to start when the headroom takes all, with the numbers and the cure", () => {
    const failure = failureOf({ settingBytes: undefined, tmpfsBytes: GiB, memoryLimits: [cgroup(128 * MiB)] });
    expect(failure.code).toBe("out-of-shared-memory");
    expect(failure.message).toBe(
      "Cannot start the pool: the 134217728 bytes in /sys/fs/cgroup/memory.max, less 268435456 of headroom: " +
        "0 bytes are left for it, want more than the 8388608 of the journal",
    );
    expect(failure.facts).toMatchObject({ available_bytes: 0, requested_bytes: limits.journalBytes });
    expect(failure.facts.hint).toContain("emptyDir");
  });

  test("refuses exactly what the journal alone would fill", () => {
    const of = (settingBytes: number) => ({ settingBytes, tmpfsBytes: GiB, memoryLimits: [] });
    expect(failureOf(of(limits.journalBytes + 4095)).code).toBe("out-of-shared-memory");
    expect(globalLimit(of(limits.journalBytes + 4096)).limitBytes).toBe(limits.journalBytes + 4096);
  });

  test("never passes a candidate, loses less than a page, and names the one that decides", () => {
    const bytes = fc.integer({ min: GiB, max: Number.MAX_SAFE_INTEGER });
    fc.assert(
      fc.property(fc.option(bytes, { nil: undefined }), bytes, fc.array(bytes), (settingBytes, tmpfsBytes, maxima) => {
        const memoryLimits = maxima.map(cgroup);
        const { limitBytes, reason, candidates } = globalLimit({ settingBytes, tmpfsBytes, memoryLimits });
        const least = Math.min(...candidates.map((candidate) => candidate.bytes));
        expect(limitBytes).toBe(least - (least % 4096));
        expect(candidates.find((candidate) => reason.startsWith(candidate.source))?.bytes).toBe(least);
        expect(candidates).toHaveLength((settingBytes === undefined ? 1 : 2) + maxima.length);
        const share = (BigInt(tmpfsBytes) * 90n) / 100n;
        expect(candidates.map((candidate) => BigInt(candidate.bytes))).toContain(share);
      }),
    );
  });
});

describe("roundUpToPage", () => {
  test("is the smallest multiple of the page that holds the bytes", () => {
    const pageSize = fc.constantFrom(4096, 16384, 65536, 2 * MiB);
    const bytes = fc.nat({ max: Number.MAX_SAFE_INTEGER - 2 * MiB });
    fc.assert(
      fc.property(bytes, pageSize, (size, page) => {
        const rounded = roundUpToPage(size, page);
        expect(rounded % page).toBe(0);
        expect(rounded - size).toBeGreaterThanOrEqual(0);
        expect(rounded - size).toBeLessThan(page);
      }),
    );
    expect([0, 1, 4096, 4097].map((size) => roundUpToPage(size, 4096))).toEqual([0, 4096, 4096, 8192]);
  });

  test("asserts that the page is a power of two and the size a number of bytes", () => {
    for (const page of [0, -4096, 3, 4097, 0.5, Number.NaN]) expect(() => roundUpToPage(1, page)).toThrow();
    for (const size of [-1, 0.5, 2 ** 53, Number.NaN]) expect(() => roundUpToPage(size, 4096)).toThrow();
  });
});

function failureOf(input: Parameters<typeof globalLimit>[0]): TensordError {
  try {
    globalLimit(input);
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error("the pool would start");
}
