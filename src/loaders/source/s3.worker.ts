/**
 * The Worker that has an S3 service: it opens objects, reads their headers, and brings their bytes into the files of regions. Whatever the
 * service does, the event loop does not wait, and each job ends: done, failed or cancelled, and nothing of it goes on then.
 */

import assert from "node:assert/strict";
import { readSync, writeSync } from "node:fs";
import { quote } from "../../memory/naming.ts";
import { readDescriptorLimit } from "../../memory/os/libc.ts";
import { writeMapped } from "../../memory/os/libc-memory.ts";
import { yieldToRequests } from "../../memory/os/nice.ts";
import { invalid, withPath } from "../formats/refusal.ts";
import { isShardIndex } from "../formats/shards.ts";
import { streamContent } from "../formats/stream-content.ts";
import { fileLimits } from "../limits.ts";
import { readModel, readShardedModel, toKey } from "../read-model.ts";
import { spread } from "../spread.ts";
import { type FileReply, toFailedReply } from "../worker-reply.ts";
import type { FillJob, OpenedObjects, S3Job, S3Reply, S3Request } from "./s3-job.ts";
import type { S3Part } from "./s3-options.ts";
import { type PlannedRange, planObject, planPieces } from "./s3-plan.ts";
import { S3Reader } from "./s3-reader.ts";
import { changed } from "./s3-refusal.ts";
import { S3Source } from "./s3-source.ts";
import { mistakeOfKey, type S3Object, toS3Uri } from "./s3-uri.ts";

declare const self: Worker;

/** Progress is told in steps of at least this size. */
const toldBytes = 1024 * 1024;

/** What the loop says of a job that it has cancelled is its own. */
const cancelled = new Error("the job was cancelled");

yieldToRequests();

let source: S3Source | undefined;
const running = new Map<number, AbortController>();

self.onmessage = ({ data: { id, job } }: MessageEvent<S3Request>) => {
  if (job === undefined) running.get(id)?.abort(cancelled);
  else void run(id, job);
};

async function run(id: number, job: S3Job): Promise<void> {
  const control = new AbortController();
  running.set(id, control);
  const reply = await perform(id, job, control.signal).then((value): FileReply => ({ ok: true, value }), toFailedReply);
  running.delete(id);
  tell({ id, reply });
}

function tell(reply: S3Reply): void {
  self.postMessage(reply);
}

async function perform(id: number, job: S3Job, signal: AbortSignal): Promise<unknown> {
  switch (job.kind) {
    case "start":
      source = new S3Source(job.options, toRequests(Number(readDescriptorLimit().soft)));
      return undefined;
    case "open":
      return await open(job, signal);
    case "fill":
    case "compare":
      return await fill(job, signal, (doneBytes) => tell({ id, doneBytes }));
  }
}

/** Each has a socket. With few descriptors most are for others. */
function toRequests(descriptors: number): number {
  return Math.max(
    1,
    Math.min(fileLimits.objectRequests, Math.floor(descriptors / fileLimits.descriptorsPerObjectRequest)),
  );
}

function sourceOf(): S3Source {
  if (source === undefined) throw new Error("the Worker is started before it is asked");
  return source;
}

async function open({ object, format }: Extract<S3Job, { kind: "open" }>, signal: AbortSignal): Promise<OpenedObjects> {
  const objects: S3Part[] = [];
  using reading = endingWith(signal);
  const openObject = async (one: S3Object) => {
    const { part, begin } = await sourceOf().open(one, signal);
    objects.push(part);
    return new S3Reader(sourceOf(), part, begin, reading.signal);
  };
  const path = toS3Uri(object);
  const reader = await openObject(object);
  const folder = object.key.slice(0, object.key.lastIndexOf("/") + 1);
  const { headers, ...read } = await (format === "auto" && isShardIndex(path)
    ? readShardedModel(reader, path, (name) => openObject(toShard({ ...object, key: folder }, name, path)))
    : readModel(reader, path, format));
  return { ...read, objects, key: toKey(objects.map(toState), headers) };
}

/** @throws TensordError `invalid-model-file` of a name that is a key of no object. */
function toShard({ bucket, key: folder }: S3Object, name: string, path: string): S3Object {
  const key = `${folder}${name}`;
  const mistake = mistakeOfKey(key);
  if (mistake === undefined) return { bucket, key };
  throw withPath(path, invalid(`its index names ${quote(name)}, and ${mistake}, want files in its own folder`));
}

