/**
 * The AsyncAPI document: the channel of events, a message for each type. What a message carries is a reference into the
 * OpenAPI document, from which all else comes too. `asyncapi.yaml` is its committed copy.
 */

import { dataSchemaOf, type EventType, events, eventTypes, streamTypes } from "./schemas/event-data.ts";

/** The parts of the OpenAPI document that come back here. */
export interface OpenApi {
  readonly info: { readonly title: string; readonly version: string; readonly license: object };
  readonly tags: readonly { readonly name: string }[];
  readonly paths: {
    readonly "/v1/events": { readonly get: { readonly parameters: readonly Parameter[] } };
  };
  readonly components: {
    readonly schemas: { readonly KnownEvents: { readonly properties: Readonly<Record<EventType, Reference>> } };
  };
}

interface Reference {
  readonly $ref: string;
}

interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly schema: object;
}

/** @param document where `openApi` is read, from where this is read: `./openapi.yaml`. */
export function toAsyncApi({ info, tags, paths, components }: OpenApi, document: string) {
  const { properties } = components.schemas.KnownEvents;
  const messages = eventTypes.map((type) => [toName(type), toMessage(type, document, properties[type].$ref)] as const);
  return {
    asyncapi: "3.0.0",
    info: {
      ...info,
      description:
        "Every change of regions and models as it happens: one event a text frame, each a CloudEvent. The same events as " +
        "Server-Sent Events and by page are in the OpenAPI document.",
      tags: tags.filter(({ name }) => name === "events"),
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
          "closed with 1013, and a server that stops closes with 1001. Come back with `after`: the id of the last frame, or of " +
          "a `tensord.stream.*` its `data.after`. " +
          "A query that the server cannot take is refused before the upgrade, with a Problem as in the OpenAPI document.",
        bindings: { ws: { method: "GET", query: toQuery(paths["/v1/events"].get.parameters) } },
        messages: Object.fromEntries(messages.map(([name]) => [name, { $ref: `#/components/messages/${name}` }])),
      },
    },
    operations: {
      tellEvents: {
        action: "send",
        channel: { $ref: "#/channels/events" },
        summary: "The server tells of every change that the query lets through.",
        description:
          "First where the stream stands, then what is kept after `after`, then what happens, one frame each.",
      },
    },
    components: { messages: Object.fromEntries(messages) },
  };
}

/** `tensord.region.allocated` is `RegionAllocated`. */
function toName(type: string): string {
  return type.replace("tensord", "").replaceAll(/\.(.)/g, (_, first) => first.toUpperCase());
}

/** @param data where `document` has what the type carries. */
function toMessage(type: EventType, document: string, data: string) {
  const own = {
    type: "object",
    properties: {
      type: { const: type },
      dataschema: { const: dataSchemaOf(type) },
      data: { $ref: `${document}${data}` },
    },
    ...(type.startsWith(streamTypes) ? {} : { required: ["subject"] }),
  };
  const { summary } = events[type];
  return { name: type, summary, payload: { allOf: [{ $ref: `${document}#/components/schemas/CloudEvent` }, own] } };
}

/** The channel takes what the pages of the same events take, but for their size. */
function toQuery(parameters: readonly Parameter[]) {
  const query = parameters.filter((parameter) => parameter.in === "query" && parameter.name !== "limit");
  return { type: "object", properties: Object.fromEntries(query.map(({ name, schema }) => [name, schema])) };
}
