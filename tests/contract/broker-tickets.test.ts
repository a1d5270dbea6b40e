/** What the broker's Worker hands out without a turn of the event loop: only what stands, as it is, and the loop hears of it. */

import { describe, expect, test } from "bun:test";
import { readSync } from "node:fs";
import { leaseByte, makerByte, writerByte } from "../../src/memory/os/kernel-lease.ts";
import { isLocked } from "../../src/memory/os/libc.ts";
import type { Caller } from "../../src/routes/access/caller.ts";
import type { BrokerAccess } from "../../src/server/broker/conversation.ts";
import type { Region } from "../harness/answers.ts";
import { until } from "../harness/app.ts";
import { BrokerClient, type Received } from "../harness/broker-client.ts";
import { patienceMs } from "../harness/server-wait.ts";
import { withBroker } from "./support/broker.ts";

const tickets = 4;

/** Asks, and holds the event loop until the answer is there. @returns undefined if it needs the loop. */
function askHeld(client: BrokerClient, region: string, members: object = {}, forMs = patienceMs): Received | undefined {
  client.send(JSON.stringify({ id: 77, op: "attach", region, access: "ro", ...members }));
  for (const deadline = performance.now() + forMs; performance.now() < deadline; Bun.sleepSync(1)) {
    const received = client.look();
    if (received === "closed") throw new Error("the broker closed the connection");
    if (received !== undefined) return received;
  }
  return undefined;
}

describe("a region that was handed out once", () => {
  for (const storage of ["shm", "memfd"] as const) {
    test(
      `is handed out again while the event loop is held, leased as it was asked for (${storage})`,
      withBroker(async ({ app, connect }) => {
        const { id } = await app.create({ storage, byte_size: 4096 });
        const [client, other] = [await connect(), await connect()];
        const first = await client.attach(id);
        for (const [members, bytes] of [
          [{}, [leaseByte]],
          [{ lease: "maker" }, [makerByte]],
          [{ access: "rw", lease: "both", count: 1 }, [leaseByte, makerByte, writerByte]],
        ] as const) {
          const received = askHeld(other, id, members);
          expect(received?.reply).toMatchObject({ id: 77, ok: true, leased: true, fds: ["region"] });
          expect({ ...(received?.reply.region as Region), last_used_at: "" }).toEqual({
            ...(first.region as Region),
            last_used_at: "",
          });
          client.letGo(first.descriptors);
          const [fd = -1] = received?.descriptors ?? [];
          expect(readSync(fd, Buffer.alloc(8192), 0, 8192, 0)).toBe(8192);
          const usage = app.store.storages.of(app.store.books.region(id)).memory.usage(id.slice(4));
          expect([usage?.consumed, usage?.made, usage?.written]).toEqual(
            [leaseByte, makerByte, writerByte].map((byte) => (bytes as readonly bigint[]).includes(byte)),
          );
          // Its own lock is no obstacle to itself, so nobody else holds one.
          expect(isLocked(fd, leaseByte, 2n)).toBeFalse();
          other.letGo(received?.descriptors ?? []);
        }
      }),
    );
  }

  test(
    "is described as it is now: what changed, was sealed, or was deleted, is the loop's again",
    withBroker(async ({ app, connect }) => {
      const { id } = await app.create({ name: "w" });
      const client = await connect();
      await client.attach(id);
      await app.ok(200, "PATCH", `/v1/regions/${id}`, { labels: { a: "1" } });
      expect((await client.attach(id)).region).toMatchObject({ labels: { a: "1" }, revision: 2, state: "open" });
      const { descriptors } = await client.attach(id, { access: "rw" });
      expect((await app.refused("region-has-writers", "POST", `/v1/regions/${id}/seal`, {})).code).toBeDefined();
      client.letGo(descriptors);
      await client.attach(id);
      await app.seal(id);
      expect((await client.problem("attach", { region: id, access: "rw" })).code).toBe("region-sealed");
      expect((await client.attach(id)).region).toMatchObject({ state: "sealed" });
      expect((await client.problem("attach", { region: id, access: "rw" })).code).toBe("region-sealed");
      await app.remove(id);
      expect((await client.problem("attach", { region: id, access: "ro" })).code).toBe("region-draining");
    }),
  );

  test(
    "is never written to by somebody whom its seal did not see",
    withBroker(async ({ app, connect }) => {
      const client = await connect();
      let seals = 0;
      for (let round = 0; round < 60; round++) {
        const { id } = await app.create();
        client.letGo((await client.attach(id, { access: "rw" })).descriptors);
        client.send(JSON.stringify({ id: 1, op: "attach", region: id, access: "rw" }));
        if (round % 3 === 0) await Bun.sleep(0);
        const { status } = await app.request("POST", `/v1/regions/${id}/seal`, {});
        const { reply, descriptors } = await client.answer();
        seals += status === 200 ? 1 : 0;
        // Whoever was first: one of them is refused.
        expect([status === 200, reply.ok]).toContain(false);
        if (status === 200) expect((await app.get(id)).has_writers).toBeFalse();
        client.letGo(descriptors);
        await app.remove(id);
      }
      console.log(JSON.stringify({ seals }));
    }),
  );

  test(
    "is never freed under somebody to whom it was handed",
    withBroker(async ({ app, connect }) => {
      const client = await connect();
      for (let round = 0; round < 60; round++) {
        const { id } = await app.create();
        client.letGo((await client.attach(id)).descriptors);
        client.send(JSON.stringify({ id: 1, op: "attach", region: id, access: "ro" }));
        if (round % 3 === 0) await Bun.sleep(0);
        const { state } = await app.remove(id);
        const { reply, descriptors } = await client.answer();
        expect([state === "deleted", reply.ok]).toContain(false);
        client.letGo(descriptors);
        await until("it is freed", () => app.store.books.regionById(id) === undefined);
      }
    }),
  );

  test(
    "counts as attached in the session that the connection holds, before whatever it says next",
    withBroker(async ({ app, connect }) => {
      const { id } = await app.create();
      const client = await connect({ session: {} });
      await client.attach(id);
      for (let count = 0; count < 3; count++) expect(askHeld(client, id)).toBeDefined();
      await client.ok("release", { region: id });
      expect((await app.get(id)).holders).toMatchObject([{ mappings: 3 }]);
    }),
  );
});

