/** What the broker answers: who is greeted, what is handed out with which access and lease, and what is refused. */

import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, readSync, renameSync, rmSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { limits } from "../../src/memory/limits.ts";
import { leaseByte, makerByte, writerByte } from "../../src/memory/os/kernel-lease.ts";
import { isLocked, tryWriteLock } from "../../src/memory/os/libc.ts";
import type { Region } from "../harness/answers.ts";
import { type TestApp, until } from "../harness/app.ts";
import { type Attached, BrokerClient } from "../harness/broker-client.ts";
import { tokenOf } from "../harness/instance.ts";
import { withBroker } from "./support/broker.ts";
import { makePool, mapAt, withPools } from "./support/pools.ts";
import { unknownRegion } from "./support/requests.ts";
import { endSession, openSession } from "./support/sessions.ts";

const hour = 3_600_000;

function readAll(fd: number, byteSize: number): Buffer {
  const bytes = Buffer.alloc(byteSize);
  expect(readSync(fd, bytes, 0, byteSize, 0)).toBe(byteSize);
  return bytes;
}

/** The one descriptor that came. */
function only({ descriptors }: Attached): number {
  expect(descriptors.length).toBe(1);
  return descriptors[0] ?? -1;
}

function readTensors({ descriptors, tensorsByteSize }: Attached): Region["tensors"] {
  return JSON.parse(readAll(descriptors.at(-1) ?? -1, tensorsByteSize).toString()) as Region["tensors"];
}

