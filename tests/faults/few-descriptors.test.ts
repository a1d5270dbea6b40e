/**
 * A server that may open few files, and clients that take all of them: by connections that never ask, by requests that do not
 * end, and by those that stay for good reason. Everybody else is answered, and nothing is left open.
 */

import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import type { Diagnosis } from "../../src/memory/doctor/finding.ts";
import { limits, MiB } from "../../src/memory/limits.ts";
import type { ProblemBody } from "../../src/routes/schemas/problem.ts";
import { type Half, halves } from "../harness/half-open.ts";
import { root } from "../harness/instance-needs.ts";
import { deadlineMsOf, roundsOf } from "../harness/rounds.ts";
import { startServer, TestServer, withOpenFiles } from "../harness/server.ts";
import { NoAnswer, Refused } from "../harness/server-api.ts";
import { until, within } from "../harness/server-wait.ts";

const everyDoor = { TENSORD_PORT: "0", TENSORD_HEALTH_ADDRESS: "127.0.0.1:0" };

interface Doors {
  readonly server: TestServer;
  readonly url: string;
  readonly port: string;
  readonly probes: string;
  /** As the start told. */
  readonly connections: number;
}

/** A server with all its doors, that may open so many files. */
async function useServer(openFiles: number, use: (doors: Doors) => Promise<void>): Promise<void> {
  await using server = await startServer({ env: everyDoor, prefix: withOpenFiles(openFiles) });
  server.log.expect(/no file descriptor is free|every local user/);
  const url = await server.readUrl();
  const probes = String((await until("the log says where", () => server.log.find(/^probes on /))).msg).replace(
    "probes on ",
    "",
  );
  const room = await until("the log says how many fit", () => server.log.find(/connections fit at once/));
  await use({ server, url, port: new URL(url).port, probes, connections: Number(room.connections) });
}

function countOpen({ pid }: TestServer): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** Connects, and sends what is not a whole request; the socket is never ended by us. */
function openHalf(where: { port: number } | { path: string }, half: Half): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = connect({ host: "127.0.0.1", ...where }, () => socket.write(halves[half], () => resolve(socket)));
  socket.on("error", reject).resume();
  return promise.finally(() => socket.on("error", () => {}));
}

/** What everybody else asks meanwhile, by each door: each of it is answered well. */
async function askEverything({ server: { api }, url, probes }: Doors): Promise<void> {
  for (const base of [probes, url]) {
    const { status } = await asClientsDo(() => fetch(`${base}/livez`, { headers: { connection: "close" } }));
    expect(status).toBe(200);
  }
  const { findings } = await asClientsDo(() => api.call<Diagnosis>("GET", "/v1/doctor"));
  expect(findings.length).toBeGreaterThan(10);
  // Larger than what the event loop allocates by itself.
  const { id } = await asClientsDo(() => api.create({ byte_size: 2 * MiB, ttl_ms: 3_600_000 }));
  await asClientsDo(async () => {
    await api.delete(id).catch(passIfGone);
    return true;
  });
}

/** Asks again where the connection was closed before it was asked, or the answer is that of a moment. */
function asClientsDo<Value>(ask: () => Promise<Value>): Promise<Value> {
  return until("an answer", () =>
    ask().catch((error: unknown) => {
      const isMoment = error instanceof Refused && error.problem.code === "out-of-descriptors";
      const isCut = error instanceof NoAnswer || (error as { code?: string }).code === "ECONNRESET";
      if (isMoment || isCut) return undefined;
      throw error;
    }),
  ) as Promise<Value>;
}

/** A deletion whose answer was lost is one all the same. */
function passIfGone(error: unknown): void {
  if (!(error instanceof Refused) || error.problem.status !== 404) throw error;
}

