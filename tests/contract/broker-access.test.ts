/** Whom the broker takes a connection for, where there are tokens, and what that may attach. */

import { describe, expect, test } from "bun:test";
import { until } from "../harness/app.ts";
import { BrokerClient } from "../harness/broker-client.ts";
import { tokenOf } from "../harness/tokens-file.ts";
import { type OpenBroker, withBroker } from "./support/broker.ts";
import { endSession, openSession, type Session } from "./support/sessions.ts";

const line = (name: string, role: string, more: object = {}) => ({ name, role, token: tokenOf(name), ...more });
const lines = [
  line("ops", "admin"),
  line("trainer", "worker"),
  line("viewer", "reader"),
  line("held", "reader", { models: ["elsewhere"] }),
];
const jobs = { name: "jobs", role: "worker", uids: [process.geteuid?.() ?? 0] };

const withLines = (tokens: readonly object[], use: (server: OpenBroker) => Promise<void>) =>
  withBroker(use, {}, { tokens });
const as = (name: string) => ({ token: tokenOf(name) });

describe("where there are tokens, hello", () => {
  test(
    "is refused without one, and with a wrong one, and says what is wanted",
    withLines(lines, async ({ path }) => {
      for (const members of [{}, { token: tokenOf("nobody") }]) {
        using client = new BrokerClient(path);
        expect(await client.problem("hello", { v: 1, ...members })).toMatchObject({
          code: "unauthorized",
          hint: expect.stringContaining("TENSORD_TOKEN"),
        });
        expect((await client.problem("attach", { region: "reg_x", access: "ro" })).code).toBe("validation-failed");
        await client.ok("hello", { v: 1, ...as("viewer") });
      }
    }),
  );

  test(
    "is a uid's that has a line, with a token for HTTP that ends with its session; a wrong token it does not make good",
    withLines([...lines, jobs], async ({ app, path, connect }) => {
      using wrong = new BrokerClient(path);
      expect((await wrong.problem("hello", { v: 1, token: tokenOf("nobody") })).code).toBe("unauthorized");
      using client = new BrokerClient(path);
      const { reply } = await client.ok("hello", { v: 1, session: { ttl_ms: 3_600_000 } });
      const { access_token: token, session } = reply as unknown as { access_token: string; session: Session };
      expect(session.created_by).toBe("jobs");
      app.token = token;
      expect((await app.create()).created_by).toBe("jobs");
      // Who has a token of the file needs no other, and who holds no session could not say when it ends.
      const known = new BrokerClient(path);
      const greeted = await known.ok("hello", { v: 1, ...as("viewer"), session: {} });
      expect(greeted.reply.access_token).toBeUndefined();
      known.close();
      await connect();
      await endSession(app, session);
      await app.refused("unauthorized", "GET", "/v1/regions");
    }),
  );

  test(
    "holds no session of another's",
    withLines(lines, async ({ app, path }) => {
      app.token = tokenOf("ops");
      const { id } = await openSession(app);
      using client = new BrokerClient(path);
      expect((await client.problem("hello", { v: 1, ...as("viewer"), session: id })).code).toBe("session-not-found");
      await client.ok("hello", { v: 1, ...as("ops"), session: id });
    }),
  );
});

test(
  "attach gives each caller what the table says: its own to write, what it may see to read, and nothing else",
  withLines(lines, async ({ app, connect }) => {
    app.token = tokenOf("trainer");
    const { id: own } = await app.create({ name: "own" });
    app.token = tokenOf("ops");
    const { id: theirs } = await app.create({ name: "theirs" });
    const trainer = await connect(as("trainer"));
    const viewer = await connect(as("viewer"));
    const held = await connect(as("held"));
    expect((await trainer.attach(own, { access: "rw" })).descriptors).toHaveLength(1);
    expect((await trainer.attach(theirs)).descriptors).toHaveLength(1);
    expect((await viewer.attach(theirs)).descriptors).toHaveLength(1);
    expect(await trainer.problem("attach", { region: theirs, access: "rw" })).toMatchObject({
      code: "forbidden",
      detail: expect.stringContaining('is "ops"\'s, want its own'),
    });
    expect((await viewer.problem("attach", { region: own, access: "rw" })).code).toBe("forbidden");
    expect((await held.problem("attach", { region: own, access: "ro" })).code).toBe("region-not-found");
    expect((await held.problem("attach", { name: "own", access: "ro" })).code).toBe("forbidden");
  }),
);

test(
  "what was handed out to an administrator, and is known to the Worker by now, goes to nobody else for that",
  withLines(lines, async ({ app, connect }) => {
    app.token = tokenOf("ops");
    const { id } = await app.create({ name: "theirs" });
    const ops = await connect(as("ops"));
    const trainer = await connect(as("trainer"));
    const held = await connect(as("held"));
    // The second is a ticket's, of which the event loop is told later.
    for (const access of ["rw", "rw", "ro"]) await ops.attach(id, { access });
    for (const access of ["ro", "ro"]) await trainer.attach(id, { access });
    expect((await trainer.problem("attach", { region: id, access: "rw" })).code).toBe("forbidden");
    expect((await held.problem("attach", { region: id, access: "ro" })).code).toBe("region-not-found");
  }),
);

test(
  "a connection ends when its token is taken away, and the TTL of its session runs on",
  withLines(lines, async ({ app, connect }) => {
    const client = await connect({ ...as("trainer"), session: { ttl_ms: 3_600_000 } });
    const [session] = [...app.store.books.sessions.after(0)];
    expect(session?.holds).toBe(1);
    app.tokensFile?.rewrite(lines.filter(({ name }) => name !== "trainer"));
    expect(await client.closing()).toBeUndefined();
    await until("the hold is over", () => session?.holds === 0);
    expect(session?.expiresAt).not.toBeNull();
    expect(session?.end).toBeNull();
  }),
);
