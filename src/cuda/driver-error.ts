/** What goes wrong with the CUDA driver: it is not to be had, or a call of it failed. */

/** Why there is no driver to call. An open word: what says it to people is the message. */
export type NoDriverReason = "no-libcuda" | "too-old" | "no-device";

/** The driver cannot be used at all in this process, and no call will do anything. */
export class NoDriver extends Error {
  override readonly name = "NoDriver";
  readonly reason: NoDriverReason;

  constructor(reason: NoDriverReason, message: string) {
    super(message);
    this.reason = reason;
  }
}

/** What a call of the driver answers, in numbers (CUresult, <cuda.h>). */
export const results = {
  success: 0,
  invalidValue: 1,
  outOfMemory: 2,
  notInitialized: 3,
  deviceUnavailable: 46,
  noDevice: 100,
  invalidDevice: 101,
  invalidContext: 201,
  operatingSystem: 304,
  notReady: 600,
  notSupported: 801,
} as const;

/** A call of the driver that failed. */
export class DriverError extends Error {
  override readonly name = "DriverError";
  /** The function, `cuMemCreate`. */
  readonly call: string;
  /** The CUresult. */
  readonly result: number;
  /** The driver's name of it, `CUDA_ERROR_OUT_OF_MEMORY`; a number in words where it has none. */
  readonly code: string;

  /** @param text what the driver says of it; null where it does not know the number. */
  constructor(call: string, result: number, code: string | null, text: string | null) {
    const name = code ?? `CUresult ${result}`;
    super(`${call}: ${name}${text === null ? "" : ` (${text})`}`);
    this.call = call;
    this.result = result;
    this.code = name;
  }
}