/** A signal for what is read ahead, which nobody wants any longer at the end. */
function endingWith(signal: AbortSignal): Disposable & { readonly signal: AbortSignal } {
  const end = new AbortController();
  return { signal: AbortSignal.any([signal, end.signal]), [Symbol.dispose]: () => end.abort(cancelled) };
}

function toState(part: S3Part): string {
  return JSON.stringify([toS3Uri(part), part.etag, part.byteSize, part.lastModified]);
}

/** What ends a comparison. */
const difference = new Error("a byte differs");

/** Resolves when all bytes are written, or found equal, and the objects are still what they were. @returns false once a byte differs. */
async function fill(job: FillJob, signal: AbortSignal, onBytes: (byteSize: number) => void): Promise<boolean> {
  let untold = 0;
  const write = (bytes: Uint8Array, toOffset: number) => {
    if (job.kind === "fill") writeAll(job, bytes, toOffset);
    else if (!hasAt(job.toFd, bytes, toOffset)) throw difference;
    untold += bytes.length;
    if (untold < toldBytes) return;
    onBytes(untold);
    untold = 0;
  };
  try {
    if (job.compression === "none") await copy(job, write, signal);
    else await decompress(job, write, signal);
  } catch (error) {
    if (error === difference) return false;
    throw error;
  }
  for (const part of job.parts) if (!(await sourceOf().isSame(part, signal))) throw changed(part);
  onBytes(untold);
  return true;
}

type Write = (bytes: Uint8Array, toOffset: number) => void;

/** Several ranges at a time, each written as it comes. Where one fails the others end too, and are waited for. */
async function copy(job: FillJob, write: Write, signal: AbortSignal): Promise<void> {
  const { kind, parts, pieces, dataOffset, byteSize } = job;
  const ranges = pieces === undefined ? planObject(dataOffset, byteSize) : planPieces(pieces);
  const left = kind === "fill" ? ranges.values() : spread(ranges);
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const failures: unknown[] = [];
  const work = async () => {
    for (const range of left) {
      try {
        await sourceOf().read(
          parts[range.part] as S3Part,
          range.byteOffset,
          range.byteSize,
          scatter(range, write),
          either,
        );
      } catch (error) {
        failures.push(error);
        stop.abort(cancelled);
        return;
      }
    }
  };
  await Promise.all(Array.from({ length: fileLimits.objectRanges }, work));
  if (failures.length > 0) throw failures[0];
}

/** Writes the pieces of a range, as they come, to the places of its stretches. */
function scatter({ stretches }: PlannedRange, write: Write): (piece: Uint8Array) => void {
  let index = 0;
  let passed = 0;
  return (piece) => {
    for (let at = 0; at < piece.length; ) {
      const stretch = stretches[index];
      assert(stretch !== undefined, "a range has as many bytes as its stretches");
      const { byteSize, toOffset } = stretch;
      const bytes = piece.subarray(at, at + byteSize - passed);
      write(bytes, toOffset + passed);
      at += bytes.length;
      passed += bytes.length;
      if (passed < byteSize) continue;
      index += 1;
      passed = 0;
    }
  };
}

async function decompress(job: FillJob, write: Write, signal: AbortSignal): Promise<void> {
  const { parts, compression, dataOffset, byteSize } = job;
  const [part] = parts as [S3Part];
  using reading = endingWith(signal);
  const reader = new S3Reader(sourceOf(), part, new Uint8Array(0), reading.signal);
  const file = {
    path: toS3Uri(part),
    format: "raw",
    compression,
    tensors: [],
    metadata: {},
    dataOffset,
    byteSize,
  } as const;
  let at = 0;
  for await (const piece of streamContent(reader, file)) {
    signal.throwIfAborted();
    // The header stands there already.
    const data = piece.subarray(Math.max(0, Math.min(piece.length, dataOffset - at)));
    if (data.length > 0) write(data, at + piece.length - data.length);
    at += piece.length;
  }
}

function writeAll({ toFd, mappedPageBytes }: FillJob, bytes: Uint8Array, toOffset: number): void {
  if (mappedPageBytes !== undefined) writeMapped(toFd, toOffset, bytes, mappedPageBytes);
  else
    for (let done = 0; done < bytes.length; )
      done += writeSync(toFd, bytes, done, bytes.length - done, toOffset + done);
}

/** Whether these bytes are there. A piece is as long as a socket brings at a time. */
function hasAt(fd: number, bytes: Uint8Array, byteOffset: number): boolean {
  const there = Buffer.allocUnsafe(bytes.length);
  for (let done = 0; done < there.length; ) {
    const got = readSync(fd, there, done, there.length - done, byteOffset + done);
    if (got === 0) return false;
    done += got;
  }
  return there.equals(bytes);
}
