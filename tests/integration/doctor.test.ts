/**
 * `tensord doctor` against the traps themselves: each is made on this machine, seen by its finding, and gone with its cure.
 * What cannot be made here (a GPU, swap in use) is judged from facts in tests/unit.
 */

import { afterAll, expect } from "bun:test";
import { chmodSync, chownSync, mkdirSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Diagnosis, Finding } from "../../src/memory/doctor/finding.ts";
import { assertNothingLeft, createInstance, type Instance } from "../harness/instance.ts";
import {
  needsReadableCheckout,
  needsRoot,
  needsUserNamespaces,
  testWith,
  withoutInotify,
} from "../harness/instance-needs.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { runTensord } from "../harness/server-command.ts";
import { until } from "../harness/server-wait.ts";

const MiB = 2 ** 20;
const nobody = 65_534;

afterAll(assertNothingLeft);

interface Told {
  readonly status: number;
  readonly ok: boolean;
  readonly of: (check: string) => Finding;
}

function toTold({ status, stdout, stderr }: { status: number; stdout: string; stderr: string }): Told {
  expect(stderr).toBe("");
  const { ok, findings } = JSON.parse(stdout) as Diagnosis;
  expect(status).toBe(ok ? 0 : 1);
  const of = (check: string) => {
    const finding = findings.find((one) => one.check === check);
    if (finding === undefined) throw new Error(`no finding of ${check}: ${stdout}`);
    return finding;
  };
  return { status, ok, of };
}

/** A running server's own diagnosis, through the command line. */
async function diagnose(server: TestServer): Promise<Told> {
  const told = toTold(await server.command("doctor", "--json"));
  expect(told.of("server").summary).toContain(`answers, pid ${server.pid}`);
  return told;
}

/** The diagnosis of an instance whose server does not run. */
async function lookAt(
  { name, shmDirectory }: Pick<Instance, "name" | "shmDirectory">,
  prefix: string[] = [],
): Promise<Told> {
  const env = { TENSORD_INSTANCE: name, TENSORD_SHM_DIR: shmDirectory };
  const told = toTold(await runTensord(["doctor", "--json"], env, prefix));
  expect(told.of("server").summary).toContain(`No server answers for instance ${name}`);
  return told;
}

/** A shell that does `setUp` first, and then becomes the server. */
const after = (setUp: string) => ["sh", "-c", `${setUp} && exec "$@"`, "sh"];

testWith()("doctor prints each finding with a mark and a sentence, and its cure below it", async () => {
  // Where others share memory, one of them may be what it finds an error in.
  using tmpfs = needsRoot === undefined ? new Tmpfs({ sizeBytes: 4096 * MiB }) : undefined;
  const place = tmpfs && { shmDirectory: tmpfs.path };
  await using server = await startServer({ env: { TENSORD_PORT: "0" }, ...place });
  const { stdout, status } = await server.command("doctor");
  expect(status).toBe(0);
  expect(stdout).toMatch(
    /^ok {7}server: The server of instance .+ answers, pid \d+, on unix:\/\/.+ and http:\/\/127\.0\.0\.1:\d+\.$/m,
  );
  expect(stdout).toMatch(
    /^WARNING {2}loopback-tcp: Every local user can reach .+\.\n {9}cure: Set TENSORD_PORT empty, .+\.$/m,
  );
  expect(stdout).toMatch(/\n\n0 errors, \d+ warnings?, \d+ fine\n$/);
  await using socket = await startServer(place);
  expect((await diagnose(socket)).of("loopback-tcp").status).toBe("ok");
});

testWith()("where no server answers doctor looks by itself, says so, and makes nothing", async () => {
  const instance = createInstance();
  const told = await lookAt(instance);
  expect(told.of("server")).toMatchObject({ status: "warning", cure: expect.stringContaining("npm start") });
  expect(told.of("instance-directory").summary).toContain("is not there");
});

testWith()("a server that holds its instance and is not found at its socket is an error", async () => {
  const socket = join(tmpdir(), `tensord-${crypto.randomUUID().slice(0, 8)}.sock`);
  await using server = await startServer({ env: { TENSORD_SOCKET: socket } });
  const env = { TENSORD_INSTANCE: server.instance.name };
  const told = toTold(await runTensord(["doctor", "--json"], env));
  expect(told.of("server")).toMatchObject({
    status: "error",
    summary: expect.stringContaining(
      `A server runs on instance ${server.instance.name}, pid ${server.pid}, and does not`,
    ),
  });
});

