/**
 * The AsyncAPI document: the committed copy is the generated one, its parser has nothing against it, and each type that
 * it has is told by a live server and looks as it says.
 */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import { z } from "@hono/zod-openapi";
import { parse as parseYaml } from "yaml";
import { asyncApiPath, toAsyncApiYaml } from "../../scripts/asyncapi.ts";
import { close } from "../harness/answers.ts";
import { withApp } from "../harness/app.ts";
import { CudaStandIn, needsStandIn } from "../harness/cuda-stand-in.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { deviceEvents, provokeEveryEvent } from "./support/every-event.ts";

interface Frame {
  readonly id: string;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

const committed = readFileSync(asyncApiPath, "utf8");
const { document, complaints } = await parse(committed);
const messages = document?.allMessages().all() ?? [];
const payloads = new Map(messages.map((message) => [message.name() ?? "", toClosedSchema(message.payload()?.json())]));
const address = document?.channels().get("events")?.address() ?? "";

/** The document with every reference resolved, and the errors and warnings that its parser has. */
async function parse(text: string) {
  const parsed = await new Parser().parse(text, { source: asyncApiPath });
  // 0 is an error, 1 a warning, and what is above is advice.
  const grave = parsed.diagnostics.filter(({ severity }) => severity <= 1);
  return {
    document: parsed.document,
    complaints: grave.map(({ code, path, message }) => `${code} at ${path.join(".")}: ${message}`),
  };
}

function toClosedSchema(payload: unknown): z.ZodType {
  return z.fromJSONSchema(JSON.parse(JSON.stringify(payload), (_, value) => close(value)));
}

/** What the document has against the frame; empty if it fits. */
function findFaults(frame: Frame): string {
  const payload = payloads.get(frame.type);
  if (payload === undefined) return `${frame.type} is not documented`;
  const { error } = payload.safeParse(frame);
  return error === undefined ? "" : z.prettifyError(error);
}

/** Follows all events, as the document says, from a place that the server never had. */
async function follow(url: string) {
  const socket = new WebSocket(`${url}${address}?after=1`);
  const frames: Frame[] = [];
  socket.onmessage = ({ data }) => frames.push(JSON.parse(data));
  await until("the stream stands", () => frames.length > 0);
  return { frames, [Symbol.dispose]: () => socket.close() };
}

async function toldBy(server: TestServer, url: string): Promise<readonly Frame[]> {
  using stream = await follow(url);
  await provokeEveryEvent(server);
  await until("the last event is told", () => stream.frames.some(({ type }) => type === "tensord.region.lost"));
  return stream.frames;
}

describe("the AsyncAPI document", () => {
  test("is committed as it is generated, byte for byte", () => {
    expect(committed).toBe(toAsyncApiYaml());
  });

  test(
    "is served, with its references into the document that is served beside it",
    withApp(async (app) => {
      const { status, body } = await app.request("GET", "/asyncapi.json");
      expect(status).toBe(200);
      const text = JSON.stringify(body);
      expect(text).toContain('"./openapi.json#/components/schemas/CloudEvent"');
      const committedAs = JSON.stringify(parseYaml(committed)).replaceAll("openapi.yaml#", "openapi.json#");
      expect(JSON.parse(text).channels).toEqual(JSON.parse(committedAs).channels);
      expect(JSON.parse(text).components).toEqual(JSON.parse(committedAs).components);
    }),
  );

  test("has nothing that its parser warns of", () => {
    expect(complaints).toEqual([]);
  });

  test("would not pass with a reference into openapi.yaml that leads nowhere", async () => {
    const broken = await parse(
      committed.replaceAll("openapi.yaml#/components/schemas/CloudEvent", "openapi.yaml#/CloudEvent"),
    );
    expect(broken.complaints).not.toEqual([]);
  });

  const servers = [
    ["TCP", async (server: TestServer) => (await server.readUrl()).replace("http:", "ws:")],
    ["the Unix socket", async (server: TestServer) => `ws+unix://${server.instance.socket}:`],
  ] as const;
  for (const [name, toUrl] of servers) {
    testWith()(`has every event that is told over ${name}, as it is told, and no other`, async () => {
      await using cuda = needsStandIn === undefined ? new CudaStandIn() : undefined;
      await using server = await startServer({ env: { TENSORD_PORT: "0", ...cuda?.env } });
      server.log.expect(/^tensord\.region\.(relinked|lost)$/);
      const frames = await toldBy(server, await toUrl(server));
      expect(frames.map(findFaults).filter((fault) => fault !== "")).toEqual([]);
      const told = [...payloads.keys()].filter((type) => cuda !== undefined || !deviceEvents.includes(type));
      expect(new Set(frames.map(({ type }) => type))).toEqual(new Set(told));
      expect(frames[0]?.type).toBe("tensord.stream.opened");
    });
  }

  testWith()("refuses an event that is not as it says", async () => {
    await using server = await startServer({ env: { TENSORD_PORT: "0" } });
    using stream = await follow((await server.readUrl()).replace("http:", "ws:"));
    await server.api.delete((await server.api.create({ byte_size: 1, ttl_ms: 600_000 })).id);
    const isDeleted = ({ type }: Frame) => type === "tensord.region.deleted";
    const frame = await until("the end is told", () => stream.frames.find(isDeleted));
    const { reason, ...rest } = frame.data;
    const altered = {
      whole: frame,
      "without a member": { ...frame, data: rest },
      "with one more member": { ...frame, data: { ...frame.data, extra: 1 } },
      "with one more attribute": { ...frame, extra: 1 },
      "with a member of another type": { ...frame, data: { ...frame.data, tensor_count: "1" } },
      "with the data of another type": { ...frame, type: "tensord.region.sealed" },
      "with a type that is none": { ...frame, type: "tensord.region.gone" },
      "with an id that is a number": { ...frame, id: Number(frame.id) as unknown as string },
    };
    const refused = Object.entries(altered).filter(([, event]) => findFaults(event) !== "");
    expect(refused.map(([what]) => what)).toEqual(Object.keys(altered).slice(1));
    expect(reason).toBe("request");
  });
});
