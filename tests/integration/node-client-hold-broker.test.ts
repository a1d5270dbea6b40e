/** A session that a connection to the broker holds, in the Node client: as a WebSocket would, and for who is known by a uid alone. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { listSessions } from "../harness/instance-sessions.ts";
import { needsNodeClient, type Runtime, runtimes, startProgram } from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { ServerApi } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { TokensPath, tokenOf } from "../harness/tokens-file.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await assertNothingLeft();
});

async function isHeld(api: ServerApi, name: string): Promise<boolean | undefined> {
  return (await listSessions(api)).find(({ client }) => client?.name === name)?.held;
}

const holdersOf = async (api: ServerApi, name: string) =>
  ((await api.findByName(name))?.holders ?? []).map(({ mappings, writable }) => ({ mappings, writable }));

/** Passes each request on as one that wishes for no upgrade, as a proxy may. */
function serveDeaf(unix: string) {
  const proxy = Bun.serve({
    port: 0,
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      const headers = new Headers(request.headers);
      for (const name of ["connection", "upgrade"]) headers.delete(name);
      const body = request.method === "GET" ? {} : { body: await request.arrayBuffer() };
      return await fetch(`http://localhost${pathname}${search}`, { unix, method: request.method, headers, ...body });
    },
  });
  return { url: proxy.url, [Symbol.asyncDispose]: () => proxy.stop(true) };
}