testWith(needsRoot)("where no server can start for want of memory doctor says what to enlarge", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 8 * MiB });
  const instance = createInstance(tmpfs.path);
  const env = { TENSORD_INSTANCE: instance.name, TENSORD_SHM_DIR: tmpfs.path, TENSORD_PORT: "" };
  expect((await runTensord(["serve"], env)).status).toBe(1);
  const told = await lookAt(instance);
  expect(told.ok).toBeFalse();
  expect(told.of("pool-limit")).toMatchObject({
    status: "error",
    summary: expect.stringContaining("Cannot start the pool"),
  });
  expect(told.of("pool-limit").cure).toContain("--shm-size");
});

testWith(needsRoot)("a container's 64 MiB are told with how to get more, by a server and without one", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
  const want = { status: "error", summary: expect.stringContaining("64 MiB in all: a container's default") };
  expect((await lookAt(createInstance(tmpfs.path))).of("shm-size")).toMatchObject(want);
  await using server = await startServer({ shmDirectory: tmpfs.path });
  const told = await diagnose(server);
  expect(told.of("shm-size")).toMatchObject(want);
  expect(told.of("shm-size").cure).toContain("--shm-size=8g");
  expect(told.status).toBe(1);
});

testWith()("a shared directory that is missing, and one that is on a disk", async () => {
  const path = join(tmpdir(), `tensord-${crypto.randomUUID().slice(0, 8)}`);
  const instance = createInstance(path);
  expect((await lookAt(instance)).of("shm-file-system")).toMatchObject({
    status: "error",
    summary: `${path} cannot be opened: ENOENT.`,
  });
  mkdirSync(path);
  const { status, summary, cure } = (await lookAt(instance)).of("shm-file-system");
  rmdirSync(path);
  expect([status, summary]).toEqual(["warning", expect.stringContaining("and not on a tmpfs")]);
  expect(cure).toContain("Mount a tmpfs there");
});

testWith(needsRoot)("a shared directory without its sticky bit, as Kubernetes makes one", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
  await using server = await startServer({ shmDirectory: tmpfs.path });
  expect((await diagnose(server)).of("sticky-bit").status).toBe("ok");
  chmodSync(tmpfs.path, 0o777);
  const finding = (await diagnose(server)).of("sticky-bit");
  expect(finding).toMatchObject({ status: "warning", cure: expect.stringContaining(`chmod +t ${tmpfs.path}`) });
  chmodSync(tmpfs.path, 0o1777);
  expect((await diagnose(server)).of("sticky-bit").status).toBe("ok");
});

testWith(needsRoot)("files of others, by size and uid, in folders too", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
  await using server = await startServer({ shmDirectory: tmpfs.path });
  await server.api.create({ byte_size: 8 * MiB, ttl_ms: 60_000 });
  expect((await diagnose(server)).of("foreign-files").summary).toBe(`${tmpfs.path} has no files of others.`);
  mkdirSync(join(tmpfs.path, "torch"));
  const made = [tmpfs.occupy("torch/large", 8 * MiB), tmpfs.occupy("psm_small", MiB)];
  chownSync(made[0] ?? "", nobody, nobody);
  for (let count = 0; count < 12; count++) made.push(tmpfs.occupy(`tiny-${count}`, 4096));
  const { status, summary, cure } = (await diagnose(server)).of("foreign-files");
  expect(status).toBe("warning");
  expect(summary).toStartWith(
    `9.05 MiB of ${tmpfs.path} are in 14 files of others: uid ${nobody} 8 MiB in 1 file; uid 0 1.05 MiB in 13 files. ` +
      `The largest: ${made[0]} (8 MiB, uid ${nobody}); ${made[1]} (1 MiB, uid 0); `,
  );
  expect(summary.match(/tiny-\d/g)).toHaveLength(8);
  expect(cure).toContain("fuser");
  for (const path of made) rmSync(path);
  expect((await diagnose(server)).of("foreign-files").status).toBe("ok");
});

testWith(needsRoot)("another instance in the same directory, with its server and without", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
  await using server = await startServer({ shmDirectory: tmpfs.path });
  await using other = await startServer({ shmDirectory: tmpfs.path });
  await other.api.create({ name: "kept", byte_size: 3 * MiB, persist: true });
  const { name } = other.instance;
  expect((await diagnose(server)).of("other-instances")).toMatchObject({
    status: "ok",
    summary: `1 other instance: ${name} of uid 0 with 1 region (3 MiB), its server runs (pid ${other.pid}).`,
  });
  await other.kill("SIGKILL");
  expect((await diagnose(server)).of("other-instances")).toMatchObject({
    status: "warning",
    summary: expect.stringContaining("its server does not run"),
    cure: expect.stringContaining(`tensord purge --instance ${name}`),
  });
  // What belongs to another instance is none of the foreign files.
  expect((await diagnose(server)).of("foreign-files").status).toBe("ok");
  await other.start();
  expect((await diagnose(server)).of("other-instances").status).toBe("ok");
});

