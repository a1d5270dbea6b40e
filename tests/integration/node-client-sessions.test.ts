/** The Node client's session: opened when it is needed, held for as long as the process lives, and what it owns. */

import { afterAll, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { needsRoot, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import {
  NodeProgram,
  needsNodeClient,
  prelude,
  type Runtime,
  runProgram,
  runtimes,
  startProgram,
} from "../harness/node-program.ts";
import type { TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

afterAll(endLentServers);

interface SessionList {
  readonly items: readonly { readonly id: string; readonly held: boolean; readonly used_bytes: number }[];
}

async function sessions({ api }: TestServer) {
  return (await api.call<SessionList>("GET", "/v1/sessions")).items;
}

const gone = (server: TestServer) => until("no session is left", async () => (await sessions(server)).length === 0);

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const test = testWith(needsNodeClient);

  test(`${runtime}: a session has the name that the environment gives it, unless the program says one`, async () => {
    await using server = await lendServer();
    const named = await runProgram(
      runtime,
      { ...server.env, TENSORD_SESSION_NAME: "trainer-7d9f/app\u0007" },
      `
        const names = [];
        for (const session of [{}, { name: "mine" }]) {
          const client = await connect({ session });
          await client.create("w", new Uint8Array(1));
          const { name, client: { name: program } } = await client.session();
          names.push([name, program === "mine"]);
          await client.close();
        }
        tell(names);
      `,
    );
    expect(named).toEqual([
      ["trainer-7d9f/app\ufffd", false],
      ["mine", true],
    ]);
  });

  test(`${runtime}: SIGKILL ends the session at once, and what it owns`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect({ session: { name: "trainer", quotaBytes: 2 ** 20, ttlMs: 3_600_000 } });
        globalThis.region = await client.create("mine", new Uint8Array(4096));
        await client.create("lingers", new Uint8Array(1), { lingerMs: 600_000, evictable: true });
        tell([await client.session(), await codeOf(() => client.create("large", new Uint8Array(2 ** 21)))]);
        await receive();
      `,
    );
    const [session, tooLarge] = await program.hear<[Record<string, unknown>, string]>();
    expect(session).toMatchObject({ name: "trainer", held: true, regions: 1, quotaBytes: 2 ** 20, expiresAt: null });
    expect(session.client).toMatchObject({ name: "trainer", pid: program.pid });
    expect(tooLarge).toBe("session-quota-exceeded");
    expect((await server.api.findByName("lingers"))?.evictable).toBe(true);
    expect(await server.api.findByName("mine")).toMatchObject({ owner: { kind: "session", session: session.id } });
    await program.kill();
    // Its TTL is an hour: only the closed connection ends it before.
    await gone(server);
    await until("its region is gone", async () => (await server.api.findByName("mine")) === undefined);
    expect((await server.api.findByName("lingers"))?.owner).toEqual({
      kind: "linger",
      linger_ms: 600_000,
      handoff_ms: 60_000,
    });
  });

  testWith(needsNodeClient, needsRoot)(`${runtime}: the pid of a container is told as it is here`, async () => {
    await using server = await lendServer();
    const [command = "", ...args] = runtimes[runtime];
    const program = `${prelude}
      const client = await connect();
      globalThis.region = await client.create("mine", new Uint8Array(1));
      tell([process.pid, (await client.session()).client]);
      await receive();`;
    await using inside = new NodeProgram(["unshare", "-pf", "--mount-proc", command, ...args, program], server.env);
    const [pid, told] = await inside.hear<[number, Record<string, unknown>]>();
    const [child = ""] = readFileSync(`/proc/${inside.pid}/task/${inside.pid}/children`, "utf8").split(" ");
    expect(pid).toBe(1);
    expect(told).toMatchObject({ pid: Number(child), namespacePid: 1, pidNamespace: expect.stringMatching(/^pid:/) });
    // It is told a moment after the mapping.
    const list = async () => (await server.command("ls", "--holders")).stdout;
    await until("its process is named", async () => (await list()).includes(`pid ${child}`));
    process.kill(Number(child), "SIGKILL");
  });

  test(`${runtime}: a script of any name, and of any length, has a session`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        process.argv[1] = "/a\\u001b[2J\\n\\ud800" + "n".repeat(300);
        const client = await connect();
        await client.create("mine", new Uint8Array(1));
        tell((await client.session()).client.name);
        const named = await connect({ session: { name: "a\\u001b[2J" } });
        tell(await codeOf(() => named.create("other", new Uint8Array(1))));
      `,
    );
    expect(await program.hear()).toBe(`a\ufffd[2J\ufffd\ufffd${"n".repeat(249)}`);
    // Whoever chose the name is told.
    expect(await program.hear()).toBe("validation-failed");
  });

  test(`${runtime}: SIGSTOP does not end the session, however short its TTL`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect({ session: { ttlMs: 1_000 } });
        globalThis.region = await client.create("mine", new Uint8Array(4096));
        tell((await client.session()).id);
        await receive();
        tell((await client.session()).id);
      `,
    );
    const id = await program.hear<string>();
    await until("it is held", async () => (await sessions(server)).some(({ held }) => held));
    process.kill(program.pid, "SIGSTOP");
    // The clock: nobody holds it, and its TTL is the same and begins later.
    const clock = await server.api.call<{ readonly id: string }>("POST", "/v1/sessions", { ttl_ms: 1_000 });
    const ids = async () => (await sessions(server)).map((session) => session.id);
    expect((await ids()).toSorted()).toEqual([id, clock.id].toSorted());
    await until("more than its TTL is over", async () => !(await ids()).includes(clock.id));
    expect(await ids()).toEqual([id]);
    expect(await server.api.findByName("mine")).toMatchObject({ owner: { kind: "session", session: id } });
    process.kill(program.pid, "SIGCONT");
    await program.say("go on");
    expect(await program.hear()).toBe(id);
    await program.end();
  });

  test(`${runtime}: the hold keeps no process alive, and its end ends the session`, async () => {
    await using server = await lendServer();
    const id = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect({ session: { ttlMs: 3_600_000 } });
        await client.create("mine", new Uint8Array(4096));
        tell((await client.session()).id);
      `,
    );
    expect(id).toStartWith("ses_");
    await gone(server);
    expect(await server.api.findByName("mine")).toBeUndefined();
  });

  test(`${runtime}: what is mapped is reported, through seals, until the last array is collected`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const region = await client.create("seen", new Uint8Array(4096), { ttlMs: 600_000 });
        tell((await client.session()).id);
        await receive();
        await region.seal();
        const second = await client.attach("seen");
        const opened = client.open(region.tensor().ref());
        tell("sealed");
        await receive();
        const held = {};
        await (async () => { held.array = region.tensor().array("U8"); })();
        for (const mapped of [region, second, opened]) mapped.close();
        tell("closed");
        await receive();
        held.array = undefined;
        for (;;) {
          await collect();
          if ((await client.get("seen")).holders.length === 0) break;
        }
        tell("collected");
        await receive();
      `,
    );
    const session = await program.hear<string>();
    const holders = async (want: readonly object[]) => {
      await until(`the holders are ${JSON.stringify(want)}`, async () => {
        const region = await server.api.findByName("seen");
        const seen = region?.holders.map(({ client, ...holder }) => holder);
        return Bun.deepEquals(seen, want) && region?.unknown_holders === false;
      });
    };
    await holders([{ session, mappings: 1, writable: true }]);
    await program.say("seal");
    expect(await program.hear()).toBe("sealed");
    await holders([{ session, mappings: 3, writable: false }]);
    await program.say("close");
    expect(await program.hear()).toBe("closed");
    await holders([{ session, mappings: 1, writable: false }]);
    await program.say("collect");
    expect(await program.hear()).toBe("collected");
  });

  test(`${runtime}: a session survives restarts of the server, and tells again what it maps`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect(patient);
        globalThis.region = await client.create("survivor", new Uint8Array(4096).fill(7));
        tell((await client.session()).id);
        await receive();
        tell([(await client.session()).id, (await client.get("survivor")).owner.session]);
        await receive();
        const ended = await client.endSession();
        tell([ended, await client.endSession() === undefined, (await client.session()).id]);
        await receive();
      `,
    );
    const id = await program.hear<string>();
    for (const signal of ["SIGKILL", "SIGTERM"] as const) {
      await server.kill(signal);
      await server.start();
      await until("it is held again", async () => (await sessions(server)).some(({ held }) => held));
      const { holders } = await until("its mapping is told", async () => {
        const region = await server.api.findByName("survivor");
        return region?.holders.length === 1 && region;
      });
      expect(holders[0]).toMatchObject({ session: id, mappings: 1, writable: true });
    }
    await program.say("same");
    expect(await program.hear()).toEqual([id, id]);
    await program.say("end");
    const [ended, isOver, next] = await program.hear<[unknown, boolean, string]>();
    expect([ended, isOver]).toEqual([{ state: "draining", freedBytes: 0, regions: 1 }, true]);
    expect(next).not.toBe(id);
  });

  test(`${runtime}: a session that the server ended is followed by another`, async () => {
    await using server = await lendServer();
    await using program = startProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        tell((await client.session()).id);
        await receive();
        const region = await client.create("next", new Uint8Array(1));
        tell([region.descriptor.owner.session, (await client.getOrCreate("built", () => new Uint8Array(1))).isCreated]);
        await receive();
      `,
    );
    const id = await program.hear<string>();
    await server.api.call("DELETE", `/v1/sessions/${id}`);
    await program.say("go on");
    const [next, isCreated] = await program.hear<[string, boolean]>();
    expect([next === id, isCreated]).toEqual([false, true]);
    expect((await sessions(server)).map((session) => session.id)).toEqual([next]);
  });

  test(`${runtime}: a session is followed by another, also if its client has not heard yet that it ended`, async () => {
    await using server = await lendServer();
    const seen = await runProgram<[string, string]>(
      runtime,
      server.env,
      `
        const { execFileSync } = await import("node:child_process");
        const client = await connect();
        const { id } = await client.session();
        const end = "require('node:http').request({ socketPath: '${server.instance.socket}', method: 'DELETE', path: '/v1/sessions/" + id + "' }, (answer) => answer.resume()).end()";
        // Nothing that comes over the hold is read meanwhile.
        execFileSync(process.execPath, ["-e", end]);
        const region = await client.create("next", new Uint8Array(1));
        tell([id, region.descriptor.owner.session]);
        client.close();
      `,
    );
    expect(seen[1]).toBeString();
    expect(seen[1]).not.toBe(seen[0]);
  });

  test(`${runtime}: a client closes its session with itself, and one without any has none`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        await client.create("mine", new Uint8Array(1)).then((region) => region.close());
        await client[Symbol.asyncDispose]();
        const other = await connect({ session: false });
        const without = [await codeOf(() => other.session()), await codeOf(() => other.getOrCreate("x", () => new Uint8Array(1))), await codeOf(() => other.create("y", new Uint8Array(1)))];
        const region = await other.create("timed", new Uint8Array(1), { ttlMs: 60_000 });
        const after = { sessions: (await other.stats()).sessions, mine: await codeOf(() => other.get("mine")), holders: (await other.get("timed")).holders };
        const changed = await other.change(region, { lingerMs: 1_000, evictable: true });
        tell({ without, after, closed: await codeOf(() => client.session()), owner: changed.owner, evictable: changed.evictable });
      `,
    );
    expect(seen).toEqual({
      without: ["feature-unavailable", "feature-unavailable", "owner-required"],
      after: { sessions: 0, mine: "region-not-found", holders: [] },
      closed: "closed",
      owner: { kind: "linger", lingerMs: 1_000, handoffMs: 60_000 },
      evictable: true,
    });
  });

  test(`${runtime}: its events tell of sessions, and of one session's regions`, async () => {
    await using server = await lendServer();
    const seen = await runProgram(
      runtime,
      server.env,
      `
        const client = await connect();
        const other = await connect();
        const { id } = await client.session();
        await other.create("theirs", new Uint8Array(1));
        await client.create("ours", new Uint8Array(1)).then((region) => region.close());
        await client.endSession();
        const told = [];
        for await (const { type, data } of other.events({ session: id, after: "0" })) {
          if (type === "tensord.stream.gap") continue;
          told.push(type + " " + (data.name ?? data.reason ?? ""));
          if (type === "tensord.session.ended") break;
        }
        tell(told);
      `,
    );
    expect(seen).toContain("tensord.region.allocated ours");
    expect((seen as string[]).at(-1)).toBe("tensord.session.ended request");
    expect(String(seen)).not.toContain("theirs");
  });
}
