/** The Worker behind a server's diagnosis: gathers once, answers, and is ended. It decides nothing. */

import { setPriority } from "node:os";
import { limits } from "../limits.ts";
import type { Question } from "./facts.ts";
import { gatherFacts } from "./gather.ts";

declare const self: Worker;

// On Linux a priority is a thread's own (setpriority(2) with 0): whoever answers requests goes before this one.
setPriority(0, limits.laneNice);

self.onmessage = (event: MessageEvent<Question>) => {
  self.postMessage(gatherFacts(event.data));
};
