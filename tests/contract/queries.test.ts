/** Query parameters that a route does not take: refused by name on every route, and before anything else is done. */

import { describe, expect, test } from "bun:test";
import { operations, type Problem, toAnswer } from "../harness/answers.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { goodRequest, optionsFor } from "./support/requests.ts";
import { openSession } from "./support/sessions.ts";
import { withTcp } from "./support/socket.ts";

interface Issue {
  readonly path: string;
  readonly message: string;
}

async function refusedQuery(app: TestApp, operationId: string, query: string): Promise<readonly Issue[]> {
  const { method, path, body } = await goodRequest(app, operationId);
  const asked = `${path}${path.includes("?") ? "&" : "?"}${query}`;
  return (await app.refused("validation-failed", method, asked, body)).issues as Issue[];
}

describe("a query parameter that is not the operation's", () => {
  for (const { operationId, parameters = [] } of operations) {
    const own = parameters.filter((parameter) => parameter.in === "query").map(({ name }) => name);
    const want = own.length === 0 ? "the route takes no query" : `want ${own.join(", ")}`;

    test(
      `is refused by ${operationId}, which names it, and says: ${want}`,
      withApp(async (app) => {
        const issues = await refusedQuery(app, operationId, "surprise=1&__proto__=2");
        expect(issues.map(({ path }) => path)).toEqual(["surprise", "__proto__"]);
        for (const { message } of issues) expect(message).toBe(`there is no such query parameter, ${want}`);
      }, optionsFor(operationId)),
    );
  }

  test(
    "is refused whatever its value, in another case, twice, or with an escape",
    withApp(async (app) => {
      for (const [query, name] of [
        ["surprise", "surprise"],
        ["surprise=", "surprise"],
        ["Limit=1", "Limit"],
        ["limit%20=1", "limit "],
        ["limit[]=1", "limit[]"],
        ["surprise=1&surprise=2", "surprise"],
        ["toString=1", "toString"],
        ["limit=1&model=default&surprise=1", "surprise"],
        [`${"a".repeat(5000)}=1`, `${"a".repeat(160)}…`],
      ] as const) {
        const { issues } = await app.refused("validation-failed", "GET", `/v1/regions?${query}`);
        expect({ query, issues }).toMatchObject({ issues: [{ path: name }] });
      }
    }),
  );

  test(
    "is refused before the body is read, and of many only some are shown",
    withApp(async (app) => {
      const query = Array.from({ length: 1000 }, (_, index) => `q${index}=1`).join("&");
      const { issues, detail } = await app.refused("validation-failed", "POST", `/v1/regions?${query}`, "{");
      expect((issues as Issue[]).length).toBe(20);
      expect(detail).toBe(
        "Cannot accept the request at q0: there is no such query parameter, the route takes no query, and 999 more",
      );
    }),
  );

  test(
    "is refused by HEAD, by the document and by the reference page, and is no matter where there is no route",
    withApp(async (app) => {
      expect((await app.request("HEAD", "/v1/regions?surprise=1")).status).toBe(422);
      for (const path of ["/openapi.json", "/docs", "/docs/swagger-ui.css"]) {
        const { status, body } = await toAnswer(await app.app.request(`${path}?surprise=1`));
        expect([path, status, (body as Problem).code]).toEqual([path, 422, "validation-failed"]);
        expect((await app.app.request(`${path}?`)).status).toBe(200);
      }
      await app.refused("route-not-found", "GET", "/v1/nothing?surprise=1");
      await app.refused("method-not-allowed", "PUT", "/v1/regions?surprise=1");
    }),
  );

  test(
    "is refused by the routes of WebSockets before the upgrade, where their own are taken",
    withTcp(async ({ app, url }) => {
      const headers = {
        connection: "upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": btoa("sixteen bytes ok"),
      };
      const { id } = await openSession(app);
      for (const [path, want] of [
        ["/v1/events/ws", "want after, model, session, types"],
        [`/v1/sessions/${id}/hold`, "the route takes no query"],
      ] as const) {
        const { status, body } = await toAnswer(await fetch(`${url}${path}?limit=1`, { headers }));
        expect([path, status]).toEqual([path, 422]);
        expect(body).toMatchObject({
          code: "validation-failed",
          issues: [{ path: "limit", message: `there is no such query parameter, ${want}` }],
        });
      }
      const socket = new WebSocket(`${url.replace("http:", "ws:")}/v1/events/ws?after=1&model=default&types=tensord.`);
      const isOpen = await new Promise((resolve) => {
        socket.onopen = () => resolve(true);
        socket.onerror = () => resolve(false);
      });
      socket.close();
      expect(isOpen).toBeTrue();
    }),
  );
});
