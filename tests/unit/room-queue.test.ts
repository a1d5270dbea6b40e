/** Those who wait for memory: who is woken when some is free, and who lets whom pass. */

import { expect, test } from "bun:test";
import fc from "fast-check";
import { limits } from "../../src/memory/limits.ts";
import { Books } from "../../src/memory/state/books.ts";
import { findShortage } from "../../src/memory/state/quota.ts";
import type { Model } from "../../src/memory/state/region.ts";
import { RoomQueue } from "../../src/memory/state/room-queue.ts";

/** Books with `free` bytes for everybody, and a model `small` of which `own` bytes are free. */
function createBooks(free: number, own: number) {
  const books = new Books(free + limits.journalBytes);
  const facts = { revision: 1, createdAt: 0 };
  const large = books.addModel({ ...facts, name: "large", limits: [] });
  const small = books.addModel({ ...facts, name: "small", limits: [{ pool: "host", limitBytes: own }] });
  return { books, large, small };
}

/** Who is woken of those who wait for `bytes` each, by their place in line. */
function pump(
  free: number,
  own: number,
  line: readonly { readonly bytes: number; readonly small: boolean }[],
): number[] {
  const { books, large, small } = createBooks(free, own);
  const queue = new RoomQueue();
  const woken: number[] = [];
  for (const [index, { bytes, small: isSmall }] of line.entries()) {
    const wake = () => woken.push(index);
    const model = isSmall ? small : large;
    queue.add({
      model,
      poolName: "host",
      session: null,
      bytes,
      listBytes: 0,
      onFull: "wait",
      deadline: 0,
      hasTurn: false,
      actor: undefined,
      wake,
    });
  }
  queue.pump(books);
  return woken;
}

test("as many are woken as fit together, in the order in which they came", () => {
  const line = [3, 4, 3, 1].map((bytes) => ({ bytes, small: false }));
  expect(pump(10, 0, line)).toEqual([0, 1, 2]);
  expect(pump(9, 0, line)).toEqual([0, 1]);
  expect(pump(2, 0, line)).toEqual([]);
});

test("one that waits for its own model lets others pass, and one that waits for the server's memory does not", () => {
  const line = [
    { bytes: 5, small: true },
    { bytes: 5, small: false },
    { bytes: 1, small: false },
  ];
  expect(pump(5, 4, line)).toEqual([1]);
  expect(pump(4, 5, line)).toEqual([]);
});

test("whoever is woken fits with all who were woken before", () => {
  const waiting = fc.record({ bytes: fc.nat(40), small: fc.boolean() });
  fc.assert(
    fc.property(fc.nat(100), fc.nat(100), fc.array(waiting, { maxLength: 20 }), (free, own, line) => {
      const woken = pump(free, own, line);
      expect(woken).toEqual(woken.toSorted((a, b) => a - b));
      const bytesOf = (indexes: readonly number[]) =>
        indexes.reduce((sum, index) => sum + (line[index]?.bytes ?? 0), 0);
      expect(bytesOf(woken)).toBeLessThanOrEqual(free);
      expect(bytesOf(woken.filter((index) => line[index]?.small === true))).toBeLessThanOrEqual(own);
    }),
  );
});

test("the first in line is the first who came and is still there", () => {
  const { large } = createBooks(0, 0);
  const queue = new RoomQueue();
  const waiting = [1, 2].map((bytes) => {
    return {
      model: large,
      poolName: "host",
      session: null,
      bytes,
      listBytes: 0,
      onFull: "wait",
      deadline: 0,
      hasTurn: false,
      actor: undefined,
      wake: () => {},
    } as const;
  });
  for (const request of waiting) queue.add(request);
  expect(queue.firstOf("host")?.bytes).toBe(1);
  for (const request of waiting.slice(0, 1)) queue.remove(request);
  expect({ size: queue.size, first: queue.firstOf("host")?.bytes }).toEqual({ size: 1, first: 2 });
});

test("a shortage says which limit is short, and with bytes that fit there is none", () => {
  const { books, large, small } = createBooks(10, 4);
  const find = (model: Model, bytes: number) =>
    findShortage(books, { model, poolName: "host", session: null, bytes, listBytes: 0 });
  expect(find(large, 10)).toBeUndefined();
  expect(find(large, 11)).toEqual({ code: "pool-full", poolName: "host", requestedBytes: 11, availableBytes: 10 });
  expect(find(small, 4)).toBeUndefined();
  expect(find(small, 5)).toEqual({
    code: "model-limit-exceeded",
    poolName: "host",
    requestedBytes: 5,
    availableBytes: 4,
  });
});

test("each pool has a line of its own: who waits for a device holds up nobody who waits for the host, and the reverse", () => {
  const device = "GPU-1";
  const books = new Books(10 + limits.journalBytes, [{ name: device, limitBytes: 4 }]);
  const model = books.addModel({ name: "any", limits: [], revision: 1, createdAt: 0 });
  const queue = new RoomQueue();
  const woken: string[] = [];
  const add = (poolName: string, bytes: number) => {
    const rest = {
      onFull: "wait",
      deadline: 0,
      hasTurn: false,
      actor: undefined,
      session: null,
      listBytes: 0,
    } as const;
    queue.add({ ...rest, model, poolName, bytes, wake: () => woken.push(`${poolName} ${bytes}`) });
  };
  add(device, 5);
  add("host", 11);
  add(device, 1);
  add("host", 1);
  expect(queue.waitsFor("GPU-2")).toBe(false);
  queue.pump(books);
  expect(woken).toEqual([]);
  books.pools.get("host").limitBytes = 22 + limits.journalBytes;
  queue.pump(books);
  expect(woken).toEqual(["host 11", "host 1"]);
});

test("a list of tensors in host memory is asked of the host's pool, and one that the device lacks of the device's", () => {
  const device = "GPU-1";
  const books = new Books(10 + limits.journalBytes, [{ name: device, limitBytes: 4 }]);
  const facts = { name: "any", revision: 1, createdAt: 0 };
  const model = books.addModel({ ...facts, limits: [{ pool: device, limitBytes: 3 }] });
  const find = (bytes: number, listBytes: number) =>
    findShortage(books, { model, poolName: device, session: null, bytes, listBytes });
  expect(find(3, 10)).toBeUndefined();
  expect(find(3, 11)).toEqual({ code: "pool-full", poolName: "host", requestedBytes: 11, availableBytes: 10 });
  expect(find(4, 0)).toEqual({ code: "model-limit-exceeded", poolName: device, requestedBytes: 4, availableBytes: 3 });
});
