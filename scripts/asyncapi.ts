/**
 * Writes `asyncapi.yaml` (`npm run generate`): the channel of events, with what each type carries. A test compares the
 * committed file with the same text. What `openapi.yaml` has too is a reference into it.
 */

import { writeFileSync } from "node:fs";
import { OpenAPIHono, z } from "@hono/zod-openapi";
import { parse, stringify } from "yaml";
import { toldEndReasons } from "../src/memory/journal/region-record.ts";
import type { StoreEvent } from "../src/memory/state/store.ts";
import { Model } from "../src/routes/schemas/model.ts";
import { RegionFacts } from "../src/routes/schemas/region.ts";
import { Session } from "../src/routes/schemas/session.ts";
import { gapType, openedType } from "../src/routes/to-event.ts";
import { toOpenApiYaml } from "./openapi.ts";

export const asyncApiPath = new URL("../asyncapi.yaml", import.meta.url).pathname;

/** The parts of `openapi.yaml` that come back here. */
interface OpenApi {
  readonly info: { readonly title: string; readonly version: string; readonly license: object };
  readonly paths: {
    readonly "/v1/events": { readonly get: { readonly parameters: readonly Parameter[] } };
  };
  readonly components: { readonly schemas: object };
}

interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly schema: object;
}

const eventId = z.string().openapi({ description: "The id of an event.", example: "1795000000000123" });

/** What events carry. */
const data = {
  RegionFacts,
  RegionEnd: RegionFacts.extend({
    former_name: z.string().nullable().openapi({ description: "The name that it had, which is free." }),
    reason: z.enum(toldEndReasons).openapi({ description: "Why it ends.", example: "request" }),
    actor: z.string().nullable().openapi({ description: "The id of the request that ended it; null if none did." }),
  }).openapi("RegionEnd", { description: "A region that ends." }),
  RegionRelink: RegionFacts.extend({
    cause: z.enum(["unlinked", "foreign-file"]).openapi({ description: "What had become of the name." }),
  }).openapi("RegionRelink", { description: "A region that got its public name back." }),
  Model,
  Session,
  SessionOver: Session.extend({
    reason: z.enum(["request", "ttl", "hold"]).openapi({ description: "`hold`: the peer of its last hold is gone." }),
    regions: z.int().openapi({ description: "Regions that ended with it." }),
    freed_bytes: z.int(),
  }).openapi("SessionOver", { description: "A session that has ended." }),
  PoolPressure: z
    .object({
      level: z.enum(["high", "normal"]),
      pool: z.string().openapi({ description: "`host`, or a device's UUID." }),
      model: z.string().nullable().openapi({ description: "The model whose limit is meant; null for the server's." }),
      used_bytes: z.int(),
      limit_bytes: z.int(),
    })
    .openapi("PoolPressure", { description: "How full a pool is." }),
  StreamStart: z.object({ after: eventId }).openapi("StreamStart", { description: "Where the stream begins." }),
  StreamLoss: z
    .object({ requested_after: eventId, first_available: eventId })
    .openapi("StreamLoss", { description: "What was asked for, and what there is." }),
};

interface EventFacts {
  readonly summary: string;
  readonly carries: keyof typeof data;
}

/** Every type of event. One that the code has and this table has not does not compile. */
const events: Readonly<Record<StoreEvent["type"] | typeof openedType | typeof gapType, EventFacts>> = {
  "tensord.region.allocated": { summary: "A region is there, to be mapped and written.", carries: "RegionFacts" },
  "tensord.region.sealed": { summary: "A region is final.", carries: "RegionFacts" },
  "tensord.region.changed": { summary: "A region has another owner or other labels.", carries: "RegionFacts" },
  "tensord.region.draining": { summary: "A region lost its name, and waits for its leases.", carries: "RegionEnd" },
  "tensord.region.deleted": { summary: "A region is gone, and its memory is free.", carries: "RegionEnd" },
  "tensord.region.lost": { summary: "A region's memory was taken away behind the server.", carries: "RegionFacts" },
  "tensord.region.relinked": { summary: "A region's public name was gone, and is back.", carries: "RegionRelink" },
  "tensord.model.registered": { summary: "A model is there.", carries: "Model" },
  "tensord.model.changed": { summary: "A model has another limit.", carries: "Model" },
  "tensord.model.unregistered": { summary: "A model is gone.", carries: "Model" },
  "tensord.session.opened": { summary: "A session is there.", carries: "Session" },
  "tensord.session.ended": { summary: "A session is over, and all that was its own.", carries: "SessionOver" },
  "tensord.pool.pressure": { summary: "A pool runs full, or has room again.", carries: "PoolPressure" },
  [openedType]: {
    summary: "The first frame of every stream. Its id is where the stream stands: resume with it if no other came.",
    carries: "StreamStart",
  },
  [gapType]: {
    summary:
      "Events after the requested one are not kept. Resume from its id, after you have listed the regions again.",
    carries: "StreamLoss",
  },
};

