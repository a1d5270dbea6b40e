/** The Worker behind a server's diagnosis: gathers what it is asked for, and answers. It decides nothing. */

import { readDescriptorLimit } from "../os/libc.ts";
import { yieldToRequests } from "../os/nice.ts";
import type { HostFacts, Question } from "./facts.ts";
import { gatherFacts } from "./gather.ts";

declare const self: Worker;

yieldToRequests();

/** null: only whether it is up is asked. */
export type GatherJob = Question | null;

export type GatherReply =
  | { readonly ok: true; readonly facts: HostFacts | null }
  | { readonly ok: false; readonly message: string; readonly code: string | undefined };

self.onmessage = (event: MessageEvent<GatherJob>) => {
  self.postMessage(run(event.data));
};

function run(question: GatherJob): GatherReply {
  try {
    // Binds the C library, so that nothing is loaded later.
    if (question === null) readDescriptorLimit();
    return { ok: true, facts: question && gatherFacts(question) };
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return { ok: false, message, code };
  }
}
