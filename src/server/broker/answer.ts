/** What the broker answers a request with, before it is sent. */

import type { Region } from "../../memory/state/region.ts";

/** What is answered, beside `id` and `ok`. Dispose of it once it was sent, or will not be. */
export interface BrokerAnswer extends Disposable {
  readonly members: Readonly<Record<string, unknown>>;
  readonly descriptors: readonly number[];
  /** What was handed out, in the simplest way: it may be so again without being asked for here. */
  readonly region?: Region | undefined;
  /** To be called once the peer has it: what counts only then. */
  readonly sent: () => void;
}

export function toAnswer(
  members: BrokerAnswer["members"],
  rest: Omit<BrokerAnswer, "members"> = { descriptors: [], sent: () => {}, [Symbol.dispose]: () => {} },
): BrokerAnswer {
  return { members, ...rest };
}
