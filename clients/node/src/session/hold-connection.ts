/** What holds a session: a connection that ends with the process. There are two, a WebSocket and one to the broker. */

import type { Report } from "./reports.ts";

export interface HoldConnection {
  /** Whether the server tells makers from consumers. */
  readonly tellsMakers: boolean;
  /** Whether the server does not read just now: more is told when this is out. */
  readonly hasUnsent: boolean;
  /** Resolves when it has ended, whoever ended it. */
  readonly closed: Promise<void>;
  /** What is lost with the connection is told again on the next one. */
  send(reports: readonly Report[]): void;
  /** Ends it, by which the server knows that we let go. Safe to call twice. */
  close(): void;
}
