/**
 * Processes that get a region's descriptor and cannot reach its name: of another mount namespace, of another user, of another PID
 * namespace. They are C programs over `clients/c/tensord.h`, which was written from docs/protocol.md.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BrokerClient } from "../harness/broker-client.ts";
import { CProgram, needsCompiler } from "../harness/c-program.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsRoot, testWith } from "../harness/instance-needs.ts";
import { listSessions } from "../harness/instance-sessions.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

const hour = 3_600_000;
const nobody = 65534;
const byteSize = 30_000;
/** Of bytes 1, 2, 3, 1, 2, 3 …, as the program writes them. */
const sum = byteSize * 2;
const told = `U8 [${byteSize}] sum of bytes ${sum}`;

const asNobody = (gid: number) => ["setpriv", `--reuid=${nobody}`, `--regid=${gid}`, "--clear-groups"];
/** Another mount namespace, in which the shared directory is an empty one. */
const inMountNamespace = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$@"', "sh"];
const inPidNamespace = ["unshare", "--pid", "--fork", "--kill-child"];
/** The same for who is not root. */
const inUserNamespace = ["unshare", "--user", "--map-root-user", ...inMountNamespace.slice(1)];
const needsUserNamespaces =
  Bun.which("unshare") !== null && Bun.spawnSync([...inUserNamespace, "true"]).exitCode === 0
    ? undefined
    : "needs user namespaces with a mount namespace in them";

let program: CProgram | undefined;
beforeAll(() => {
  if (needsCompiler === undefined) program = CProgram.compile("clients/c/example.c");
});
afterAll(() => {
  program?.[Symbol.dispose]();
  assertNothingLeft();
});

interface Parts {
  readonly server: TestServer;
  readonly program: CProgram;
  readonly socket: string;
}

/** A server whose broker listens outside of the shared directory, and a sealed region that the program has written. */
async function withServer(use: (parts: Parts) => Promise<void>): Promise<void> {
  if (program === undefined) throw new Error("nothing was compiled");
  const socket = join(program.folder, `${crypto.randomUUID().slice(0, 8)}.sock`);
  await using server = await startServer({ env: { TENSORD_BROKER_SOCKET: socket } });
  const { id } = await server.api.create({ name: "weights", byte_size: byteSize, persist: true });
  await using writer = program.run(["--write", "weights"], [], { TENSORD_BROKER_SOCKET: socket });
  expect(await writer.line()).toBe(told);
  expect((await server.api.problem("POST", `/v1/regions/${id}/seal`, {})).code).toBe("region-has-writers");
  expect(await writer.end()).toEqual({ status: 0, stderr: "" });
  await server.api.seal(id, { checksum: true });
  await use({ server, program, socket });
}

