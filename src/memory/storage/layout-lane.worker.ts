/** The Worker behind a layout lane: text in, bytes out. It decides nothing. */

import { readFileSync } from "node:fs";
import { TensordError } from "../error.ts";
import { readAskedText } from "../layout/asked-text.ts";
import type { TensorDifference, TensorSpec } from "../layout/layout.ts";
import { Tensors } from "../layout/tensors.ts";
import { yieldToRequests } from "../os/nice.ts";
import {
  type AskedTensors,
  type ExistingList,
  type LaidOutBytes,
  type LayoutJob,
  type LayoutReply,
  layOut,
  type ReadBody,
} from "./layout-lane.ts";

declare const self: Worker;

yieldToRequests();

self.onmessage = (event: MessageEvent<LayoutJob>) => {
  const transfers: ArrayBuffer[] = [];
  const reply = run(event.data, transfers);
  self.postMessage(reply, transfers);
};

function run(job: LayoutJob, transfers: ArrayBuffer[]): LayoutReply {
  try {
    return { ok: true, value: perform(job, transfers) };
  } catch (error) {
    const failure = error instanceof TensordError ? { code: error.code, facts: error.facts } : undefined;
    return { ok: false, message: error instanceof Error ? error.message : String(error), failure };
  }
}

function perform(
  job: LayoutJob,
  transfers: ArrayBuffer[],
): ReadBody | LaidOutBytes | SharedArrayBuffer | TensorDifference | undefined {
  switch (job.kind) {
    case "start":
      return undefined;
    case "read": {
      const { tensors, ...rest } = readAskedText(Buffer.concat(job.parts));
      return { ...rest, tensors: tensors === undefined || rest.issueCount > 0 ? undefined : toShared(tensors) };
    }
    case "lay-out": {
      const { list, header, index, ...rest } = layOut(toSpecs(job.tensors), job.metadata);
      const parts = { header: toOwn(header), bytes: toOwn(list.bytes), index: index && toOwn(index) };
      for (const part of [parts.header, parts.bytes, parts.index]) if (part !== undefined) transfers.push(part.buffer);
      return { ...rest, ...parts, count: list.count };
    }
    case "ask-again":
      return toShared(readList(job.existing).toSpecs());
    case "compare":
      return readList(job.existing).differenceFrom(toSpecs(job.tensors));
  }
}

function readList({ source, count, byteSize }: ExistingList): Tensors {
  const bytes = typeof source === "string" ? readFileSync(source) : source;
  return Tensors.written(count, bytes.subarray(0, byteSize));
}

function toSpecs(tensors: AskedTensors): readonly TensorSpec[] {
  return tensors instanceof SharedArrayBuffer ? JSON.parse(Buffer.from(tensors).toString("utf8")) : tensors;
}

function toShared(tensors: readonly TensorSpec[]): SharedArrayBuffer {
  const text = Buffer.from(JSON.stringify(tensors));
  const shared = new SharedArrayBuffer(text.byteLength);
  new Uint8Array(shared).set(text);
  return shared;
}

/** Bytes whose memory is nobody else's, so that it can go over as it is. */
function toOwn(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer, byteLength } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) return bytes as Uint8Array<ArrayBuffer>;
  return new Uint8Array(bytes);
}
