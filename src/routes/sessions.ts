/** Routes of sessions: open, find, renew, hold, end. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { TensordError } from "../memory/error.ts";
import { findPid, ownPidNamespace } from "../memory/host/process-id.ts";
import type { ClientFacts } from "../memory/journal/session-record.ts";
import { limits } from "../memory/limits.ts";
import { endSession, listSessions, openSession, renewSession } from "../memory/sessions/sessions.ts";
import { actorOf } from "./access/authorize.ts";
import { accessSession } from "./access/checks.ts";
import { isOwn } from "./access/rights.ts";
import { answer } from "./answer.ts";
import { location } from "./answer-headers.ts";
import { answerPage } from "./answer-page.ts";
import { defineBodyRoute } from "./body-route.ts";
import { body, json, KeyCursor, Limit } from "./contract.ts";
import type { Environment, Services } from "./environment.ts";
import { toHoldProtocol } from "./hold.ts";
import { alwaysPossible, bodyFailures, declareFailures } from "./problem.ts";
import { SessionId } from "./schemas/common.ts";
import * as requests from "./schemas/requests.ts";
import * as schemas from "./schemas/session.ts";
import { toSession } from "./to-wire.ts";

const SessionParameters = z.object({ session: SessionId });
const tags = ["sessions"];

const open = createRoute({
  operationId: "openSession",
  method: "post",
  path: "/v1/sessions",
  tags,
  summary: "Open a session: what it owns ends with it",
  description:
    "Hold it over the WebSocket `/v1/sessions/{session}/hold`, so that it ends when your process does, or renew " +
    "it in time.",
  request: { body: body(requests.OpenSession) },
  responses: {
    201: json("Opened; hold or renew it.", schemas.Session, location),
    ...declareFailures(
      ...bodyFailures,
      ...alwaysPossible,
      "too-many-requests",
      "shutting-down",
      "out-of-shared-memory",
    ),
  },
});

const list = createRoute({
  operationId: "listSessions",
  method: "get",
  path: "/v1/sessions",
  tags,
  summary: "List sessions in the order of their opening",
  description: "Those that are alive, whether held or not.",
  request: {
    query: z.object({ limit: Limit, cursor: KeyCursor }),
  },
  responses: {
    200: json("One page.", schemas.SessionList),
    ...declareFailures(...alwaysPossible),
  },
});

const get = createRoute({
  operationId: "getSession",
  method: "get",
  path: "/v1/sessions/{session}",
  tags,
  summary: "A session, and what it uses",
  description: "With what it uses of its quota, and how many regions end with it.",
  request: { params: SessionParameters },
  responses: {
    200: json("The session.", schemas.Session),
    ...declareFailures(...alwaysPossible, "session-not-found"),
  },
});

const renew = createRoute({
  operationId: "renewSession",
  method: "post",
  path: "/v1/sessions/{session}/renew",
  tags,
  summary: "Begin the session's TTL anew",
  description: "It then ends `ttl_ms` after now. One that is held needs none.",
  request: { params: SessionParameters },
  responses: {
    200: json("Renewed.", schemas.Session),
    ...declareFailures(...alwaysPossible, "payload-too-large", "unsupported-media-type", "session-not-found"),
  },
});

const end = createRoute({
  operationId: "endSession",
  method: "delete",
  path: "/v1/sessions/{session}",
  tags,
  summary: "End a session, and all that it owns",
  description: "As if its process had died: what it owns is deleted, its claims and leases end.",
  request: { params: SessionParameters },
  responses: {
    200: json("Ended.", schemas.SessionEnd),
    ...declareFailures(
      ...alwaysPossible,
      "payload-too-large",
      "unsupported-media-type",
      "session-not-found",
      "out-of-shared-memory",
    ),
  },
});

export function defineSessionRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  defineBodyRoute(app, open, async (c) => {
    const { name = null, client, quota_bytes = null, ttl_ms = limits.sessionTtlDefaultMs } = c.req.valid("json");
    const createdBy = c.get("caller").name;
    const facts = client === undefined ? null : await toClientFacts(client);
    const session = openSession(store, { name, client: facts, quotaBytes: quota_bytes, ttlMs: ttl_ms, createdBy });
    c.header("Location", `/v1/sessions/ses_${session.token}`);
    return answer(c, toSession(session), 201);
  });

  app.openapi(list, (c) => {
    const query = c.req.valid("query");
    const caller = c.get("caller");
    const read = (count: number, after = "0") => {
      const { items, nextCursor } = listSessions(store, count, Number(after));
      return { items: items.filter((session) => isOwn(caller, session)), nextCursor };
    };
    return answerPage(c, query, read, toSession);
  });

  app.openapi(get, (c) =>
    answer(c, toSession(accessSession(c.get("caller"), store, c.req.valid("param").session)), 200),
  );

  app.openapi(renew, (c) => {
    const session = accessSession(c.get("caller"), store, c.req.valid("param").session);
    renewSession(store, session);
    return answer(c, toSession(session), 200);
  });

  app.openapi(end, async (c) => {
    c.env?.keepOpen?.();
    const session = accessSession(c.get("caller"), store, c.req.valid("param").session);
    const { regions, freedBytes, isDraining } = await endSession(store, session, "request", actorOf(c));
    return answer(c, { state: isDraining ? "draining" : "deleted", freed_bytes: freedBytes, regions } as const, 200);
  });

  app.get("/v1/sessions/:session/hold", (c) => {
    const session = accessSession(c.get("caller"), store, c.req.param("session"));
    if (c.req.header("upgrade")?.toLowerCase() !== "websocket" || c.env?.upgrade === undefined) {
      throw new TensordError(
        "upgrade-required",
        "Cannot hold the session here: the request is no WebSocket handshake",
        {
          hint: "Use a WebSocket client, or renew the session instead.",
        },
      );
    }
    c.env.upgrade(toHoldProtocol(store, session, c.get("caller")));
    return c.body(null);
  });
}

async function toClientFacts(client: z.infer<typeof requests.ClientRequest>): Promise<ClientFacts> {
  const { name = null, pid = null, pid_namespace: namespace, hostname = null, version = null, labels = {} } = client;
  const said = { name, hostname, version, labels };
  const own = ownPidNamespace();
  if (pid === null || namespace === undefined || own === undefined || namespace === own) return { ...said, pid };
  return { ...said, pid: await findPid(namespace, pid), pidNamespace: namespace, namespacePid: pid };
}
