/** How following the events fails. */

import { EventCursor } from "../../../src/memory/events/event-cursor.ts";
import { limits } from "../../../src/memory/limits.ts";
import type { TestApp } from "../../harness/app.ts";
import type { FailureCase } from "./failure-case.ts";

const follow = (app: TestApp) =>
  app.request("GET", "/v1/events", undefined, { headers: { accept: "text/event-stream" } });

export const eventCases: readonly FailureCase[] = [
  {
    operationId: "listEvents",
    code: "too-many-requests",
    provoke: (app) => {
      const cursor = new EventCursor(app.store.events, {}, undefined);
      for (let count = 0; count < limits.subscribers; count++) {
        app.store.feeder.add({ cursor, send: () => true, endStalled: () => {} });
      }
      return follow(app);
    },
  },
  {
    operationId: "listEvents",
    code: "shutting-down",
    provoke: (app) => {
      app.store.stop();
      return follow(app);
    },
  },
];
