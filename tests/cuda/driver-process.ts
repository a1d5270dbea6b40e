/**
 * A process that calls the real binding of the CUDA driver as it is told over its standard input, a line of JSON a call, and
 * answers with a line each. Numbers that are bigints in code are strings that end with `n`.
 */

import { closeSync, readSync, writeSync } from "node:fs";
import { Context, contextFunctions } from "../../src/cuda/context.ts";
import { Driver, driverFunctions } from "../../src/cuda/driver.ts";
import { DriverError, NoDriver } from "../../src/cuda/driver-error.ts";
import { check, openLibcuda, toDriverError } from "../../src/cuda/libcuda.ts";
import { type Address, addressOf } from "../../src/memory/os/ffi.ts";
import {
  acceptConnection,
  connectForMessages,
  listenForMessages,
  receiveMessage,
  sendMessage,
} from "../../src/memory/os/libc-unix.ts";

type Value = string | number | boolean | null | undefined;

let driver: Driver | undefined;
let context: Context | undefined;
const buffers = new Map<Address, Buffer>();
const values = Array.from({ length: 256 }, (_, value) => value);

const deeds: Readonly<Record<string, (...args: never[]) => unknown>> = {
  open: () => {
    driver = Driver.open();
    return driver.version;
  },
  openContext: (device: number) => {
    context = Context.open(needed(driver), device);
  },
  closeContext: () => needed(context)[Symbol.dispose](),
  /** Host memory with these bytes over and over. */
  host: (byteSize: number, byte: number) => {
    const buffer = Buffer.alloc(byteSize, byte);
    buffers.set(addressOf(buffer), buffer);
    return addressOf(buffer);
  },
  /** The different bytes that are there. */
  bytes: (address: Address) => values.filter((value) => needed(buffers.get(address)).includes(value)),
  /** Names of the binding that the library lacks. */
  missing: () => openLibcuda().missing(Object.keys({ ...driverFunctions, ...contextFunctions })),
  /** Binds every function of the binding. @returns how many. */
  bindAll: () => Object.keys(openLibcuda().bind({ ...driverFunctions, ...contextFunctions })).length,
  /** Asks a question as if the driver had been started. */
  askUninitialised: () => {
    const { cuDeviceGetCount } = openLibcuda().bind({ cuDeviceGetCount: driverFunctions.cuDeviceGetCount });
    const out = Buffer.alloc(4);
    check("cuDeviceGetCount", cuDeviceGetCount(addressOf(out)));
    return out.readInt32LE();
  },
  describe: (result: number) => toDriverError("cuInit", result).message,
  closeFd: (fd: number) => closeSync(fd),
  /** Sends a descriptor to the process that receives at `path`. */
  sendFd: (path: string, fd: number) => {
    const socket = connectForMessages(path);
    if (socket === undefined) throw new Error(`nobody listens at ${path}`);
    sendMessage(socket, "fd", [fd]);
    closeSync(socket);
  },
  receiveFd: (path: string) => {
    const listener = listenForMessages(path, 1);
    say({ value: "listening" });
    let socket: number | undefined;
    while (socket === undefined) socket = acceptConnection(listener);
    let message = receiveMessage(socket, 1);
    while (message === undefined) message = receiveMessage(socket, 1);
    if (message === "gone") throw new Error("nothing was sent");
    closeSync(socket);
    closeSync(listener);
    return message.descriptors[0];
  },
};

function needed<Thing>(thing: Thing | undefined): Thing {
  if (thing === undefined) throw new Error("it is not there");
  return thing;
}

function toValue(value: Value): unknown {
  return typeof value === "string" && /^\d+n$/.test(value) ? BigInt(value.slice(0, -1)) : value;
}

function call(deed: string, args: unknown[]): unknown {
  const own = deeds[deed];
  if (own !== undefined) return own(...(args as never[]));
  const [target, method = ""] = deed.split(".");
  const on = (target === "driver" ? driver : context) as unknown as Record<string, (...args: unknown[]) => unknown>;
  return needed(needed(on)[method]).apply(on, args);
}

function describe(error: unknown): Record<string, unknown> {
  if (error instanceof DriverError) {
    return { kind: error.name, message: error.message, call: error.call, result: error.result, code: error.code };
  }
  if (error instanceof NoDriver) return { kind: error.name, message: error.message, reason: error.reason };
  return { kind: (error as Error).name, message: (error as Error).message };
}

function say(answer: Record<string, unknown>): void {
  const text = JSON.stringify(answer, (_, value) => (typeof value === "bigint" ? `${value}n` : value));
  writeSync(1, `${text}\n`);
}

/** Lines of standard input. It has nothing else to do, so it may block. */
function* readLines(): Generator<string> {
  const chunk = Buffer.alloc(4096);
  let rest = "";
  for (let count = readSync(0, chunk); count > 0; count = readSync(0, chunk)) {
    const lines = (rest + chunk.toString("utf8", 0, count)).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

for (const line of readLines()) {
  const { deed, args } = JSON.parse(line) as { deed: string; args: Value[] };
  try {
    say({ value: call(deed, args.map(toValue)) });
  } catch (error) {
    say({ error: describe(error) });
  }
}