describe("the loop is asked", () => {
  test(
    "for more than one descriptor, tensors, a name, and what is wrong",
    withBroker(async ({ app, connect }) => {
      const { id } = await app.create({ name: "w" });
      const client = await connect();
      await client.attach(id);
      for (const members of [{ count: 2 }, { count: 0 }, { tensors: true }, { lease: "none" }, { more: 1 }]) {
        expect(askHeld(client, id, members, 20)).toBeUndefined();
        await client.answer();
      }
    }),
  );

  test(
    "by who has not said hello, and once the server stops",
    withBroker(async ({ app, path, connect }) => {
      const { id } = await app.create();
      const client = await connect();
      await client.attach(id);
      using stranger = new BrokerClient(path);
      expect((await stranger.problem("attach", { region: id, access: "ro" })).hint).toBe("Send hello first.");
      app.store.stop();
      expect((await client.problem("attach", { region: id, access: "ro" })).code).toBe("shutting-down");
    }),
  );

  test("by whoever may not do it to any region: to write for a worker, and at all for a token of other models", async () => {
    const { signal: revoked } = new AbortController();
    const callers: Record<string, Caller> = {
      admin: { name: "boss", role: "admin", models: null, roots: null, revoked },
      worker: { name: "w", role: "worker", models: null, roots: null, revoked },
      reader: { name: "r", role: "reader", models: null, roots: null, revoked },
      other: { name: "o", role: "worker", models: new Set(["other"]), roots: null, revoked },
    };
    const access: BrokerAccess = {
      authenticate: ({ token = "" }) => callers[token] as Caller,
      issue: () => undefined,
    };
    await withBroker(
      async ({ app, connect }) => {
        const { id } = await app.create();
        const [admin, worker, reader, other] = [
          await connect({ token: "admin" }),
          await connect({ token: "worker" }),
          await connect({ token: "reader" }),
          await connect({ token: "other" }),
        ];
        await admin.attach(id);
        for (const client of [admin, worker, reader]) expect(askHeld(client, id)?.reply.ok).toBeTrue();
        const { descriptors = [] } = askHeld(admin, id, { access: "rw" }) ?? {};
        expect(descriptors.length).toBe(1);
        for (const client of [worker, reader]) {
          expect((await client.problem("attach", { region: id, access: "rw" })).code).toBe("forbidden");
        }
        expect((await other.problem("attach", { region: id, access: "ro" })).code).toBe("region-not-found");
      },
      { access },
    )();
  });

  test(
    "for regions beyond those of which the Worker may know",
    withBroker(
      async ({ app, connect }) => {
        const client = await connect();
        const ids: string[] = [];
        for (let count = 0; count <= tickets; count++) {
          const { id } = await app.create();
          ids.push(id);
          client.letGo((await client.attach(id)).descriptors);
        }
        expect(askHeld(client, ids.at(-1) ?? "")).toBeDefined();
        // The first one's ticket went to the last.
        expect(askHeld(client, ids[0] ?? "", {}, 20)).toBeUndefined();
        expect((await client.answer()).reply).toMatchObject({ region: { id: ids[0] } });
      },
      { tickets },
    ),
  );
});