describe("a server that may open 64 files", () => {
  test("is up, with its Workers, and tells how many connections fit, as its doctor does", async () => {
    await useServer(64, async (doors) => {
      const { server, connections } = doors;
      expect(connections).toBeGreaterThan(15);
      const before = countOpen(server);
      await askEverything(doors);
      const { findings } = await server.api.call<Diagnosis>("GET", "/v1/doctor");
      const { summary } = findings.find(({ check }) => check === "open-files") ?? {};
      expect(summary).toContain("may open 64 files");
      expect(summary).toContain(`${connections} connections fit at once`);
      // Neither the diagnosis nor the allocation opened anything for good, a Worker's poll say; what asked may be kept.
      await until("nothing of it is open", () => countOpen(server) <= before + 3);
    });
  });

  for (const half of ["head", "body"] as const) {
    test(`answers its first diagnosis and its first large allocation while 120 requests are half sent (${half})`, async () => {
      await useServer(64, async (doors) => {
        const taken = await Promise.all(
          Array.from({ length: 120 }, () => openHalf({ port: Number(doors.port) }, half)),
        );
        for (let round = 0; round < 5; round++) await askEverything(doors);
        await until("all that never asked were ended", () => taken.filter(({ closed }) => !closed).length <= 64);
        for (const socket of taken) socket.destroy();
      });
    });
  }

  test("refuses those who would stay, says so, and keeps those who do", async () => {
    await useServer(64, async ({ server, url, connections }) => {
      const followers: Response[] = [];
      const refused = await until("a follower is refused", async () => {
        const answer = await fetch(`${url}/v1/events`, { headers: { accept: "text/event-stream" } });
        if (answer.status !== 200) return answer;
        followers.push(answer);
        return undefined;
      });
      expect(followers.length).toBeGreaterThan(connections / 2);
      const problem = (await refused.json()) as ProblemBody;
      expect(problem).toMatchObject({ status: 507, code: "out-of-descriptors", limit: 64 });
      expect(problem.hint).toContain("ulimit -n");
      // A WebSocket, a wait, and bytes that a peer may take slowly would stay, too.
      const { id } = await server.api.create({ byte_size: 2 * MiB, ttl_ms: 3_600_000, name: "weights" });
      const handshake = { upgrade: "websocket", connection: "Upgrade", "sec-websocket-version": "13" };
      const key = { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" };
      for (const [path, headers] of [
        ["/v1/events/ws", { ...handshake, ...key }],
        ["/v1/models/default/regions/absent", { prefer: "wait=300" }],
        [`/v1/regions/${id}/data`, {}],
      ] as const) {
        const answer = await fetch(url + path, { headers });
        expect([path, answer.status, ((await answer.json()) as ProblemBody).code]).toEqual([
          path,
          507,
          "out-of-descriptors",
        ]);
      }
      // Those who followed before hear of what happened since.
      for (const follower of followers) {
        const reader = (follower.body as ReadableStream<Uint8Array>).getReader();
        let text = "";
        while (!text.includes(id)) text += new TextDecoder().decode((await within("an event", reader.read())).value);
        await reader.cancel();
      }
    });
  });
});

test("regions without a name take half of the descriptors at most, and say so", async () => {
  const openFiles = 200;
  await useServer(openFiles, async (doors) => {
    const { api } = doors.server;
    const make = (storage: "memfd" | "heap") => api.create({ storage, byte_size: 1, ttl_ms: 3_600_000 });
    const made: string[] = [];
    const refused = await until("one is refused", async () => {
      try {
        made.push((await make(made.length % 2 === 0 ? "memfd" : "heap")).id);
        return undefined;
      } catch (error) {
        return error as Refused;
      }
    });
    // Of those that are no spare ones.
    expect(made.length).toBeWithin(0.45 * openFiles, openFiles / 2 + 1);
    expect(refused.problem).toMatchObject({ status: 507, code: "out-of-descriptors", limit: openFiles });
    expect(refused.problem.detail).toContain(`${made.length} have a descriptor each`);
    // The other half is everybody else's.
    await askEverything(doors);
    await api.delete(made[0] ?? "");
    await make("memfd");
  });
});

test("a server for which fewer connections would fit than it needs does not start, and says what to raise", async () => {
  const server = new TestServer({ env: everyDoor, prefix: withOpenFiles(40) });
  server.spawn();
  expect(await server.exited()).toBe(1);
  const told = server.log.errors;
  expect(told).toMatch(/^tensord: Cannot serve: this process may open 40 files, \d+ are open already/);
  expect(told).toContain("ulimit -n");
  // What it had made on its way goes with the instance.
  expect(await server.command("purge")).toMatchObject({ status: 0 });
});

describe("while more wait at one door than ever fit", () => {
  for (const flooded of ["TCP", "the Unix socket"] as const) {
    test(`the other doors are answered, and the flooded one goes on (${flooded})`, async () => {
      await useServer(64, async ({ server, url, port, probes, connections }) => {
        const { socket } = server.instance;
        const doors = {
          TCP: () => fetch(`${url}/livez`, { headers }),
          "the Unix socket": () => fetch("http://localhost/livez", { unix: socket, headers }),
          "the health listener": () => fetch(`${probes}/livez`, { headers }),
        };
        // Each on a connection of its own, which has to be taken beside all that wait.
        const headers = { connection: "close" };
        const flood = startFlood("head", 1_000_000, 4 * connections, flooded === "TCP" ? port : socket);
        try {
          await until("all places are taken", () => countOpen(server) >= 64 - limits.spareDescriptors);
          const asked = Object.entries(doors).toSorted(([door]) => (door === flooded ? 1 : -1));
          for (const [door, ask] of asked) {
            for (let round = 0; round < 3; round++) {
              expect([door, (await asClientsDo(ask)).status]).toEqual([door, 200]);
            }
          }
          expect(flood.exitCode).toBeNull();
        } finally {
          flood.kill();
          await flood.exited;
        }
      });
    });
  }
});

/** Another process that opens `total` connections which never ask, and more until its input ends, `width` at once. */
function startFlood(half: Half, total: number, width: number, where: string) {
  const args = [half, String(total), String(width), where];
  return Bun.spawn([process.execPath, "tests/harness/half-open.ts", ...args], {
    cwd: root,
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
}

describe("connections by the thousand that never ask", () => {
  const total = roundsOf("half-open");
  const width = 400;
  const openFiles = 256;

  test(
    `others are answered beside ${total} of them, and nothing is left open`,
    async () => {
      await useServer(openFiles, async (doors) => {
        const { server, port } = doors;
        await askEverything(doors);
        await until("what asked is closed", () => countOpen(server) < openFiles / 4);
        const before = countOpen(server);
        const floods = [
          ["head", port],
          ["slow", port],
          ["body", port],
          ["head", server.instance.socket],
        ] as const;
        for (const [half, where] of floods) {
          const share = Math.ceil(total / floods.length);
          const flood = startFlood(half, share, width, where);
          // It goes on until others have been answered beside it, however slow they are.
          await until("it takes places", () => countOpen(server) > openFiles / 2);
          await askEverything(doors);
          flood.stdin.end();
          const isOver = flood.exited.then(() => true);
          while (!(await Promise.race([isOver, askEverything(doors).then(() => false)])));
          // The last of them, of which so many fit beside everybody else, it closes itself.
          expect(Number(await flood.stdout.text())).toBeGreaterThanOrEqual(share - width);
        }
        await until("nothing is left open", () => countOpen(server) <= before + 3);
      });
    },
    deadlineMsOf(total, 20),
  );
});
