/** What the server does with its fd holder that a crash may cut, in order; whoever opens the store may be told of each. */

export const holderSteps = [
  "holder.started",
  "holder.lock-sent",
  "holder.owned",
  "holder.kept",
  "holder.dropped",
] as const;
export type HolderStep = (typeof holderSteps)[number];
export type OnHolderStep = (step: HolderStep) => void;
