/** Who maps a region, as clients report it over their hold sockets and as the kernel knows it. */

import { describe, expect, test } from "bun:test";
import type { Model, ModelList, RegionDetail } from "../harness/answers.ts";
import { type TestApp, until } from "../harness/app.ts";
import { Hold } from "./support/hold.ts";
import { lease } from "./support/lease.ts";
import { unknownRegion } from "./support/requests.ts";
import { endSession, openSession, takeLease } from "./support/sessions.ts";
import { withTcp } from "./support/socket.ts";

/** The region once it has this many holders, and the first this many mappings. */
function untilHolders(app: TestApp, id: string, count: number, mappings = 1): Promise<RegionDetail> {
  return until(`${count} hold it, the first ${mappings} times`, async () => {
    const region = await app.get(id);
    if (region.holders.length !== count) return undefined;
    return count === 0 || region.holders[0]?.mappings === mappings ? region : undefined;
  });
}

describe("a region's holders", () => {
  test(
    "are the sessions whose clients say that they map it, with who they are and how often",
    withTcp(async ({ app, url }) => {
      const { id } = await app.create();
      expect(await app.get(id)).toMatchObject({ holders: [], unknown_holders: false, leases: 0 });
      const client = { name: "trainer", pid: 4711, hostname: "node-1", version: "1", labels: { rank: "0" } };
      const session = await openSession(app, { client });
      using hold = await Hold.open(url, session);
      hold.send({ attach: id });
      const { holders } = await untilHolders(app, id, 1);
      const said = { ...client, pid_namespace: null, namespace_pid: null };
      expect(holders).toEqual([{ session: session.id, client: said, mappings: 1, writable: false }]);
      hold.send({ attach: id, writable: false });
      await untilHolders(app, id, 1, 2);
      hold.send({ attach: id, writable: true });
      expect((await untilHolders(app, id, 1, 3)).holders).toMatchObject([{ mappings: 3, writable: true }]);
      for (const left of [2, 1]) {
        hold.send({ detach: id });
        await untilHolders(app, id, 1, left);
      }
      hold.send({ detach: id });
      await untilHolders(app, id, 0);
      expect(hold.frames).toEqual([]);
    }),
  );

  test(
    "are several, and each counts for itself",
    withTcp(async ({ app, url }) => {
      const { id } = await app.create();
      const first = await openSession(app);
      const second = await openSession(app);
      using one = await Hold.open(url, first);
      using other = await Hold.open(url, second);
      one.send({ attach: id, writable: true });
      await untilHolders(app, id, 1);
      other.send({ attach: id });
      const { holders } = await untilHolders(app, id, 2);
      expect(holders).toEqual([
        { session: first.id, client: null, mappings: 1, writable: true },
        { session: second.id, client: null, mappings: 1, writable: false },
      ]);
      one.send({ detach: id });
      expect((await untilHolders(app, id, 1)).holders).toMatchObject([{ session: second.id }]);
    }),
  );

  test(
    "are gone with the last hold of their session, however it ends",
    withTcp(async ({ app, url }) => {
      const { id } = await app.create();
      for (const end of ["peer", "server"] as const) {
        const session = await openSession(app);
        const hold = await Hold.open(url, session);
        const second = await Hold.open(url, session);
        hold.send({ attach: id });
        await untilHolders(app, id, 1);
        await until("both hold it", () => app.store.books.session(session.id).holds === 2);
        second.close();
        await until("one is gone", () => app.store.books.session(session.id).holds === 1);
        expect((await app.get(id)).holders).toHaveLength(1);
        if (end === "peer") hold.close();
        else hold.send("hello");
        await untilHolders(app, id, 0);
      }
    }),
  );

  test(
    "are gone with a session that was ended by request, even if its client goes on reporting",
    withTcp(async ({ app, url }) => {
      const { id } = await app.create();
      const session = await openSession(app);
      const hold = await Hold.open(url, session);
      hold.send({ attach: id });
      await untilHolders(app, id, 1);
      await endSession(app, session);
      expect((await app.get(id)).holders).toEqual([]);
      hold.send({ attach: id });
      hold.close();
      await hold.closed;
      await untilHolders(app, id, 0);
      expect(app.store.holders.of(app.store.books.region(id)).size).toBe(0);
    }),
  );

  test(
    "of a region that is gone, or never was, are nobody's mistake",
    withTcp(async ({ app, url }) => {
      const { id } = await app.create();
      const other = await app.create();
      using hold = await Hold.open(url, await openSession(app));
      await app.remove(id);
      for (const region of [id, unknownRegion, "", "x"]) {
        hold.send({ attach: region });
        hold.send({ detach: region });
      }
      hold.send({ detach: other.id });
      hold.send({ attach: other.id });
      await untilHolders(app, other.id, 1);
    }),
  );

  test(
    "are forgotten with the region",
    withTcp(async ({ app, url }) => {
      const { id } = await app.create();
      const session = await openSession(app);
      using hold = await Hold.open(url, session);
      hold.send({ attach: id });
      await untilHolders(app, id, 1);
      expect(app.store.books.session(session.id).attached.size).toBe(1);
      await app.remove(id);
      expect(app.store.books.session(session.id).attached.size).toBe(0);
    }),
  );
});

test(
  "a model's workers are the processes that use its regions, each counted once",
  withTcp(async ({ app, url }) => {
    await app.ok(201, "POST", "/v1/models", { name: "llama" });
    const workers = async () => {
      const { items } = await app.ok<ModelList>(200, "GET", "/v1/models");
      const { workers } = await app.ok<Model>(200, "GET", "/v1/models/llama");
      return [...items.map((model) => model.workers), workers];
    };
    const [here, there] = [await app.create(), await app.create({ model: "llama" })];
    const more = await app.create({ model: "llama" });
    expect(await workers()).toEqual([0, 0, 0]);
    const client = { name: "trainer", pid: 4711, hostname: "node-1", version: "1", labels: {} };
    const [session, same, other] = [
      await openSession(app, { client }),
      await openSession(app, { client }),
      await openSession(app),
    ];
    using one = await Hold.open(url, session);
    using two = await Hold.open(url, same);
    using three = await Hold.open(url, other);
    for (const id of [here.id, there.id, more.id]) one.send({ attach: id });
    await untilHolders(app, more.id, 1);
    expect(await workers()).toEqual([1, 1, 1]);
    // Another client of that process.
    two.send({ attach: there.id });
    three.send({ attach: there.id });
    await untilHolders(app, there.id, 3);
    expect(await workers()).toEqual([1, 2, 2]);
    await takeLease(app, there.id, { session: other.id, ttl_ms: 60_000 });
    expect(await workers()).toEqual([1, 2, 2]);
    await takeLease(app, there.id);
    expect(await workers()).toEqual([1, 3, 3]);
    one.close();
    await untilHolders(app, here.id, 0);
    expect(await workers()).toEqual([0, 3, 3]);
  }),
);

describe("a mapping that nobody reported", () => {
  test(
    "is an unknown holder, and a lease by request is none",
    withTcp(async ({ app, url }) => {
      const { id, storage } = await app.create();
      await takeLease(app, id);
      expect(await app.get(id)).toMatchObject({ in_use: true, leases: 1, holders: [], unknown_holders: false });
      using _ = lease(storage.path);
      expect(await app.get(id)).toMatchObject({ in_use: true, holders: [], unknown_holders: true });
      using hold = await Hold.open(url, await openSession(app));
      hold.send({ attach: id });
      expect(await untilHolders(app, id, 1)).toMatchObject({ in_use: true, unknown_holders: false });
    }),
  );
});
