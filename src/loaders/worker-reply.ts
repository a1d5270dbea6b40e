/** What a Worker that opens files answers, on both sides: a failure of the table and what the system says pass through whole. */

import { type FailureCode, type FailureFacts, SystemError, TensordError } from "../memory/error.ts";

export type FileReply =
  | { readonly ok: true; readonly value: unknown }
  | {
      readonly ok: false;
      readonly message: string;
      readonly failure?: { readonly code: FailureCode; readonly facts: FailureFacts };
      readonly system?: { readonly call: string; readonly errno: number; readonly code: string };
    };

/** Of what a job failed with. */
export function toFailedReply(error: unknown): FileReply {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof TensordError) return { ok: false, message, failure: { code: error.code, facts: error.facts } };
  const { syscall, errno = 0, code = "" } = error as NodeJS.ErrnoException;
  if (error instanceof SystemError)
    return { ok: false, message, system: { call: error.call, errno: error.errno, code: error.code } };
  return syscall === undefined
    ? { ok: false, message }
    : { ok: false, message, system: { call: syscall, errno: Math.abs(errno), code } };
}

/** @throws what the job failed with. */
export function readReply(reply: FileReply): unknown {
  if (reply.ok) return reply.value;
  const { message, failure, system } = reply;
  if (failure !== undefined) throw new TensordError(failure.code, message, failure.facts);
  throw system === undefined ? new Error(message) : new SystemError(system.call, system.errno, system.code);
}
