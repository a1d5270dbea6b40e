/** The Worker behind `broker.ts`. Its thread waits in the kernel, and never comes back to its own event loop before it is told to. */

import { BrokerPoll } from "./broker-poll.ts";
import type { PollEvent, PollTask } from "./poll-protocol.ts";

declare const self: Worker;

self.onmessage = ({ data }: MessageEvent<PollTask>) => {
  const poll = new BrokerPoll(data, (event: PollEvent) => self.postMessage(event));
  // A Worker's "open" also comes where its module is missing.
  self.postMessage({ kind: "up" } satisfies PollEvent);
  poll.run();
};