/** Of a server that wants a token. */
async function sessionsSeenBy(name: string, { instance }: TestServer): Promise<unknown[]> {
  const headers = { authorization: `Bearer ${tokenOf(name)}` };
  const response = await fetch("http://localhost/v1/sessions", { unix: instance.socket, headers });
  return ((await response.json()) as { items: unknown[] }).items;
}

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  testWith(needsNodeClient)(`on ${runtime} it is held, tells what is mapped, and ends with its process`, async () => {
    const name = `held-${runtime}`;
    await using program = startProgram(
      runtime,
      server.env,
      `const client = await connect({ session: { name: "${name}", hold: "broker" } });
       const region = await client.create("${name}", new Float32Array(4));
       tell((await client.session()).id);
       await receive();
       await region.seal();
       const more = await Promise.all(Array.from({ length: 300 }, () => client.attach("${name}")));
       tell(more.length);
       await receive();`,
    );
    const session = await program.hear();
    expect((await server.api.findByName(name))?.session).toBe(session as string);
    expect(await isHeld(server.api, name)).toBeTrue();
    const writing = [{ mappings: 1, writable: true }];
    await until("its maker is told of", async () => Bun.deepEquals(await holdersOf(server.api, name), writing));
    await program.say("go on");
    expect(await program.hear<number>()).toBe(300);
    const reading = [{ mappings: 301, writable: false }];
    await until("each mapping is told of", async () => Bun.deepEquals(await holdersOf(server.api, name), reading));
    await program.kill();
    await until("its session has ended", async () => (await isHeld(server.api, name)) === undefined);
    // Its connection ends before the last of its mappings does.
    await until("its region has, too", async () => (await server.api.findByName(name)) === undefined);
  });

  testWith(needsNodeClient)(`on ${runtime} it outlives restarts of the server, and lets its process end`, async () => {
    await using own = await startServer();
    await using program = startProgram(
      runtime,
      own.env,
      `const client = await connect({ ...patient, session: { name: "stays", hold: "broker" } });
       globalThis.region = await client.create("kept", new Float32Array(4));
       const { id } = await client.session();
       tell(id);
       await receive();
       tell((await client.session()).id === id);
       process.stdin.destroy();`,
    );
    const session = await program.hear();
    for (const signal of ["SIGKILL", "SIGTERM"] as const) {
      await own.kill(signal);
      await own.start();
      await until("it is held again", () => isHeld(own.api, "stays"));
      await until("what is mapped is told again", async () => (await holdersOf(own.api, "kept")).length === 1);
    }
    expect((await listSessions(own.api)).map(({ id }) => id)).toEqual([session as string]);
    await program.say("end");
    expect(await program.hear()).toBeTrue();
    await program.end();
    await until("its session has ended", async () => (await listSessions(own.api)).length === 0);
  });

  testWith(needsNodeClient)(`on ${runtime} who is known by a uid alone gets a token with its session`, async () => {
    using file = new TokensPath([
      { name: "ops", role: "admin", token: tokenOf("ops") },
      { name: "known", role: "worker", uids: [process.geteuid?.() ?? 0] },
    ]);
    await using own = await startServer({ env: { TENSORD_TOKENS_FILE: file.path } });
    await using program = startProgram(
      runtime,
      { ...own.env, TENSORD_TOKENS_FILE: "" },
      `const client = await connect({ ...patient, session: { name: "known" } });
       const found = [];
       // The first request is one that opens no session.
       for await (const region of client.list()) found.push(region);
       const region = await client.create("mine", new Float32Array([1, 2]));
       const events = client.events({ after: "0" })[Symbol.asyncIterator]();
       tell([found.length, (await events.next()).value.type]);
       await receive();
       tell((await client.get("mine")).createdBy);
       const other = await connect({ session: false });
       const strict = await connect({ session: { hold: "websocket" } });
       const wrong = await connect({ token: "x".repeat(32) });
       tell(await Promise.all([other, strict, wrong].map((each) => codeOf(() => each.create("a", new Float32Array(1), { persist: true })))));
       client.close();
       process.stdin.destroy();`,
    );
    expect(await program.hear()).toEqual([0, expect.stringMatching(/^tensord\./)]);
    await own.kill("SIGKILL");
    await own.start();
    await program.say("what was issued before the restart counts no more");
    expect(await program.hear()).toBe("known");
    expect(await program.hear()).toEqual(["unauthorized", "unauthorized", "unauthorized"]);
    await program.end();
    await until("its session has ended", async () => (await sessionsSeenBy("ops", own)).length === 0);
  });

  testWith(needsNodeClient)(`on ${runtime} the broker holds it where a proxy passes no upgrade on`, async () => {
    const name = `deaf-${runtime}`;
    const { socket: unix, broker } = server.instance;
    await using proxy = serveDeaf(unix);
    await using program = startProgram(
      runtime,
      { ...server.env, TENSORD_URL: proxy.url.href, TENSORD_BROKER_SOCKET: broker },
      `const client = await connect({ session: { name: "${name}" } });
       await client.create("${name}", new Float32Array(4));
       const strict = await connect({ retryMs: 0, session: { hold: "websocket" } });
       tell(await codeOf(() => strict.session()));
       strict.close();
       await receive();
       client.close();`,
    );
    expect(await program.hear()).toBe("server-unavailable");
    expect(await isHeld(server.api, name)).toBeTrue();
    await program.say("end");
    await program.end();
    await until("its session has ended", async () => (await isHeld(server.api, name)) === undefined);
  });

  testWith(needsNodeClient)(`on ${runtime} a broker that is not there is told of, with what to do`, async () => {
    const path = join(tmpdir(), `tensord-test-${server.instance.name}-${runtime}.sock`);
    await using own = await startServer({ env: { TENSORD_BROKER_SOCKET: path } });
    unlinkSync(path);
    await using program = startProgram(
      runtime,
      own.env,
      `const client = await connect({ session: { hold: "broker" } });
       tell(await codeOf(() => client.create("mine", new Float32Array(1))));
       tell(await codeOf(() => connect({ session: { hold: "pigeon" } })));
       process.stdin.destroy();`,
    );
    expect(await program.hear()).toBe("wrong-namespace");
    expect(await program.hear()).toBe("validation-failed");
    await program.end();
  });
}

test("neither client sends more reports in a message than the broker takes", async () => {
  const { limits } = await import("../../src/memory/limits.ts");
  const read = (path: string) => Bun.file(join(import.meta.dir, "../..", path)).text();
  expect(await read("clients/node/src/session/hold-broker.ts")).toContain(`maxReports = ${limits.brokerReports};`);
  expect(await read("clients/python/src/tensord/_session/broker_hold.py")).toContain(
    `MAX_REPORTS = ${limits.brokerReports}\n`,
  );
});