/** Runs `use` with a description of the region's file that is neither the broker's nor a client's. */
function withFile<Result>({ storage }: Region, flags: "r" | "r+", use: (fd: number) => Result): Result {
  const fd = openSync(storage.path, flags);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

/** Which of the bytes that mean something are locked. */
function lockedBytes(region: Region): readonly string[] {
  const bytes = { lease: leaseByte, maker: makerByte, writer: writerByte };
  return withFile(region, "r", (fd) =>
    Object.entries(bytes).flatMap(([name, start]) => (isLocked(fd, start, 1n) ? name : [])),
  );
}

async function untilNoSessions(app: TestApp): Promise<void> {
  await until("no session is left", async () => (await app.stats()).sessions === 0);
}

describe("hello", () => {
  test(
    "is answered with the version that is spoken, and with whose server it is, once",
    withBroker(async ({ app, path, connect }) => {
      using client = new BrokerClient(path);
      const { reply } = await client.ok("hello", { v: 7, token: "any", client: { name: "a" } });
      expect(reply).toEqual({ id: 1, ok: true, v: 1, instance: app.instance, epoch: app.store.epoch });
      const again = await connect();
      expect((await again.problem("hello", { v: 1 })).code).toBe("validation-failed");
    }),
  );

  test(
    "comes first: before it nothing else is done, and the connection stays",
    withBroker(async ({ app, path }) => {
      const { id } = await app.create();
      using client = new BrokerClient(path);
      for (const op of ["attach", "release", "report"]) {
        const members = op === "report" ? { reports: [{ attach: id }] } : { region: id };
        const { code, hint } = await client.problem(op, op === "attach" ? { ...members, access: "ro" } : members);
        expect([code, hint]).toEqual(["validation-failed", "Send hello first."]);
      }
      await client.ok("hello", { v: 1 });
      await client.attach(id);
    }),
  );

  test(
    "opens a session and holds it; of which process it is the kernel says, and not the client",
    withBroker(async ({ app, connect }) => {
      const client = await connect({ session: { name: "mine", ttl_ms: hour, client: { name: "trainer", pid: 1 } } });
      expect(await app.ok<object>(200, "GET", "/v1/sessions")).toMatchObject({
        items: [{ name: "mine", held: true, expires_at: null, client: { name: "trainer", pid: process.pid } }],
      });
      client.close();
      await untilNoSessions(app);
    }),
  );

  test(
    "holds a session that is there, which ends with its last hold, and what it owns with it",
    withBroker(async ({ app, connect }) => {
      const session = await openSession(app, { ttl_ms: hour });
      const { id } = await app.create({ session: session.id });
      const [first, second] = [await connect({ session: session.id }), await connect({ session: session.id })];
      first.close();
      await until("one hold is left", () => app.store.books.session(session.id).holds === 1);
      expect((await app.get(id)).session).toBe(session.id);
      second.close();
      await untilNoSessions(app);
      expect((await app.request("GET", `/v1/regions/${id}`)).status).toBe(404);
    }),
  );

  test(
    "of a session that is not there, or cannot be opened, is refused, and may be said again",
    withBroker(async ({ app, path }) => {
      using client = new BrokerClient(path);
      const session = "ses_aaaaaaaaaaaaaaaaaaaaaaaaaa";
      expect((await client.problem("hello", { v: 1, session })).code).toBe("session-not-found");
      expect((await client.problem("hello", { v: 1, session: { ttl_ms: 1 } })).code).toBe("validation-failed");
      await client.ok("hello", { v: 1 });
      expect((await app.stats()).sessions).toBe(0);
    }),
  );
});

describe("a session that a connection holds", () => {
  test(
    "lives on, with its TTL, when the server closes the connection",
    withBroker(async ({ app, broker, connect }) => {
      const client = await connect({ session: { ttl_ms: hour } });
      app.store.stop();
      await broker.stop();
      expect(await client.closing()).toBeUndefined();
      const [session] = [...app.store.books.sessions.after(0)];
      expect(session?.holds).toBe(0);
      expect(session?.expiresAt ?? 0).toBeGreaterThan(Date.now());
      expect(session?.end).toBeNull();
    }),
  );

  test(
    "closes it when it ends otherwise",
    withBroker(async ({ app, connect }) => {
      const client = await connect({ session: { ttl_ms: hour } });
      const [session] = [...app.store.books.sessions.after(0)];
      await endSession(app, { id: `ses_${session?.token}` } as never);
      expect(await client.closing()).toBeUndefined();
    }),
  );

  test(
    "is a holder of what is attached until it is released, as often as that",
    withBroker(async ({ app, connect }) => {
      const { id } = await app.create();
      const client = await connect({ session: { client: { name: "holder" } } });
      await client.attach(id, { count: 3, lease: "maker" });
      await client.attach(id, { access: "rw" });
      await client.attach(id, { count: 0 });
      expect((await app.get(id)).holders).toMatchObject([{ client: { name: "holder" }, mappings: 3, writable: true }]);
      await client.ok("release", { region: id, lease: "maker" });
      await client.ok("release", { region: id });
      expect((await app.get(id)).holders).toMatchObject([{ mappings: 1 }]);
      await client.ok("release", { region: id });
      expect((await app.get(id)).holders).toEqual([]);
      await client.ok("release", { region: unknownRegion });
      const other = await connect();
      await other.attach(id);
      expect((await app.get(id)).holders).toEqual([]);
    }),
  );

  test(
    "says by reports what is mapped, as it would over a WebSocket: several at once, of what drains or is gone too",
    withBroker(async ({ app, connect }) => {
      const client = await connect({ session: { client: { name: "reporter" } } });
      const { id } = await app.create();
      const attach = { attach: id, writable: true, maker: true };
      await client.ok("report", { reports: [attach, { attach: id }, { attach: unknownRegion }, { detach: id }] });
      expect((await app.get(id)).holders).toMatchObject([
        { client: { name: "reporter" }, mappings: 1, writable: true },
      ]);
      const looking = await connect();
      const { descriptors } = await looking.attach(id);
      await app.request("DELETE", `/v1/regions/${id}`);
      await client.ok("report", { reports: [{ attach: id, writable: true }] });
      expect((await app.get(id)).holders).toMatchObject([{ mappings: 2 }]);
      await client.ok("report", { reports: Array.from({ length: limits.brokerReports }, () => ({ detach: id })) });
      looking.letGo(descriptors);
      await until("it is gone", async () => (await app.request("GET", `/v1/regions/${id}`)).status === 404);
      await client.ok("report", { reports: [{ detach: id }] });
    }),
  );

  test(
    "ends a hand-off with the report that its last consumer let go, and waits for no fetch that was reported to be mapped",
    withBroker(async ({ app, connect }) => {
      const consumer = await connect({ session: {} });
      const { id } = await app.create({ linger_ms: 0, name: "handed" });
      await app.seal(id);
      await app.request("GET", "/v1/models/default/regions/handed", undefined, {
        headers: { prefer: "attach" },
      });
      await consumer.ok("report", { reports: [{ attach: id, maker: false }] });
      expect((await app.get(id)).state).toBe("sealed");
      await consumer.ok("report", { reports: [{ detach: id, maker: false }] });
      await until("it has ended", async () => (await app.request("GET", `/v1/regions/${id}`)).status === 404);
    }),
  );

  for (const [what, reports] of [
    ["none", []],
    ["more than fit", Array.from({ length: limits.brokerReports + 1 }, () => ({ detach: unknownRegion }))],
    ["one that says both", [{ attach: unknownRegion, detach: unknownRegion }]],
    ["a word that is not known", [{ attach: unknownRegion, maps: true }]],
  ] as const) {
    test(
      `takes no reports of ${what}, and stays`,
      withBroker(async ({ connect }) => {
        const client = await connect({ session: {} });
        expect((await client.problem("report", { reports })).code).toBe("validation-failed");
        await client.ok("report", { reports: [{ detach: unknownRegion }] });
      }),
    );
  }

  test(
    "takes no reports where no session is held",
    withBroker(async ({ connect }) => {
      const client = await connect();
      const { code, detail } = await client.problem("report", { reports: [{ detach: unknownRegion }] });
      expect([code, detail]).toEqual(["validation-failed", "Cannot take reports: the connection holds no session"]);
    }),
  );

  test(
    "ends a hand-off with the release of its last consumer, and not with its maker's",
    withBroker(async ({ app, connect }) => {
      const maker = await connect({ session: {} });
      const { id } = await app.create({ linger_ms: 0, handoff_ms: hour, name: "handed" });
      await maker.attach(id, { lease: "maker" });
      await app.seal(id);
      const consumer = await connect({ session: {} });
      const { reply, descriptors } = await consumer.ok("attach", { name: "handed", access: "ro" });
      expect((reply.region as Region).id).toBe(id);
      await maker.ok("release", { region: id, lease: "maker" });
      expect((await app.get(id)).state).toBe("sealed");
      consumer.letGo(descriptors);
      await consumer.ok("release", { region: id });
      await until("it has ended", async () => {
        const { status, body } = await app.request("GET", `/v1/regions/${id}`);
        return status === 404 || (body as Region).state === "draining";
      });
    }),
  );
});

describe("attach", () => {
  test(
    "counts who was handed a hand-off as its consumer, and awaits nothing more of him",
    withBroker(async ({ app, connect }) => {
      const { id } = await app.create({ linger_ms: 0, handoff_ms: hour });
      await app.seal(id);
      const consumer = await connect();
      await consumer.attach(id);
      // Or he would be awaited for ten seconds after he has let go, if he had it for a moment only.
      const { consumedAt, fetches, fetchedAt } = app.store.books.region(id).handOff ?? {};
      expect([consumedAt !== 0, fetches, fetchedAt]).toEqual([true, 0, 0]);
    }),
  );

  test(
    "hands out the region's own file: what is written through one descriptor is read through another",
    withBroker(async ({ app, connect }) => {
      const created = await app.create({ name: "weights", byte_size: 4096 });
      const [writer, reader] = [await connect(), await connect()];
      const written = only(await writer.attach(created.id, { access: "rw" }));
      writeSync(written, Buffer.alloc(4096, 7), 0, 4096, 4096);
      const attached = await reader.attach(created.id);
      expect(readAll(only(attached), created.storage.byte_size).subarray(4096)).toEqual(Buffer.alloc(4096, 7));
      const { tensors, ...facts } = created;
      expect({ ...attached.region, last_used_at: "" }).toEqual({ ...facts, last_used_at: "" });
      expect(tensors.length).toBe(1);
      expect(() => writeSync(only(attached), Buffer.alloc(1), 0, 1, 4096)).toThrow("EBADF");
    }),
  );

  for (const [members, bytes] of [
    [{ access: "ro" }, ["lease"]],
    [{ access: "ro", lease: "maker" }, ["maker"]],
    [{ access: "ro", lease: "both" }, ["lease", "maker"]],
    [{ access: "rw" }, ["lease", "writer"]],
    [{ access: "rw", lease: "maker" }, ["maker", "writer"]],
  ] as const) {
    test(
      `${JSON.stringify(members)} comes with ${bytes.join(" and ")} locked, for as long as it is open`,
      withBroker(async ({ app, connect }) => {
        const region = await app.create();
        const client = await connect();
        expect(lockedBytes(region)).toEqual([]);
        const { descriptors, leased } = await client.attach(region.id, { ...members, count: 2 });
        expect([leased, lockedBytes(region)]).toEqual([true, bytes]);
        expect(await app.get(region.id)).toMatchObject({
          in_use: true,
          has_writers: bytes.includes("writer" as never),
        });
        // Each is a description of its own.
        client.letGo(descriptors.slice(0, 1));
        expect(lockedBytes(region)).toEqual([...bytes]);
        client.letGo(descriptors);
        expect(lockedBytes(region)).toEqual([]);
        expect((await app.get(region.id)).in_use).toBeFalse();
      }),
    );
  }

  for (const wish of [{ storage: "memfd" }, { private: true }] as const) {
    test(
      `is the way to what has no name: ${JSON.stringify(wish)}`,
      withBroker(async ({ app, connect }) => {
        const { id } = await app.create({ ...wish, name: "nameless", byte_size: 4096 });
        const client = await connect();
        const writing = await client.attach(id, { access: "rw", lease: "maker" });
        expect(writing.region.storage).toMatchObject({ kind: wish.private ? "shm" : "memfd", path: null });
        writeSync(only(writing), Buffer.alloc(4096, 7), 0, 4096, 4096);
        expect(await app.get(id)).toMatchObject({ in_use: true, has_writers: true });
        client.letGo(writing.descriptors);
        await app.seal(id, { checksum: true });
        const reading = await client.attach(id);
        expect(readAll(only(reading), 8192).subarray(4096)).toEqual(Buffer.alloc(4096, 7));
        expect((await app.remove(id)).state).toBe("draining");
        expect(readAll(only(reading), 8192)[8191]).toBe(7);
      }),
    );
  }

  test(
    "keeps what is deleted for as long as a descriptor is open, though nobody mapped it",
    withBroker(async ({ app, connect }) => {
      const { id } = await app.create();
      const client = await connect();
      const { descriptors } = await client.attach(id);
      expect((await app.remove(id)).state).toBe("draining");
      expect((await client.problem("attach", { region: id, access: "ro" })).code).toBe("region-draining");
      client.letGo(descriptors);
      await until("it is freed", async () => (await app.request("GET", `/v1/regions/${id}`)).status === 404);
      expect((await client.problem("attach", { region: id, access: "ro" })).code).toBe("region-not-found");
    }),
  );

  test(
    "finds a region by its name: the newest that is sealed, or a version",
    withBroker(async ({ app, connect }) => {
      const client = await connect();
      await app.register("llama");
      const first = await app.create({ model: "llama", name: "w", version: "1" });
      const second = await app.create({ model: "llama", name: "w", version: "2" });
      const idOf = async (members: object) =>
        ((await client.ok("attach", { model: "llama", name: "w", access: "ro", ...members })).reply.region as Region)
          .id;
      expect(await idOf({})).toBe(second.id);
      await app.seal(first.id);
      expect(await idOf({})).toBe(first.id);
      expect(await idOf({ version: "2" })).toBe(second.id);
      const missing = { model: "llama", name: "v", access: "ro" };
      expect((await client.problem("attach", missing)).code).toBe("region-not-found");
      expect((await client.problem("attach", { ...missing, model: "other" })).code).toBe("model-not-found");
    }),
  );

  test(
    "gives nobody a writable descriptor of what is sealed, and lets a seal see those that it gave",
    withBroker(async ({ app, connect }) => {
      const client = await connect();
      const { id } = await app.create();
      const { descriptors } = await client.attach(id, { access: "rw" });
      expect((await app.refused("region-has-writers", "POST", `/v1/regions/${id}/seal`, {})).code).toBeDefined();
      client.letGo(descriptors);
      await app.seal(id, { stock_writable: true });
      expect(await client.problem("attach", { region: id, access: "rw" })).toMatchObject({
        code: "region-sealed",
        state: "sealed",
      });
      only(await client.attach(id));
    }),
  );

  test(
    "brings the tensors in a file that nobody can change, however many they are",
    withBroker(async ({ app, connect }) => {
      const client = await connect();
      const few = await app.create({ tensors: [{ name: "é", dtype: "F32", shape: [2, 3] }] });
      const many = await app.create({
        tensors: Array.from({ length: 2000 }, (_, index) => ({ name: `t${index}`, dtype: "U8", shape: [1] })),
      });
      for (const { id, tensors } of [few, many]) {
        const attached = await client.attach(id, { tensors: true, count: 2 });
        expect(attached.reply.fds).toEqual(["region", "region", "tensors"]);
        expect(readTensors(attached)).toEqual(tensors);
      }
      const { descriptors } = await client.attach(few.id, { tensors: true, count: 0 });
      expect(() => writeSync(descriptors[0] ?? -1, "x")).toThrow("EPERM");
      expect((await client.attach(many.id, { tensors: false })).descriptors.length).toBe(1);
    }),
  );

  test(
    "takes the largest descriptor that there can be",
    withBroker(async ({ app, connect }) => {
      const worst = "\u0001";
      const keys = Array.from({ length: limits.labels }, (_, index) =>
        String(index).padStart(limits.labelKeyCharacters, worst),
      );
      const labels = Object.fromEntries(keys.map((key) => [key, worst.repeat(limits.labelValueCharacters)]));
      const name = "n".repeat(128);
      await app.register("m".repeat(128));
      await app.create({ model: "m".repeat(128), name, version: "v".repeat(128), labels, linger_ms: limits.ttlMs });
      const client = await connect();
      const { text } = await client.ok("attach", { model: "m".repeat(128), name, access: "ro" });
      expect(text.length).toBeGreaterThan(60_000);
    }),
  );

  test(
    "of a sealed region that a process bars is answered without a lease, and of an open one refused",
    withBroker(async ({ app, connect }) => {
      const client = await connect();
      const region = await app.create();
      const barring = openSync(region.storage.path, "r+");
      try {
        expect(tryWriteLock(barring, leaseByte, 1n)).toBeTrue();
        expect((await client.problem("attach", { region: region.id, access: "ro" })).code).toBe("region-busy");
        await app.seal(region.id);
        expect((await client.attach(region.id)).leased).toBeFalse();
      } finally {
        closeSync(barring);
      }
      expect((await client.attach(region.id)).leased).toBeTrue();
    }),
  );

  test(
    "needs no public name, and says of a region whose file is gone that it is lost",
    withBroker(async ({ app, connect }) => {
      const client = await connect();
      const region = await app.create();
      const keeper = `${app.shmDirectory}/tensord.${app.instance}/keep/${tokenOf(region.id)}`;
      renameSync(region.storage.path, `${region.storage.path}.away`);
      only(await client.attach(region.id));
      for (const path of [`${region.storage.path}.away`, keeper]) unlinkSync(path);
      await until("it is lost", async () => {
        // The watch may have linked it back before the keeper's link went.
        rmSync(region.storage.path, { force: true });
        return (
          (await client.ask("attach", { region: region.id, access: "ro" })).reply.problem?.code === "region-not-found"
        );
      });
    }),
  );

  for (const [what, members] of [
    ["neither region nor name", { access: "ro" }],
    ["both", { region: unknownRegion, name: "w", access: "ro" }],
    ["a model beside an id", { region: unknownRegion, model: "default", access: "ro" }],
    ["no access", { region: unknownRegion }],
    ["an access that is not known", { region: unknownRegion, access: "rwx" }],
    ["a lease that is not known", { region: unknownRegion, access: "ro", lease: "none" }],
    ["too many descriptors", { region: unknownRegion, access: "ro", count: limits.brokerDescriptors + 1 }],
    ["fewer than none", { region: unknownRegion, access: "ro", count: -1 }],
    ["a member that is not known", { region: unknownRegion, access: "ro", wait: 1 }],
  ] as const) {
    test(
      `with ${what} is refused, and the connection stays`,
      withBroker(async ({ connect }) => {
        const client = await connect();
        const { code, issues } = await client.problem("attach", members);
        expect([code, issues?.length]).toEqual(["validation-failed", 1]);
        expect((await client.problem("attach", { region: unknownRegion, access: "ro" })).code).toBe("region-not-found");
      }),
    );
  }

  test(
    "takes as many descriptors as a message may carry",
    withBroker(async ({ app, connect }) => {
      const client = await connect();
      const { id } = await app.create();
      const { descriptors } = await client.attach(id, { count: limits.brokerDescriptors, tensors: true });
      expect(descriptors.length).toBe(limits.brokerDescriptors + 1);
    }),
  );
});

test(
  "a server that stops answers nobody else, and closes",
  withBroker(async ({ app, connect }) => {
    const client = await connect();
    const { id } = await app.create();
    app.store.stop();
    expect((await client.problem("attach", { region: id, access: "ro" })).code).toBe("shutting-down");
  }),
);

test("the vectors of docs/protocol.md are taken, and answered as they stand there", async () => {
  const text = readFileSync(join(import.meta.dir, "../../docs/protocol.md"), "utf8");
  const section = text.slice(text.indexOf("### Test vectors"), text.indexOf("## Events"));
  const hello = Buffer.from(/^[0-9a-f]{54}$/m.exec(section)?.[0] ?? "", "hex");
  const requests = [...section.matchAll(/^\{"id":\d,"op".*\}$/gm)].map(([line]) => line);
  const refused = section.slice(section.indexOf("Refused, each"));
  const [closing = "", keeping = ""] = refused.split("Refused with `validation-failed`");
  const quoted = (part: string) => [...part.matchAll(/`(\{.*?\}|\[\])`/g)].map(([, vector = ""]) => vector);
  expect([hello.length, requests.length, quoted(closing).length, quoted(keeping).length]).toEqual([27, 9, 6, 3]);
  await withBroker(
    async ({ app, path }) => {
      using client = new BrokerClient(path);
      client.send(hello);
      const expected = `{"id":1,"ok":true,"v":1,"instance":"${app.instance}","epoch":${app.store.epoch}}`;
      expect((await client.answer()).text).toBe(expected);
      const { id } = await app.create({ name: "weights" });
      const { id: pool } = await makePool(app, { virtual_capacity: 2 ** 37, page_size: 2 ** 26 });
      await mapAt(app, 0, 2 ** 27);
      using asking = new BrokerClient(path);
      const beginnings = [
        '{"id":1,"ok":true,"v":1,"instance":',
        `{"id":2,"ok":true,"region":{"id":"${id}","model":"default","name":"weights",`,
        `{"id":3,"ok":true,"region":{"id":"${id}",`,
        '{"id":4,"ok":true}',
        '{"id":5,"ok":true}',
        `{"id":6,"ok":true,"pool":"${pool}","slot":0,"virtual_capacity":137438953472,"page_size":67108864,"sequence":"`,
        '{"id":7,"ok":true,"pages":[1,2],"gone":[],"fds":["handle","handle"]}',
        '{"id":8,"ok":true}',
        '{"id":9,"ok":true}',
      ];
      const fds = [undefined, ["region", "tensors"], ["region", "region"], undefined, undefined];
      fds.push(["slot", "runs"], ["handle", "handle"], undefined, undefined);
      const runs = /^5b5b[0-9a-f]+$/m.exec(section)?.[0] ?? "";
      for (const [index, request] of requests.entries()) {
        asking.send(
          request.replace("reg_abcdefghijklmnopqrstuvwxyz", id).replace("vmm_abcdefghijklmnopqrstuvwxyz", pool),
        );
        const { text: answer, reply, descriptors } = await asking.answer();
        expect(answer.slice(0, beginnings[index]?.length)).toBe(beginnings[index] ?? "");
        expect(reply.fds).toEqual(fds[index]);
        if (reply.runs_byte_size === undefined) continue;
        expect(readAll(descriptors[1] ?? -1, 17).toString("hex")).toBe(runs);
      }
      for (const vector of [...quoted(closing).filter((each) => !each.includes("…")), Buffer.of(0xff)]) {
        using closed = await BrokerClient.open(path);
        closed.send(vector);
        expect(await closed.closing()).toMatchObject({ id: null, ok: false, problem: { code: "malformed-body" } });
      }
      for (const vector of quoted(keeping)) {
        client.send(vector);
        expect((await client.answer()).reply).toMatchObject({
          id: 1,
          ok: false,
          problem: { code: "validation-failed" },
        });
      }
    },
    {},
    withPools,
  )();
});
