/** The Worker behind a server's diagnosis: gathers once, answers, and is ended. It decides nothing. */

import { yieldToRequests } from "../os/nice.ts";
import type { Question } from "./facts.ts";
import { gatherFacts } from "./gather.ts";

declare const self: Worker;

yieldToRequests();

self.onmessage = (event: MessageEvent<Question>) => {
  self.postMessage(gatherFacts(event.data));
};