describe("a C program that has the broker's socket alone", () => {
  testWith(needsCompiler)(
    "finds a region by its name, reads its bytes, and is seen as its holder until it lets go",
    () =>
      withServer(async ({ server, program: reader, socket }) => {
        await using run = reader.run(["weights", "data"], [], { TENSORD_BROKER_SOCKET: socket });
        expect(await run.line()).toBe(told);
        const { id } = (await server.api.findByName("weights")) ?? { id: "" };
        expect(await server.api.get(id)).toMatchObject({
          in_use: true,
          holders: [{ client: { name: "example.c", pid: run.pid }, mappings: 1, writable: false }],
        });
        expect(await run.end()).toEqual({ status: 0, stderr: "" });
        await until("its session has ended with it", async () => (await listSessions(server.api)).length === 0);
        expect(await server.api.get(id)).toMatchObject({ in_use: false, holders: [] });
      }),
  );

  testWith(needsCompiler)("finds the socket beside the server's own, and in the instance's directory", async () => {
    await using server = await startServer();
    const { instance } = server;
    await server.api.create({ name: "weights", byte_size: 8, persist: true });
    for (const env of [
      { TENSORD_URL: `unix://${instance.socket}` },
      { TENSORD_INSTANCE: instance.name, TENSORD_SHM_DIR: instance.shmDirectory },
    ]) {
      await using run = (program as CProgram).run(["weights"], [], env);
      expect(await run.line()).toBe("U8 [8] sum of bytes 0");
    }
  });

  testWith(needsCompiler)("says what is wrong and what to do, in the server's words or its own", () =>
    withServer(async ({ program: reader, socket }) => {
      const env = { TENSORD_BROKER_SOCKET: socket };
      for (const [args, words] of [
        [["absent"], /^region-not-found: Cannot find region "absent" of model "default".*\nCreate it, or wait/],
        [["weights", "v"], /^tensor-not-found: Cannot find tensor v/],
        [["--write", "weights"], /^region-sealed: Cannot write to .* it is sealed, want open\nA seal is final/],
        [["weights", "data", "/nowhere"], /^io-error: Cannot connect to \/nowhere: No such file.*\nStart the server/],
        [["weights", "data", `/${"x".repeat(107)}`], /^io-error: Cannot connect: the socket's path is longer/],
        [["n".repeat(300)], /^validation-failed: /],
      ] as const) {
        await using run = reader.run(args, [], env);
        const { status, stderr } = await run.end();
        expect(stderr).toMatch(words);
        expect(status).toBe(1);
      }
      const limited = ["sh", "-c", 'ulimit -n 5 && exec "$0" "$@"'];
      await using run = reader.run(["weights"], limited, env);
      expect((await run.end()).stderr).toMatch(/^out-of-descriptors: .*\nClose files, or raise the limit/);
    }),
  );

  testWith(needsCompiler)("keeps its bytes over the server's death, and its lease", () =>
    withServer(async ({ server, program: reader, socket }) => {
      const { id } = (await server.api.findByName("weights")) ?? { id: "" };
      await using run = reader.run(["weights"], [], { TENSORD_BROKER_SOCKET: socket });
      expect(await run.line()).toBe(told);
      await server.crash();
      expect(await run.next()).toBe(told);
      // The connection is gone, and with it the report; the lock is the mapping's.
      expect(await server.api.get(id)).toMatchObject({ in_use: true, holders: [] });
      expect((await server.api.delete(id)).state).toBe("draining");
      expect(await run.next()).toBe(told);
      await run.kill();
      await server.api.untilGone(id);
    }),
  );

  testWith(needsCompiler)("that is killed takes its session with it, and its lease", () =>
    withServer(async ({ server, program: reader, socket }) => {
      const { id } = (await server.api.findByName("weights")) ?? { id: "" };
      await using run = reader.run(["weights"], [], { TENSORD_BROKER_SOCKET: socket });
      expect(await run.line()).toBe(told);
      await run.kill();
      await until("its session has ended", async () => (await listSessions(server.api)).length === 0);
      expect(await server.api.get(id)).toMatchObject({ in_use: false, holders: [] });
    }),
  );
});

describe("attach works", () => {
  const places = {
    "in another mount namespace": [needsRoot, inMountNamespace],
    "in a PID namespace of its own": [needsRoot, [...inMountNamespace, ...inPidNamespace]],
    "under another user, in the server's group": [needsRoot, asNobody(process.getgid?.() ?? 0)],
    "under another user, in other mount and PID namespaces": [
      needsRoot,
      [...inMountNamespace, ...inPidNamespace, ...asNobody(process.getgid?.() ?? 0)],
    ],
    "in a user namespace, as root of that": [needsUserNamespaces, inUserNamespace],
  } as const;
  const entries = Object.entries(places);

  testWith(needsCompiler, needsRoot ?? needsUserNamespaces)("where the name cannot be reached", () =>
    withServer(async ({ server, program: reader, socket }) => {
      const region = await server.api.findByName("weights");
      const path = region?.storage.path ?? "";
      for (const [place, [need, prefix]] of entries) {
        if (need !== undefined) continue;
        const isElsewhere = place.includes("namespace");
        expect(Bun.spawnSync([...prefix, "test", "-e", path]).exitCode, place).toBe(isElsewhere ? 1 : 0);
        await using run = reader.run(["weights"], prefix, { TENSORD_BROKER_SOCKET: socket });
        expect(await run.line(), place).toBe(told);
        const { holders, in_use: inUse } = await server.api.get(region?.id ?? "");
        expect(inUse, place).toBeTrue();
        // The kernel translates the PID: it is the process's own here, whatever it is called there.
        const [pid] = holders.map(({ client }) => client?.pid);
        expect(readFileSync(`/proc/${pid}/cmdline`, "utf8"), place).toContain(reader.path);
        expect((await run.end()).status, place).toBe(0);
      }
      expect(entries.length).toBe(5);
    }),
  );

  testWith(needsCompiler, needsRoot)("for nobody outside of the server's group, and says whom to be", () =>
    withServer(async ({ program: reader, socket }) => {
      await using run = reader.run(["weights"], asNobody(nobody), { TENSORD_BROKER_SOCKET: socket });
      const { status, stderr } = await run.end();
      expect(stderr).toMatch(/^io-error: Cannot connect to .*: Permission denied\n.*be in its group\.\n$/);
      expect(status).toBe(1);
    }),
  );
});

test("a server under another TENSORD_SOCKET has its broker beside that, and capabilities say where", async () => {
  using folder = new DisposableStack();
  const place = folder.adopt(mkdtempSync(join(tmpdir(), "tensord-")), (path) => rmSync(path, { recursive: true }));
  await using server = await startServer({ env: { TENSORD_SOCKET: join(place, "a.sock") } });
  const { broker } = await server.api.call<{ broker: { path: string; v: number } }>("GET", "/v1/capabilities");
  expect(broker).toEqual({ path: join(place, "a.sock.broker"), v: 1 });
  using client = await BrokerClient.open(broker.path);
  const { id } = await server.api.create({ byte_size: 100, ttl_ms: hour });
  expect((await client.attach(id)).descriptors.length).toBe(1);
  await server.stop();
  expect(readdirSync(place)).toEqual([]);
  await server.start();
});