testWith(needsRoot)("something in place of another instance's lock that would hold up whoever opens it", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
  const folder = join(tmpfs.path, "tensord.hostile");
  mkdirSync(folder);
  expect(Bun.spawnSync(["mkfifo", join(folder, "lock")]).exitCode).toBe(0);
  expect((await lookAt(createInstance(tmpfs.path))).of("other-instances").summary).toContain("hostile of uid 0");
});

testWith(needsRoot)("an instance's directory of another uid, and one that workers cannot enter", async () => {
  using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
  await using server = await startServer({ shmDirectory: tmpfs.path });
  const { directory, name } = server.instance;
  chmodSync(directory, 0o700);
  expect((await diagnose(server)).of("instance-directory")).toMatchObject({
    status: "error",
    summary: expect.stringContaining("workers of gid 0 cannot reach the socket"),
    cure: `chmod 750 ${directory}`,
  });
  chmodSync(directory, 0o750);
  expect((await diagnose(server)).of("instance-directory").status).toBe("ok");
  await server.stop();
  chownSync(directory, nobody, nobody);
  const told = await lookAt({ name, shmDirectory: tmpfs.path });
  chownSync(directory, 0, 0);
  expect(told.of("instance-directory")).toMatchObject({
    status: "error",
    summary: expect.stringContaining(`belongs to uid ${nobody}, gid ${nobody}, with mode 750, and this is uid 0`),
    cure: expect.stringContaining("another TENSORD_INSTANCE"),
  });
});

testWith(needsRoot)(
  "an instance's directory that was moved away, and a file system mounted over the shared one",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
    const socket = join(tmpdir(), `tensord-${crypto.randomUUID().slice(0, 8)}.sock`);
    await using server = await startServer({ shmDirectory: tmpfs.path, env: { TENSORD_SOCKET: socket } });
    const { directory } = server.instance;
    expect((await diagnose(server)).of("moved-directory").status).toBe("ok");
    renameSync(directory, `${directory}-away`);
    const moved = (await diagnose(server)).of("moved-directory");
    renameSync(`${directory}-away`, directory);
    expect(moved).toMatchObject({
      status: "error",
      summary: expect.stringContaining(`whose keeper is at ${directory}-away/keep`),
      cure: expect.stringContaining(`Move it back to ${directory}`),
    });
    expect(Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=64m", "tensord-test", tmpfs.path]).exitCode).toBe(0);
    const hidden = (await diagnose(server)).of("moved-directory");
    expect(Bun.spawnSync(["umount", tmpfs.path]).exitCode).toBe(0);
    expect(hidden).toMatchObject({
      status: "error",
      summary: expect.stringContaining("is another directory than the server's"),
      cure: expect.stringContaining("Unmount what hides it"),
    });
    expect((await diagnose(server)).of("moved-directory").status).toBe("ok");
  },
);

testWith()("a socket that somebody removed, and one that its group cannot use", async () => {
  await using server = await startServer({ env: { TENSORD_PORT: "0" } });
  const url = await server.readUrl();
  const ask = async () => toTold(await server.command("doctor", "--json", "--url", url));
  chmodSync(server.instance.socket, 0o600);
  expect((await ask()).of("socket")).toMatchObject({
    status: "warning",
    cure: `chmod 660 ${server.instance.socket}`,
  });
  const away = `${server.instance.directory}/away`;
  renameSync(server.instance.socket, away);
  const gone = (await ask()).of("socket");
  renameSync(away, server.instance.socket);
  expect(gone).toMatchObject({ status: "error", cure: expect.stringContaining("Restart the server") });
  chmodSync(server.instance.socket, 0o660);
  expect((await ask()).of("socket").status).toBe("ok");
});

testWith(needsUserNamespaces)("a server to which the kernel gives no watch", async () => {
  await using server = await startServer({ prefix: withoutInotify });
  server.log.expect(/^Cannot watch public names/);
  expect((await diagnose(server)).of("name-watch")).toMatchObject({
    status: "warning",
    cure: expect.stringContaining("fs.inotify.max_user_instances"),
  });
  await using watching = await startServer();
  expect((await diagnose(watching)).of("name-watch").status).toBe("ok");
});

