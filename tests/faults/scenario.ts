/** What a scenario of `killed-at-step.test.ts` is: one operation in flight when the server dies, and what holds after it. */

import type { Step } from "../../src/memory/state/steps.ts";
import { isLong } from "../harness/rounds.ts";
import type { KillPoint, TestServer } from "../harness/server.ts";
import type { ServerApi } from "../harness/server-api.ts";
import type { WorkerProcess } from "../harness/worker.ts";

export const MiB = 2 ** 20;
export const hour = 3_600_000;

export interface Scenario {
  readonly claim: string;
  /** Steps that it passes; the server dies after each of them in turn. */
  readonly kills: readonly KillPoint[];
  /** Sets up what the operation works on. */
  readonly prepare: (api: ServerApi, worker: WorkerProcess) => Promise<InFlight>;
  readonly needs?: string | undefined;
  /** What the start that follows may warn of. */
  readonly warnings?: readonly RegExp[] | undefined;
  /** Further settings of the server. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** It is about what only happens to an instance that has seen nothing yet. */
  readonly isFirst?: boolean;
}

export interface InFlight {
  readonly act: (server: TestServer) => Promise<unknown>;
  /** Asserts on the server that came back. */
  readonly check: (api: ServerApi, outcome: Outcome) => Promise<void>;
}

export interface Outcome {
  readonly step: Step;
  /** The how manyth time the server got there. */
  readonly count: number;
  /** Whether the client had its answer before the server died. */
  readonly isAcknowledged: boolean;
}

export const at = (...names: Step[]): KillPoint[] => names.map((step) => ({ step }));

/** Steps after which another scenario finds the same: only the long form dies there in this one, too. */
export const atInLong = (...names: Step[]): KillPoint[] => (isLong ? at(...names) : []);

export const deleting = at(
  "delete.journaled",
  "delete.withdrawn",
  "delete.asked",
  "delete.keeper-unlinked",
  "delete.row-deleted",
);
