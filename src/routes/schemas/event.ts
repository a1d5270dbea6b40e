/** The zod schemas of events as pages carry them. What each type carries is `event-data.ts`'s. */

import { z } from "@hono/zod-openapi";
import { time } from "./common.ts";
import { eventTypes } from "./event-data.ts";
import { openWord } from "./words.ts";

export const CloudEvent = z
  .object({
    specversion: z.enum(["1.0"]).openapi({ description: "Closed, as CloudEvents has it." }),
    id: z.string().openapi({
      description:
        "Unique. Of a change it is a decimal sequence number that never repeats: resume with it, by `after` or " +
        "`Last-Event-ID`. That of a `tensord.stream.*` is no number: resume with its `data.after`.",
      example: "1795000000000123",
    }),
    source: z.string().openapi({ example: "/tensord/default" }),
    type: openWord("What happened.", eventTypes),
    time,
    subject: z
      .string()
      .optional()
      .openapi({ description: "The region's, session's, operation's or elastic pool's id, or the model's name." }),
    datacontenttype: z.enum(["application/json"]),
    dataschema: z.string().openapi({
      description:
        "The schema of `data`: behind `urn:tensord:event-data:` stands the member of `#/components/schemas/KnownEvents` " +
        "that is meant, in `/openapi.json`.",
      example: "urn:tensord:event-data:tensord.region.sealed",
    }),
    tensordepoch: z.string().openapi({ description: "The epoch of the server that told it." }),
    data: z.record(z.string(), z.unknown()).openapi({ description: "KnownEvents has what each type carries." }),
  })
  .openapi("CloudEvent", { description: "One event, in the JSON of CloudEvents 1.0." });
export const EventPage = z
  .object({
    items: z.array(CloudEvent),
    next_after: z.string().openapi({ description: "`after` of the next page. A page may be empty; ask again later." }),
  })
  .openapi("EventPage");