testWith()("a server that may open few files", async () => {
  await using server = await startServer({ prefix: after("ulimit -n 512") });
  const { status, summary, cure } = (await diagnose(server)).of("open-files");
  expect([status, summary]).toEqual([
    "warning",
    expect.stringMatching(/^The server may open 512 files and has \d+ open; \d+ connections fit at once\.$/),
  ]);
  expect(cure).toContain("LimitNOFILE");
});

/** A memory cgroup of v1 for one server, gone with it. */
class MemoryCgroup implements AsyncDisposable {
  static readonly root = "/sys/fs/cgroup/memory";
  readonly path = join(MemoryCgroup.root, `tensord-test-${crypto.randomUUID().slice(0, 8)}`);

  constructor(bytes: number) {
    mkdirSync(this.path);
    this.limit(bytes);
  }

  limit(bytes: number): void {
    writeFileSync(join(this.path, "memory.limit_in_bytes"), String(bytes));
  }

  get prefix(): string[] {
    return after(`echo $$ > ${this.path}/cgroup.procs`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await until("the cgroup is empty", () => readFileSync(join(this.path, "cgroup.procs"), "utf8") === "");
    rmdirSync(this.path);
  }
}

function needsMemoryCgroup(): string | undefined {
  try {
    rmdirSync(new MemoryCgroup(1024 * MiB).path);
    return undefined;
  } catch {
    return "needs a memory cgroup of version 1 to make one in";
  }
}

testWith(needsMemoryCgroup())(
  "a cgroup that leaves less than the file system has, and one that shrinks later",
  async () => {
    await using cgroup = new MemoryCgroup(1024 * MiB);
    await using server = await startServer({ prefix: cgroup.prefix });
    expect((await diagnose(server)).of("pool-limit")).toMatchObject({
      status: "warning",
      summary: expect.stringContaining("A cgroup bounds the pool to 768 MiB, where it could have"),
      cure: expect.stringContaining("Raise the cgroup's memory limit"),
    });
    cgroup.limit(512 * MiB);
    const shrunk = (await diagnose(server)).of("pool-limit");
    cgroup.limit(1024 * MiB);
    expect(shrunk).toMatchObject({
      status: "error",
      summary: expect.stringContaining("The pool may take 768 MiB, and the cgroup leaves it 256 MiB now"),
      cure: expect.stringContaining("restart the server"),
    });
  },
);

/** Where `directory` shows other files, to this process and its children alone. */
const withFiles = (directory: string, setUp: string) => [
  "unshare",
  "--mount",
  ...after(`mount -t tmpfs tensord-test ${directory} && ${setUp}`),
];
const asNobody = ["setpriv", `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups"];

testWith(needsReadableCheckout())("systemd's RemoveIPC, to a person's uid, until it is turned off", async () => {
  const booted = withFiles("/run", "mkdir -p /run/systemd/system");
  const instance = createInstance();
  const trapped = (await lookAt(instance, [...booted, ...asNobody])).of("remove-ipc");
  expect(trapped).toMatchObject({
    status: "warning",
    summary: expect.stringContaining(
      `when the last session of uid ${nobody} ends, everything of it in /dev/shm is removed`,
    ),
    cure: expect.stringContaining("RemoveIPC=no"),
  });
  const root = (await lookAt(instance, booted)).of("remove-ipc");
  expect(root).toMatchObject({ status: "ok", summary: expect.stringContaining("spares uid 0") });
  const off = "mkdir -p /run/systemd/system /run/systemd/logind.conf.d && printf '[Login]\\nRemoveIPC=no\\n' > ";
  const cured = withFiles("/run", `${off}/run/systemd/logind.conf.d/tensord.conf`);
  expect((await lookAt(instance, [...cured, ...asNobody])).of("remove-ipc")).toMatchObject({
    status: "ok",
    summary: "systemd's RemoveIPC is off.",
  });
});

testWith(needsReadableCheckout())(
  "a user who may not look into an instance takes its regions for its own",
  async () => {
    using tmpfs = new Tmpfs({ sizeBytes: 64 * MiB });
    await using server = await startServer({ shmDirectory: tmpfs.path });
    await server.api.create({ name: "kept", byte_size: 16 * MiB, persist: true });
    // The socket is closed to nobody, so the command looks by itself.
    const told = await lookAt(server.instance, asNobody);
    expect(told.of("foreign-files").status).toBe("ok");
    expect(told.of("instance-directory")).toMatchObject({
      status: "error",
      summary: expect.stringContaining(`this is uid ${nobody}`),
    });
  },
);
