/** The events as CloudEvents' own SDKs take them, in two languages: every type, from a real server over its streams. */

import { afterAll, expect } from "bun:test";
import { type CloudEvent, HTTP, ValidationError } from "cloudevents";
import { eventTypes } from "../../src/routes/schemas/event-data.ts";
import { deviceEvents, provokeEveryEvent } from "../contract/support/every-event.ts";
import { document } from "../harness/answers.ts";
import { CudaStandIn, needsStandIn } from "../harness/cuda-stand-in.ts";
import type { EventFrame } from "../harness/event-frame.ts";
import { readLastId } from "../harness/event-pages.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsStockPython, stockPython, testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { Subscriber } from "../harness/subscriber.ts";
import { runScript } from "../harness/worker.ts";

afterAll(assertNothingLeft);

type Taken = Pick<EventFrame, "id" | "source" | "type" | "dataschema" | "data">;

/** Takes the event as if a webhook had brought it. @throws ValidationError if it does not follow CloudEvents' schema. */
function take(frame: EventFrame): Taken {
  const headers = { "content-type": "application/cloudevents+json" };
  const event = HTTP.toEvent({ headers, body: JSON.stringify(frame) }) as CloudEvent;
  event.validate();
  return JSON.parse(String(event));
}

/** What a consumer keeps that drops what it has seen, as CloudEvents says that it may. */
function dropRepeated(events: readonly Taken[]): readonly Taken[] {
  return [...new Map(events.toReversed().map((event) => [`${event.source} ${event.id}`, event])).values()].toReversed();
}

/** The schema that `dataschema` names in `/openapi.json`. */
function findSchema({ dataschema }: Taken): unknown {
  const type = /^urn:tensord:event-data:(.+)$/.exec(dataschema)?.[1] ?? "";
  const { properties } = document.components.schemas.KnownEvents as { properties: Record<string, unknown> };
  return properties[type];
}

testWith(needsStockPython)(
  "CloudEvents' SDKs take every type of event, strictly, and none passes for another",
  async () => {
    await using cuda = needsStandIn === undefined ? new CudaStandIn() : undefined;
    await using server = await startServer({ env: { TENSORD_PORT: "0", ...cuda?.env } });
    server.log.expect(/^tensord\.region\.(relinked|lost)$/);
    await provokeEveryEvent(server);
    const told = eventTypes.filter((type) => cuda !== undefined || !deviceEvents.includes(type));
    const last = await readLastId(server.api);
    const url = await server.readUrl();
    // From where the server never was, which is a gap, and once more from the last event on.
    await using all = await Subscriber.open(url, "websocket", { after: "1" });
    await all.untilId(last);
    await using again = await Subscriber.open(url, "websocket", { after: last });
    const inJavaScript = [...all.frames, ...again.frames].map(take);
    const inPython = await runScript<Taken[]>(stockPython, "cloudevents_stream.py", `${url}/v1/events?after=1`, last);
    for (const taken of [inJavaScript, inPython]) {
      expect(new Set(taken.map(({ type }) => type))).toEqual(new Set(told));
      expect(dropRepeated(taken)).toEqual(taken);
      expect(taken.filter((event) => findSchema(event) === undefined)).toEqual([]);
    }
    const [frame] = all.frames;
    expect(() => take({ ...(frame as EventFrame), dataschema: "/openapi.json" })).toThrow(ValidationError);
  },
);
