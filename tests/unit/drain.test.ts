import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { limits, MiB } from "../../src/memory/limits.ts";
import { drain } from "../../src/server/drain.ts";

const never = new AbortController().signal;

/** A body of `byteSize` bytes, in pieces of a MiB, that ends or goes on without bringing anything. */
function createBody(byteSize: number, ends: boolean) {
  let sent = 0;
  let isCancelled = false;
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        if (sent < byteSize) controller.enqueue(new Uint8Array(MiB));
        else if (ends) controller.close();
        else return Promise.withResolvers<void>().promise;
        sent += MiB;
        return undefined;
      },
      cancel() {
        isCancelled = true;
      },
    },
    { highWaterMark: 0 },
  );
  return { body, sent: () => sent, isCancelled: () => isCancelled };
}

/** Whether it is done, once everything that can happen now has happened. */
async function isDone(draining: Promise<void>): Promise<boolean> {
  let done = false;
  void draining.then(() => {
    done = true;
  });
  for (let turn = 0; turn < 100; turn++) await Promise.resolve();
  return done;
}

describe("a drain", () => {
  beforeEach(() => void jest.useFakeTimers());
  afterEach(() => void jest.useRealTimers());

  test("reads a body to its end", async () => {
    const { body, sent } = createBody(8 * MiB, true);
    await drain(body, never);
    expect(sent()).toBeGreaterThanOrEqual(8 * MiB);
  });

  test("reads no further than its bound of bytes", async () => {
    const { body, sent, isCancelled } = createBody(Number.POSITIVE_INFINITY, false);
    await drain(body, never);
    expect(sent()).toBe(limits.drainBytes);
    expect(isCancelled()).toBeTrue();
  });

  test("waits for a body that brings nothing for so long, and no longer", async () => {
    const { body, isCancelled } = createBody(3 * MiB, false);
    const draining = drain(body, never);
    expect(await isDone(draining)).toBeFalse();
    jest.advanceTimersByTime(limits.drainStallMs - 1);
    expect(await isDone(draining)).toBeFalse();
    jest.advanceTimersByTime(1);
    expect([await isDone(draining), isCancelled()]).toEqual([true, true]);
  });

  test("waits for one that comes slowly for so long, and no longer", async () => {
    let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
    const keep = (given: ReadableStreamDefaultController<Uint8Array>) => {
      controller = given;
    };
    const body = new ReadableStream<Uint8Array>({ start: keep });
    const draining = drain(body, never);
    let waitedMs = 0;
    for (; !(await isDone(draining)); waitedMs += limits.drainStallMs / 2) {
      controller?.enqueue(Uint8Array.of(1));
      await isDone(draining);
      jest.advanceTimersByTime(limits.drainStallMs / 2);
    }
    expect(waitedMs).toBe(limits.drainMs);
  });

  test("ends with the server", async () => {
    const stopping = new AbortController();
    const draining = drain(createBody(MiB, false).body, stopping.signal);
    expect(await isDone(draining)).toBeFalse();
    stopping.abort();
    expect(await isDone(draining)).toBeTrue();
    expect(await isDone(drain(createBody(MiB, false).body, stopping.signal))).toBeTrue();
  });

  test("takes a sender that goes away for the end", async () => {
    const body = new ReadableStream<Uint8Array>({ pull: () => Promise.reject(new Error("gone")) });
    await drain(body, never);
  });

  test("leaves alone what is not there, what is read, and what somebody reads", async () => {
    await drain(null, never);
    const read = new Response("read");
    await read.text();
    await drain(read.body, never);
    const { body } = createBody(MiB, false);
    body.getReader();
    await drain(body, never);
  });
});
