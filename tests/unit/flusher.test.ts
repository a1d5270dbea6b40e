/** Lines leave a moment after they were written, also behind a reader that stalled, and then nothing wakes the server. */

import { expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import { Flusher, type LineBuffer } from "../../src/server/flusher.ts";
import { until } from "../harness/server-wait.ts";

class Lines extends EventEmitter implements LineBuffer {
  readonly written: string[] = [];
  flushes = 0;
  /** A write is under way: flushes do nothing. */
  isBusy = false;

  write(line: string): void {
    this.written.push(line);
  }

  flush(): void {
    this.flushes += 1;
    if (!this.isBusy) for (const line of this.written.splice(0)) this.emit("write", Buffer.byteLength(line));
  }
}

test("what is written leaves, and then nothing is flushed any more", async () => {
  const lines = new Lines();
  const flusher = new Flusher(lines, 1);
  flusher.write("größer\n");
  flusher.write("b\n");
  await until("it is flushed", () => lines.flushes > 0);
  expect(lines.written).toEqual([]);
  await Bun.sleep(20);
  expect(lines.flushes).toBe(1);
  flusher.write("c\n");
  await until("it is flushed again", () => lines.flushes > 1);
  expect(lines.written).toEqual([]);
});

test("behind a write that is under way it flushes until all has left", async () => {
  const lines = new Lines();
  lines.isBusy = true;
  const flusher = new Flusher(lines, 1);
  flusher.write("a\n");
  await until("it is tried again", () => lines.flushes > 2);
  expect(lines.written).toEqual(["a\n"]);
  lines.isBusy = false;
  await until("all has left", () => lines.written.length === 0);
});

test("what is dropped is not waited for", async () => {
  const lines = new Lines();
  lines.isBusy = true;
  const flusher = new Flusher(lines, 1);
  flusher.write("a\n");
  lines.emit("drop", "a\n");
  await Bun.sleep(20);
  expect(lines.flushes).toBe(0);
});
