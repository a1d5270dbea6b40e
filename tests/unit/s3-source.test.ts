/** Objects by their URIs, what the server asks for them with, and how their bytes are asked for: what needs no service. */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { fileLimits } from "../../src/loaders/limits.ts";
import { toModelPath, toRegionName } from "../../src/loaders/source/model-roots.ts";
import { planObject, planPieces } from "../../src/loaders/source/s3-plan.ts";
import { Turns } from "../../src/loaders/source/turns.ts";
import { TensordError } from "../../src/memory/error.ts";
import { readS3Environment } from "../../src/server/s3-environment.ts";

function refusalOf(act: () => unknown): TensordError {
  try {
    act();
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("a URI of an object", () => {
  const roots = ["/models", "s3://weights/llama", "s3://other"];
  for (const [uri, object] of [
    ["s3://weights/llama/a.safetensors", { bucket: "weights", key: "llama/a.safetensors" }],
    ["s3://weights/llama/x y%20?#ü/a", { bucket: "weights", key: "llama/x y%20?#ü/a" }],
    ["s3://other/a", { bucket: "other", key: "a" }],
    ["s3://other/a//b", { bucket: "other", key: "a//b" }],
    ["s3://other/..a/.b/c..", { bucket: "other", key: "..a/.b/c.." }],
  ] as const) {
    test(`${uri} is its key as it stands`, () => {
      expect(toModelPath(uri, roots)).toMatchObject({ path: uri, object });
    });
  }

  for (const [uri, code, reason] of [
    ["s3://weights/secret", "forbidden", "it is below none of /models, s3://weights/llama, s3://other"],
    ["s3://weights/llama-of-others/a", "forbidden", "it is below none of"],
    ["s3://weights/llama", "forbidden", "it is below none of"],
    ["s3://weights2/llama/a", "forbidden", "it is below none of"],
    ["s3://other/", "validation-failed", "it names no object"],
    ["s3://other", "validation-failed", "it names no object"],
    ["s3:///a", "validation-failed", "it names no object"],
    ["s3://user:secret@other/a", "validation-failed", "it names no object"],
    ["s3://weights/llama/../secret", "validation-failed", "its key has . or .."],
    ["s3://other/./a", "validation-failed", "its key has . or .."],
    ["s3://other//a", "validation-failed", "its key begins or ends with a slash"],
    ["s3://other/a/", "validation-failed", "its key begins or ends with a slash"],
    ["s3://weights/llama/..\\..\\secret", "validation-failed", "has a backslash"],
    ["s3://other/a\n", "validation-failed", "control character"],
    [`s3://other/${"ü".repeat(513)}`, "validation-failed", "its key has 1026 bytes, want at most 1024"],
    ["S3://other/a", "validation-failed", "its scheme is s3, want"],
  ] as const) {
    test(`${JSON.stringify(uri.slice(0, 60))} is refused: ${reason}`, () => {
      const refusal = refusalOf(() => toModelPath(uri, roots));
      expect(refusal.code).toBe(code);
      expect(refusal.message).toContain(reason);
      expect(refusal.facts.hint).toBeTruthy();
    });
  }

  test("is no way to files, nor a path to objects", () => {
    expect(refusalOf(() => toModelPath("s3://models/a", ["/", "/models", "s3:"])).code).toBe("forbidden");
    expect(refusalOf(() => toModelPath("file:///other/a", ["s3://other"])).code).toBe("forbidden");
  });

  test("names a region as a path does", () => {
    expect(toRegionName("s3://weights/llama/model.safetensors.zst")).toBe("model");
  });
});

describe("what objects are asked for with", () => {
  const roots = ["/models", "s3://weights"];
  const keys = { AWS_ACCESS_KEY_ID: "key", AWS_SECRET_ACCESS_KEY: "s3cret" };

  test("is read of the variables of AWS's own tools", () => {
    expect(readS3Environment({ ...keys, AWS_REGION: "eu-central-1" }, roots)).toEqual({
      endpoint: "https://s3.eu-central-1.amazonaws.com",
      region: "eu-central-1",
      credentials: { accessKeyId: "key", secretAccessKey: "s3cret", sessionToken: undefined },
    });
    const others = { AWS_ENDPOINT_URL: "http://minio:9000/", AWS_DEFAULT_REGION: "x", AWS_SESSION_TOKEN: "t" };
    expect(readS3Environment({ ...keys, ...others }, roots)).toMatchObject({
      endpoint: "http://minio:9000",
      region: "x",
      credentials: { sessionToken: "t" },
    });
    const both = { ...others, AWS_ENDPOINT_URL_S3: "https://s3.local/base" };
    expect(readS3Environment(both, roots)).toMatchObject({ endpoint: "https://s3.local/base", credentials: undefined });
    expect(readS3Environment({ AWS_ENDPOINT_URL: "", AWS_ACCESS_KEY_ID: "" }, roots)?.region).toBe("us-east-1");
  });

  test("is not looked at where no root is in S3", () => {
    expect(readS3Environment({ AWS_ENDPOINT_URL: "nonsense" }, ["/models"])).toBeUndefined();
  });

  for (const [environment, reason] of [
    [{ AWS_ACCESS_KEY_ID: "key" }, "AWS_SECRET_ACCESS_KEY is not"],
    [{ AWS_SECRET_ACCESS_KEY: "s3cret" }, "AWS_ACCESS_KEY_ID is not"],
    [{ ...keys, S3_SESSION_TOKEN: "s3cret" }, "S3_SESSION_TOKEN is set"],
    [{ AWS_ENDPOINT_URL: "minio:9000" }, "AWS_ENDPOINT_URL is no URL"],
    [{ AWS_ENDPOINT_URL_S3: "http://me:s3cret@minio" }, "AWS_ENDPOINT_URL_S3 has a user or a password"],
    [{ AWS_ENDPOINT_URL: "http://minio/?s3cret" }, "AWS_ENDPOINT_URL has a query"],
    [{ AWS_REGION: "eu s3cret" }, "AWS_REGION is no name of a region"],
  ] as const) {
    test(`is refused where ${reason}, and quotes nothing of it`, () => {
      const refusal = refusalOf(() => readS3Environment(environment, roots));
      expect(refusal.message).toContain(`Cannot start: `);
      expect(refusal.message).toContain(reason);
      expect(JSON.stringify([refusal.message, refusal.facts])).not.toContain("s3cret");
    });
  }
});

describe("a plan", () => {
  const maximum = fileLimits.objectRangeBytes;

  test("asks for all bytes once, in ranges that are bounded, and has a place for each", () => {
    const piece = fc.record({ part: fc.nat(2), size: fc.oneof(fc.integer({ min: 1, max: 999 }), fc.nat(3 * maximum)) });
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), fc.boolean(), (asked, isDense) => {
        const numbers: number[] = [];
        const ends = [0, 0, 0];
        let to = 64;
        for (const { part, size } of asked) {
          const from = (ends[part] ?? 0) + (isDense ? 0 : 3);
          numbers.push(part, from, size, to);
          ends[part] = from + size;
          to += size + 28;
        }
        const ranges = planPieces(Float64Array.from(numbers));
        const flat = ranges.flatMap(({ part, byteOffset, byteSize, stretches }) => {
          expect(byteSize).toBeLessThanOrEqual(maximum);
          expect(stretches.reduce((sum, stretch) => sum + stretch.byteSize, 0)).toBe(byteSize);
          let at = byteOffset;
          return stretches.map(({ byteSize: size, toOffset }) => {
            at += size;
            return [part, at - size, size, toOffset] as const;
          });
        });
        // Put together again they are the pieces that were asked for.
        const joined: number[] = [];
        for (const [part, from, size, toOffset] of flat) {
          const last = joined.slice(-4) as [number, number, number, number];
          const goesOn =
            last.length === 4 && last[0] === part && last[1] + last[2] === from && last[3] + last[2] === toOffset;
          if (goesOn) joined[joined.length - 2] = last[2] + size;
          else joined.push(part, from, size, toOffset);
        }
        expect(joined).toEqual(numbers.length === 0 ? [] : numbers.filter((_, at) => numbers[at - (at % 4) + 2] !== 0));
      }),
    );
  });

  test("of an object without data asks for nothing", () => {
    expect(planObject(100, 100)).toEqual([]);
    expect(planObject(100, 101)).toEqual([
      { part: 0, byteOffset: 100, byteSize: 1, stretches: [{ byteSize: 1, toOffset: 100 }] },
    ]);
  });

  test("of many small tensors asks for few ranges", () => {
    const numbers = Array.from({ length: 30_000 }, (_, at) => [1, at * 100, 100, at * 128]).flat();
    expect(planPieces(Float64Array.from(numbers))).toHaveLength(1);
  });
});

describe("turns", () => {
  const never = new AbortController().signal;

  test("are as many as there are, in the order in which they are asked for", async () => {
    const turns = new Turns(2);
    const got: number[] = [];
    const held = await Promise.all([turns.take(never), turns.take(never)]);
    const waiting = [3, 4].map((number) => turns.take(never).then((turn) => [got.push(number), turn] as const));
    await Promise.resolve();
    expect(got).toEqual([]);
    held[0]?.[Symbol.dispose]();
    // Twice is once.
    held[0]?.[Symbol.dispose]();
    const [, third] = (await waiting[0]) ?? [];
    expect(got).toEqual([3]);
    third?.[Symbol.dispose]();
    await waiting[1];
    expect(got).toEqual([3, 4]);
  });

  test("are not taken by who gave up waiting", async () => {
    const turns = new Turns(1);
    const held = await turns.take(never);
    const control = new AbortController();
    const waiting = turns.take(control.signal);
    control.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    held[Symbol.dispose]();
    await turns.take(never);
    await expect(turns.take(control.signal)).rejects.toThrow("enough");
  });
});