export function toAsyncApiYaml(): string {
  const head = "# Generated from scripts/asyncapi.ts by `npm run generate`; a test compares it with the code.\n";
  return head + stringify(toAsyncApi(parse(toOpenApiYaml())), { lineWidth: 120, aliasDuplicateObjects: false });
}

function toAsyncApi({ info, paths, components }: OpenApi) {
  const shared = Object.keys(components.schemas);
  const messages = Object.entries(events).map(
    ([type, facts]) => [toName(type), toMessage(type, facts, shared)] as const,
  );
  return {
    asyncapi: "3.0.0",
    info: {
      ...info,
      description:
        "Every change of regions and models as it happens: one event a text frame, each a CloudEvent. The same events as " +
        "Server-Sent Events and by page are in openapi.yaml.",
    },
    defaultContentType: "application/json",
    servers: {
      loopback: { host: "127.0.0.1:7411", protocol: "ws", description: "The default TCP address." },
      socket: {
        host: "localhost",
        pathname: "/dev/shm/tensord.default/http.sock",
        protocol: "ws+unix",
        description: "The Unix socket of the default instance.",
      },
    },
    channels: {
      events: {
        address: "/v1/events/ws",
        description:
          "The server takes no messages: who sends one is closed with 1008. A peer that does not read for a minute is " +
          "closed with 1013, and a server that stops closes with 1001. Come back with `after`, the id of the last frame. " +
          "A query that the server cannot take is refused before the upgrade, with a Problem as in openapi.yaml.",
        bindings: { ws: { method: "GET", query: toQuery(paths["/v1/events"].get.parameters) } },
        messages: Object.fromEntries(messages.map(([name]) => [name, { $ref: `#/components/messages/${name}` }])),
      },
    },
    operations: {
      tellEvents: {
        action: "send",
        channel: { $ref: "#/channels/events" },
        summary: "The server tells of every change that the query lets through.",
      },
    },
    components: { messages: Object.fromEntries(messages), schemas: toSchemas(shared) },
  };
}

/** `tensord.region.allocated` is `RegionAllocated`. */
function toName(type: string): string {
  return type.replace("tensord", "").replaceAll(/\.(.)/g, (_, first) => first.toUpperCase());
}

function toMessage(type: string, { summary, carries }: EventFacts, shared: readonly string[]) {
  const own = {
    type: "object",
    properties: { type: { const: type }, data: { $ref: toReference(carries, shared) } },
    ...(type.startsWith("tensord.stream.") ? {} : { required: ["subject"] }),
  };
  return { name: type, summary, payload: { allOf: [{ $ref: toReference("Event", shared) }, own] } };
}

/** The channel takes what the pages of the same events take, but for their size. */
function toQuery(parameters: readonly Parameter[]) {
  const query = parameters.filter((parameter) => parameter.in === "query" && parameter.name !== "limit");
  return { type: "object", properties: Object.fromEntries(query.map(({ name, schema }) => [name, schema])) };
}

/** What events carry, and what that refers to, less what `openapi.yaml` has. */
function toSchemas(shared: readonly string[]) {
  const app = new OpenAPIHono();
  for (const [name, schema] of Object.entries(data)) app.openAPIRegistry.register(name, schema);
  const { components } = app.getOpenAPI31Document({ openapi: "3.1.0", info: { title: "", version: "" } });
  const own = Object.entries(components?.schemas ?? {}).filter(([name]) => !shared.includes(name));
  const text = JSON.stringify(Object.fromEntries(own));
  return JSON.parse(text, (key, value) => (key === "$ref" ? toReference(value.split("/").at(-1), shared) : value));
}

function toReference(name: string, shared: readonly string[]): string {
  return `${shared.includes(name) ? "./openapi.yaml" : ""}#/components/schemas/${name}`;
}

if (import.meta.main) writeFileSync(asyncApiPath, toAsyncApiYaml());
