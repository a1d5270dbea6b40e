/**
 * The fd holder, a real process: what it keeps is there again after its server was killed, it serves nobody but the owner of
 * the instance's lock, it keeps nothing that it should not, and it does not outstay its time.
 */

import { afterAll, expect, test } from "bun:test";
import { closeSync, mkdirSync, openSync, readFileSync, readlinkSync, rmSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { limits } from "../../src/memory/limits.ts";
import { tryLockFile } from "../../src/memory/os/libc.ts";
import {
  acceptConnection,
  connectForMessages,
  listenForMessages,
  receiveMessage,
  sendMessage,
} from "../../src/memory/os/libc-unix.ts";
import { findHolder } from "../../src/memory/storage/fd-holder/holder-connection.ts";
import { holderSteps } from "../../src/memory/storage/fd-holder/steps.ts";
import { InstanceDirectory } from "../../src/memory/storage/instance-directory.ts";
import { HolderPlayground, type HolderStatus, type KeepingServer } from "../harness/holder-process.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { descriptorsOf } from "../harness/open-files.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

/** Whether somebody has the instance's lock; only looks. */
function isLocked({ instance }: HolderPlayground): boolean {
  const fd = openSync(join(instance.directory, "lock"), "r+");
  try {
    return !tryLockFile(fd);
  } finally {
    closeSync(fd);
  }
}

/** Speaks to the fd holder without a client's help. */
class Stranger implements Disposable {
  readonly #socket: number;

  constructor({ instance }: HolderPlayground) {
    const socket = connectForMessages(join(instance.directory, "fd-holder.sock"));
    if (socket === undefined) throw new Error("no fd holder listens");
    this.#socket = socket;
  }

  /** @returns the answer, or "end" if the connection was closed. */
  ask(text: string, fds: readonly number[] = []): Promise<unknown> {
    sendMessage(this.#socket, text, fds);
    return until(`an answer to ${text.slice(0, 60)}`, () => {
      const message = receiveMessage(this.#socket, 1);
      if (message === undefined) return undefined;
      if (message === "gone" || message.bytes.length === 0) return "end";
      return { ...JSON.parse(message.bytes.toString()), fds: message.descriptors.length };
    });
  }

  [Symbol.dispose](): void {
    closeSync(this.#socket);
  }
}

/** As many connections as fit into the queue, once there is room for them. */
async function crowd(place: HolderPlayground): Promise<Stranger[]> {
  const connect = () => {
    try {
      return new Stranger(place);
    } catch {
      return undefined;
    }
  };
  const strangers: Stranger[] = [];
  while (strangers.length < limits.holderConnections)
    strangers.push(await until("there is room in the queue", connect));
  return strangers;
}

async function keepSome(server: KeepingServer, ...tokens: string[]): Promise<void> {
  for (const token of tokens) await server.ask("keep", token);
}

/** Takes back everything as the next server does, and says what it is. */
async function takeAll(server: KeepingServer): Promise<Record<string, string>> {
  const tokens = await server.ask<string[]>("list");
  const entries: [string, string][] = [];
  for (const token of tokens) entries.push([token, await server.ask<string>("give", token)]);
  return Object.fromEntries(entries);
}

test("what was kept is there again after a crash, byte by byte; what was dropped is not", async () => {
  await using place = new HolderPlayground();
  const first = await place.start();
  expect(place.holders(), "none is started before it is needed").toEqual([]);
  await keepSome(first, "one", "two", "three");
  await first.ask("drop", "two");
  await first.kill();
  const second = await place.start();
  expect(await takeAll(second)).toEqual({ one: "one", three: "three" });
  await keepSome(second, "four");
  await second.kill();
  const third = await place.start();
  expect(await takeAll(third)).toEqual({ one: "one", three: "three", four: "four" });
});

test("it is a process apart: another session, no file, pipe or socket of the server's, no environment, no directory", async () => {
  await using place = new HolderPlayground();
  // Descriptors that do not close on exec, as a server may be given some.
  const prefix = ["sh", "-c", 'exec 8</etc/passwd 9>/dev/null && exec "$0" "$@"'];
  const server = await place.start({ prefix, env: { TEST_SECRET: "secret" } });
  await keepSome(server, "one");
  const pid = place.holder();
  expect(descriptorsOf(server.pid)).toContain("/etc/passwd");
  const kinds = descriptorsOf(pid).map((name) => name.replace(/\[?\d+\]?$/, "").replace(/^.*-one \(deleted\)$/, "one"));
  expect(kinds.sort()).toEqual(
    [
      "/dev/null",
      "/dev/null",
      "/dev/null",
      "anon_inode:[eventfd]",
      "anon_inode:[eventpoll]",
      "anon_inode:[eventpoll]",
      "one",
      "pipe:",
      "socket:",
      "socket:",
    ].sort(),
  );
  const [, , , session] = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  expect(session).toBe(String(pid));
  expect(readFileSync(`/proc/${pid}/environ`, "utf8")).not.toContain("secret");
  expect(readlinkSync(`/proc/${pid}/cwd`)).toBe("/");
  expect(statSync(join(place.instance.directory, "fd-holder.sock")).mode & 0o777).toBe(0o600);
});

test("it outlives the signals of its server's process group", async () => {
  await using place = new HolderPlayground();
  for (const signal of ["SIGHUP", "SIGTERM"] as const) {
    const server = await place.start();
    await server.ask("keep", signal.toLowerCase());
    process.kill(-server.pid, signal);
    expect(await server.exited()).toBe(signal);
  }
  const last = await place.start();
  expect(Object.keys(await takeAll(last))).toEqual(["sighup", "sigterm"]);
});

test("it outlives a server that is made to end all that it started, by a signal and in order", async () => {
  for (const end of ["signal", "order"] as const) {
    // A place for each: an fd holder that an earlier server left behind is not below the next one.
    await using place = new HolderPlayground();
    // As `npm start` runs the server.
    const server = await place.start({ flags: ["--no-orphans"] });
    await server.ask("keep", "one");
    const holder = place.holder();
    if (end === "signal") await server.kill("SIGTERM");
    else await server.stop();
    const next = await place.start();
    expect(await takeAll(next), end).toEqual({ one: "one" });
    expect(place.holder(), end).toBe(holder);
  }
});

for (const step of holderSteps) {
  test(`a server killed after ${step} leaves its lock to the next one, and what was acknowledged`, async () => {
    await using place = new HolderPlayground();
    const first = await place.start();
    const isFirst = step === "holder.started" || step === "holder.lock-sent" || step === "holder.owned";
    if (!isFirst) await keepSome(first, "kept", "dropped");
    await first.kill();
    const doomed = await place.start({ env: { TEST_KILL_STEP: step } });
    if (step === "holder.dropped") await doomed.ask("give", "dropped");
    doomed.tell(step === "holder.dropped" ? "drop" : "keep", step === "holder.dropped" ? "dropped" : "new");
    expect(await doomed.exited()).toBe("SIGKILL");
    const next = await place.start();
    const left = Object.keys(await takeAll(next));
    if (isFirst) expect(left).toEqual([]);
    else expect(left).toEqual(step === "holder.dropped" ? ["kept"] : ["dropped", "kept", "new"]);
    await keepSome(next, "after");
    expect(await next.ask<string[]>("list")).toContain("after");
  });
}

test("a lock that its fd holder has not read lives on after the server, and the next one gets it as soon as it is read", async () => {
  await using place = new HolderPlayground();
  const first = await place.start();
  await keepSome(first, "one");
  first.tell("dieWithLockUnread");
  expect(await first.exited()).toBe("SIGKILL");
  const holder = place.holder();
  expect(isLocked(place), "the copy in the socket owns the lock").toBeTrue();
  const next = place.spawn();
  process.kill(holder, "SIGCONT");
  await next.ready();
  expect(await takeAll(next)).toEqual({ one: "one" });
  expect(place.holder()).toBe(holder);
});

test("where the fd holder stays stopped, a start says which process has the lock and what to do", async () => {
  await using place = new HolderPlayground();
  const first = await place.start();
  await keepSome(first, "one");
  first.tell("dieWithLockUnread");
  await first.exited();
  const { name, shmDirectory } = place.instance;
  expect(() => InstanceDirectory.open({ instance: name, shmDirectory })).toThrow(
    `Cannot use instance ${name}: its server, pid ${first.pid}, is gone, but not its lock, which the fd holder, pid ${place.holder()}, has not read yet`,
  );
});

test("one that is stopped is told of by its process, and keeps nothing that nobody waits for when it goes on", async () => {
  await using place = new HolderPlayground();
  const server = await place.start();
  await keepSome(server, "one");
  const holder = place.holder();
  process.kill(holder, "SIGSTOP");
  await expect(server.ask("keep", "two")).rejects.toThrow(`process ${holder} did not answer in time`);
  process.kill(holder, "SIGCONT");
  await until("what it took late is dropped", async () => String(await server.ask("list")) === "one");
  expect(place.holder()).toBe(holder);
});

test("an fd holder that is killed is replaced at once, and the new one has everything", async () => {
  await using place = new HolderPlayground();
  const server = await place.start();
  await keepSome(server, "one", "two");
  const killed = place.holder();
  process.kill(killed, "SIGKILL");
  const { pid } = await until("another has everything", async () => {
    const status = await server.ask<HolderStatus | null>("status");
    return status !== null && status.pid !== killed && status.descriptors === 2 ? status : undefined;
  });
  expect(pid).toBe(place.holder());
  expect(server.warnings).toEqual([`The fd holder, process ${killed}, ended; a new one is started for 2 descriptors`]);
  await keepSome(server, "three");
  await server.kill();
  const next = await place.start();
  expect(await takeAll(next)).toEqual({ one: "one", two: "two", three: "three" });
});

test("server and fd holder killed together lose everything, and the next server is told of nothing", async () => {
  await using place = new HolderPlayground();
  const server = await place.start();
  await keepSome(server, "one");
  const holder = place.holder();
  process.kill(server.pid, "SIGSTOP");
  process.kill(holder, "SIGKILL");
  await server.kill();
  const next = await place.start();
  expect(await next.ask<string[]>("list")).toEqual([]);
  await keepSome(next, "two");
});

test("it ends at once when it holds nothing and its server is gone, however that went", async () => {
  await using place = new HolderPlayground();
  for (const end of ["kill", "stop"] as const) {
    const server = await place.start();
    await keepSome(server, "one");
    await server.ask("drop", "one");
    expect(place.holders()).toHaveLength(1);
    await server[end]();
    await place.noHolder();
  }
});

test("without a server it frees everything when its time is over, and ends; who only looks does not prolong it", async () => {
  await using place = new HolderPlayground();
  const first = await place.start();
  await keepSome(first, "one");
  await first.kill();
  expect(place.holders()).toHaveLength(1);
  // The time of the server that was last there counts.
  const second = await place.start({ env: { TEST_TTL_MS: "3000" } });
  expect(await second.ask<string[]>("list")).toEqual(["one"]);
  expect(place.holders()).toHaveLength(1);
  await second.kill();
  const looker = await place.start({ env: { TEST_TTL_MS: "" } });
  await looker.ask("list");
  await looker.kill();
  await place.noHolder();
});

test("it serves only who shows the descriptor that owns the lock, and closes what it was shown", async () => {
  await using place = new HolderPlayground();
  const server = await place.start();
  await keepSome(server, "one");
  const holder = place.holder();
  const before = descriptorsOf(holder).length;
  const lock = openSync(join(place.instance.directory, "lock"), "r+");
  const readOnly = openSync(join(place.instance.directory, "lock"), "r");
  const another = openSync("/dev/null", "r+");
  try {
    using stranger = new Stranger(place);
    const refusal = { ok: false, problem: "not-owner" };
    expect(await stranger.ask('{"id":1,"op":"hello","v":7}')).toMatchObject({
      ok: true,
      v: 1,
      pid: holder,
      descriptors: 1,
    });
    for (const op of ['"list","after":""', '"give","token":"one"', '"drop","token":"one"', '"end"'])
      expect(await stranger.ask(`{"id":2,"op":${op}}`)).toMatchObject({ id: 2, ...refusal, fds: 0 });
    expect(await stranger.ask('{"id":3,"op":"keep","token":"two"}', [another])).toMatchObject(refusal);
    for (const fd of [lock, readOnly, another]) {
      expect(await stranger.ask('{"id":4,"op":"own","ttl_ms":1}', [fd])).toMatchObject(refusal);
    }
    expect(await stranger.ask('{"id":5,"op":"own","ttl_ms":1}')).toMatchObject({ ok: false, problem: "no-descriptor" });
    // One more for the connection itself.
    expect(descriptorsOf(holder).length).toBe(before + 1);
  } finally {
    for (const fd of [lock, readOnly, another]) closeSync(fd);
  }
  expect(await server.ask<string[]>("list")).toEqual(["one"]);
});

test("an fd holder whose version nobody here speaks is told of, and not taken for none", async () => {
  await using place = new HolderPlayground();
  mkdirSync(place.instance.directory);
  const path = join(place.instance.directory, "fd-holder.sock");
  const listener = listenForMessages(path, 1);
  try {
    const finding = findHolder({ holderPath: path, isHolderManaged: false });
    const socket = await until("it connects", () => acceptConnection(listener));
    const hello = await until("it says hello", () => receiveMessage(socket, 1));
    if (hello === "gone") throw new Error("it is gone");
    expect(JSON.parse(hello.bytes.toString())).toEqual({ id: 1, op: "hello", v: 1 });
    const [bell = -1] = hello.descriptors;
    sendMessage(socket, JSON.stringify({ id: 1, ok: true, v: 2, pid: 4711, descriptors: 3, age_ms: 0 }));
    writeSync(bell, "!");
    await expect(finding).rejects.toThrow("Cannot speak to the fd holder, process 4711: its protocol is version 2");
    for (const fd of [bell, socket]) closeSync(fd);
  } finally {
    closeSync(listener);
  }
});

test("a message that is none ends its own connection only", async () => {
  await using place = new HolderPlayground();
  const server = await place.start();
  await keepSome(server, "one");
  for (const text of [
    "{",
    "[]",
    "null",
    '{"id":1}',
    '{"id":-1,"op":"end"}',
    '{"id":1,"op":"hello"}',
    '{"id":1,"op":"keep","token":"../x"}',
    "x".repeat(60_000),
  ]) {
    using stranger = new Stranger(place);
    expect(await stranger.ask(text, [0]), text.slice(0, 40)).toBe("end");
  }
  // As many as wait at once, twice: more than there may be.
  const many = [await crowd(place), await crowd(place)].flat();
  for (const stranger of many) stranger[Symbol.dispose]();
  expect(await server.ask<string[]>("list")).toEqual(["one"]);
  expect((await server.ask<HolderStatus>("status")).descriptors).toBe(1);
});

test("as many as it takes who connect and say nothing keep no server from what is kept", async () => {
  await using place = new HolderPlayground();
  const first = await place.start();
  await keepSome(first, "one");
  await first.kill();
  const silent = await crowd(place);
  try {
    const next = await place.start();
    expect(await takeAll(next)).toEqual({ one: "one" });
  } finally {
    for (const stranger of silent) stranger[Symbol.dispose]();
  }
});

test("more tokens than an answer takes are listed all the same", async () => {
  await using place = new HolderPlayground();
  const server = await place.start();
  const tokens = Array.from({ length: 1203 }, (_, index) => `token-${String(index).padStart(5, "0")}`);
  await server.ask("keepMany", String(tokens.length));
  expect(await server.ask<string[]>("list")).toEqual(tokens);
  await server.kill();
  const next = await place.start();
  expect(await next.ask<string[]>("list")).toEqual(tokens);
});

test("a removed lock file makes another lock: the fd holder of the old one is left to its time, and that is told", async () => {
  await using place = new HolderPlayground();
  const first = await place.start();
  await keepSome(first, "one");
  const holder = place.holder();
  await first.kill();
  rmSync(join(place.instance.directory, "lock"));
  const next = await place.start();
  expect(await next.ask<string[]>("list")).toEqual([]);
  expect(next.warnings[0]).toStartWith(
    `The fd holder, process ${holder}, keeps 1 descriptors for a server with another`,
  );
  await keepSome(next, "two");
  expect(await next.ask<string[]>("list")).toEqual(["two"]);
  expect(place.holders()).toHaveLength(2);
});
