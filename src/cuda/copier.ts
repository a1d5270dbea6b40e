/**
 * A copier: the process that moves bytes between a file and a device's memory, or hashes what is there, and ends. It alone has a context. What it
 * maps, pins and imports goes when it ends, however it ends, so it takes nothing back by itself.
 */

import { writeSync } from "node:fs";
import { toChunks } from "../memory/layout/checksum.ts";
import { type Address, addressOf } from "../memory/os/ffi.ts";
import { readWhole } from "../memory/os/files.ts";
import { yieldToRequests } from "../memory/os/nice.ts";
import { endWithParent } from "../memory/os/parent.ts";
import { Context, type DeviceAddress, type Mark, type Stream } from "./context.ts";
import { type CopierJob, type CopierLine, handleDescriptor, sourceDescriptor } from "./copier-job.ts";
import { Driver } from "./driver.ts";
import { DriverError } from "./driver-error.ts";
import { toRefusal } from "./refusal.ts";

/** Two: while the device takes one, the other is filled or hashed. */
const slotCount = 2;

/** Host memory that the device reaches by itself, of a chunk. */
interface Slot {
  readonly bytes: Buffer;
  readonly address: Address;
  readonly mark: Mark;
}

interface Chunk {
  readonly byteOffset: number;
  readonly byteSize: number;
}

/** Does the job, and says how it went on standard output. */
export function runCopier(job: CopierJob): void {
  if (!endWithParent(job.parent)) return;
  yieldToRequests();
  try {
    perform(job);
    say({ done: true });
  } catch (error) {
    say(error instanceof DriverError ? { refusal: toRefusal(error) } : { reason: (error as Error).message });
  }
}

function perform({ deed, uuid, allocationBytes, byteSize, sourceOffset }: CopierJob): void {
  const driver = Driver.open();
  const device = driver.findDevice(uuid);
  if (device === undefined) throw new Error(`this process does not see device ${uuid}`);
  const context = Context.open(driver, device);
  const memory = map(context, allocationBytes, deed === "fill" ? "read-write" : "read");
  const stream = context.createStream();
  const chunks = [...toChunks(0, byteSize)];
  const slots = chunks.slice(0, slotCount).map(({ byteSize }) => toSlot(context, byteSize));
  if (deed === "fill") fill(context, stream, memory, slots, chunks, sourceOffset);
  else hash(context, stream, memory, slots, chunks);
  // An error of what was queued comes out here at the latest.
  context.synchronizeStream(stream);
}

function map(context: Context, byteSize: number, access: "read" | "read-write"): DeviceAddress {
  const handle = context.importFd(handleDescriptor);
  const address = context.reserve(byteSize);
  context.map(address, byteSize, handle);
  context.setAccess(address, byteSize, access);
  return address;
}

function toSlot(context: Context, byteSize: number): Slot {
  const bytes = Buffer.alloc(byteSize);
  const address = addressOf(bytes);
  context.registerHost(address, byteSize);
  return { bytes, address, mark: context.createMark() };
}

/** What is hashed is what the device takes, whatever becomes of the source meanwhile. */
function fill(
  context: Context,
  stream: Stream,
  memory: DeviceAddress,
  slots: readonly Slot[],
  chunks: readonly Chunk[],
  sourceOffset: number,
): void {
  /** Of the chunk that is on its way from each slot. */
  const onItsWay = new Map<Slot, { readonly hash: bigint; readonly byteSize: number }>();
  const settle = (slot: Slot) => {
    const chunk = onItsWay.get(slot);
    if (chunk === undefined) return;
    context.waitFor(slot.mark);
    tellChunk(chunk.hash, chunk.byteSize);
    onItsWay.delete(slot);
  };
  for (const [index, { byteOffset, byteSize }] of chunks.entries()) {
    const slot = slotOf(slots, index);
    settle(slot);
    const bytes = slot.bytes.subarray(0, byteSize);
    readWhole(sourceDescriptor, bytes, sourceOffset + byteOffset);
    context.copyToDevice(at(memory, byteOffset), slot.address, byteSize, stream);
    context.record(slot.mark, stream);
    onItsWay.set(slot, { hash: Bun.hash.xxHash3(bytes), byteSize });
  }
  // In the order of the chunks: the map has them as they were set.
  for (const slot of [...onItsWay.keys()]) settle(slot);
}

function hash(
  context: Context,
  stream: Stream,
  memory: DeviceAddress,
  slots: readonly Slot[],
  chunks: readonly Chunk[],
): void {
  const queue = (index: number) => {
    const chunk = chunks[index];
    if (chunk === undefined) return;
    const slot = slotOf(slots, index);
    context.copyToHost(slot.address, at(memory, chunk.byteOffset), chunk.byteSize, stream);
    context.record(slot.mark, stream);
  };
  for (const index of slots.keys()) queue(index);
  for (const [index, { byteSize }] of chunks.entries()) {
    const slot = slotOf(slots, index);
    context.waitFor(slot.mark);
    tellChunk(Bun.hash.xxHash3(slot.bytes.subarray(0, byteSize)), byteSize);
    queue(index + slots.length);
  }
}

function slotOf(slots: readonly Slot[], index: number): Slot {
  return slots[index % slots.length] as Slot;
}

function at(memory: DeviceAddress, byteOffset: number): DeviceAddress {
  return (memory + BigInt(byteOffset)) as DeviceAddress;
}

function tellChunk(hash: bigint, bytes: number): void {
  say({ hash: String(hash), bytes });
}

/** A server that is gone has closed its end: the write fails, and with it the process. */
function say(line: CopierLine): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}
