/** `tensord top` against a real server: what it shows, to pipes, to programs, and on a terminal that it gives back. */

import { afterAll, expect, test } from "bun:test";
import type { Snapshot } from "../../src/server/cli/snapshot.ts";
import { toBar } from "../../src/server/cli/snapshot-text.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsPython, root, testWith } from "../harness/instance-needs.ts";
import { openSession } from "../harness/instance-sessions.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { readText } from "../harness/server-command.ts";
import { tensord } from "../harness/server-program.ts";
import { until, within } from "../harness/server-wait.ts";
import { WorkerProcess } from "../harness/worker.ts";

afterAll(assertNothingLeft);

const hour = 3_600_000;
const needsScript = Bun.which("script") === null ? "needs script(1), for a pseudo terminal" : undefined;

/** Two models; the second has the larger region. */
async function startFilled(): Promise<TestServer> {
  await using started = new AsyncDisposableStack();
  const server = started.use(await startServer());
  await server.api.call("POST", "/v1/models", { name: "llama", memory_limit_bytes: 2 ** 24 });
  await server.api.create({ name: "small", byte_size: 2 ** 18, persist: true });
  await server.api.create({ model: "llama", name: "large", byte_size: 2 ** 20, ttl_ms: hour });
  started.move();
  return server;
}

test("the bar shows what is there at all, and never more than there is room for", () => {
  expect(toBar(0, 0, 100)).toBe(`[${"-".repeat(40)}]`);
  expect(toBar(1, 1, 1000)).toBe(`[#=${"-".repeat(38)}]`);
  expect(toBar(50, 25, 100)).toBe(`[${"#".repeat(20)}${"=".repeat(10)}${"-".repeat(10)}]`);
  expect(toBar(100, 0, 100)).toBe(`[${"#".repeat(40)}]`);
  expect(toBar(99, 99, 100)).toBe(`[${"#".repeat(40)}]`);
  expect(toBar(0, 0, 0)).toBe(`[${"#".repeat(40)}]`);
});

testWith(needsPython)(
  "--once prints books, models and sessions by use, the largest regions, what drains and why, and events",
  async () => {
    await using server = await startFilled();
    await using worker = new WorkerProcess();
    const mapped = await server.api.create({ name: "mapped", byte_size: 4000, ttl_ms: hour });
    await worker.attach("r", mapped);
    await server.api.delete(mapped.id);
    const small = await openSession(server.api, { name: "idle", quota_bytes: 2 ** 20 });
    const large = await openSession(server.api, { client: { name: "trainer", pid: 4711 } });
    await server.api.create({ byte_size: 1, session: large.id });
    const { status, stdout, stderr } = await server.command("top", "--once");
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(new RegExp(`^tensord \\S+ {2}instance ${server.instance.name} {2}epoch \\d+ {2}\\S+Z\n`));
    expect(stdout).toMatch(/^memory {3}\[#=-{38}\] 1\.2\d MiB used, 8 KiB draining of .+$/m);
    expect(stdout).toContain("regions  0 sealed, 3 open, 0 in creation, 1 draining\n");
    expect(stdout).toContain("sessions 2, with 0 claims; 0 leases by request\n");
    expect(stdout).toMatch(
      new RegExp(
        `SESSIONS BY USE\n  SESSION .+\n  ${large.id} +trainer, pid 4711 +1 +8 KiB +none +in .+\n  ${small.id} +idle +0 +0 B +1 MiB +in `,
      ),
    );
    expect(stdout).toMatch(
      /MODELS BY USE\n {2}MODEL .+\n {2}llama +1 +1 MiB +0 B +16 MiB\n {2}default +\d +26\d KiB +8 KiB +none\n/,
    );
    expect(stdout).toMatch(
      /LARGEST REGIONS\n {2}REGION .+\n.+ llama\/large +open +1 MiB +in \d+ min\n.+ default\/small +open +260 KiB +never\n/,
    );
    expect(stdout).toMatch(
      new RegExp(`DRAINING\n.+\n {2}${mapped.id} +default +7.91 KiB +request +an unknown process\n`),
    );
    expect(stdout).toMatch(new RegExp(`EVENTS\n(.+\n)*.+region.draining +default/mapped +${mapped.id}.+\n`));
  },
);

testWith()("--once --json prints one object, and --json one a line for as long as it is read", async () => {
  await using server = await startFilled();
  const once = JSON.parse((await server.command("top", "--once", "--json")).stdout) as Snapshot;
  expect(once.regions.map(({ name }) => name)).toEqual(["large", "small"]);
  expect(once).toMatchObject({ stats: { instance: server.instance.name }, more_regions: false, draining: [] });
  expect(once.events.map(({ type }) => type).slice(-2)).toEqual([
    "tensord.region.allocated",
    "tensord.region.allocated",
  ]);
  const script = `"$@" top --json --interval 0.1 | head -n 3; echo "\${PIPESTATUS[0]}"`;
  const { stdout, stderr } = await run(["bash", "-c", script, "bash", ...tensord], server.env);
  const lines = stdout.split("\n");
  expect(lines.slice(3)).toEqual(["0", ""]);
  const times = lines.slice(0, 3).map((line) => (JSON.parse(line) as Snapshot).time);
  expect(times).toEqual([...new Set(times)].toSorted());
  expect(stderr).toBe("");
});

async function run(command: string[], env: Record<string, string>) {
  const child = Bun.spawn(command, { cwd: root, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  try {
    const [stdout, stderr] = await within("it ends", Promise.all([child.stdout.text(), child.stderr.text()]));
    return { stdout, stderr };
  } finally {
    child.kill("SIGKILL");
  }
}

testWith()("of more than a page of regions it shows the largest on the first page, and says so", async () => {
  await using server = await startServer();
  for (let i = 0; i < 1001; i++) await server.api.create({ byte_size: i === 999 ? 8192 : 1, ttl_ms: hour });
  await server.api.create({ name: "too-late", byte_size: 2 ** 20, persist: true });
  const { stdout } = await server.command("top", "--once");
  expect(stdout).toMatch(/LARGEST REGIONS of the 1000 oldest; there are more\n.+\n.+ 12 KiB +in/);
  expect(stdout.split("LARGEST REGIONS")[1]?.split("EVENTS")[0]).not.toContain("too-late");
  const json = JSON.parse((await server.command("top", "--once", "--json")).stdout) as Snapshot;
  expect([json.regions.length, json.events.length, json.more_regions]).toEqual([20, 20, true]);
});

const enter = "\x1b[?1049h\x1b[?25l";
const leave = "\x1b[?25h\x1b[?1049l";

testWith(needsScript)(
  "on a terminal it redraws in place through a crash, and Ctrl-C gives the terminal back",
  async () => {
    await using server = await startFilled();
    const words = tensord.map((word) => `'${word}'`).join(" ");
    const inside = `stty rows 30 cols 70; exec ${words} top --interval 0.1`;
    const child = Bun.spawn(["script", "-qefc", inside, "/dev/null"], {
      cwd: root,
      env: { ...server.env, SHELL: "/bin/sh", TERM: "xterm" },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    try {
      let output = "";
      const reading = readText(child.stdout, (text) => {
        output += text;
      });
      const frames = () => output.split("\x1b[H").slice(1);
      await until("it has drawn twice", () => frames().length > 2);
      expect(output).toStartWith(enter);
      const [first = ""] = frames();
      expect(first).toEndWith("\x1b[J");
      const lines = first.slice(0, -"\x1b[J".length).split(/\r*\n/);
      expect(lines.length).toBeLessThanOrEqual(30);
      expect(lines.every((line) => line.endsWith("\x1b[K"))).toBeTrue();
      expect(Math.max(...lines.map((line) => line.length - "\x1b[K".length))).toBe(70);
      expect(first).toContain("llama/large");
      await server.kill("SIGKILL");
      await until("it says that nobody answers", () => frames().at(-1)?.startsWith("no answer: Cannot reach a server"));
      expect(frames().at(-1)).toContain("llama/large");
      await server.start();
      // Its newest event is the gap, behind which it reads on.
      await until("it shows the new server, over and over", () =>
        frames()
          .slice(-3)
          .every((frame) => frame.startsWith("tensord ")),
      );
      child.stdin.write("\x03");
      await child.stdin.flush();
      await within("it ends", Promise.all([child.exited, reading]));
      expect(child.exitCode).toBe(0);
      expect(output).toEndWith(leave);
    } finally {
      child.kill("SIGKILL");
    }
  },
);

testWith()("a server that goes away is waited for beside the output", async () => {
  await using server = await startFilled();
  const child = Bun.spawn([...tensord, "top", "--interval", "0.1"], {
    cwd: root,
    env: server.env,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  try {
    let output = "";
    let stderr = "";
    const readings = [
      readText(child.stdout, (text) => {
        output += text;
      }),
      readText(child.stderr, (text) => {
        stderr += text;
      }),
    ];
    const blocks = () => output.split(/^tensord /m).length - 1;
    await until("it has printed", () => blocks() > 0);
    await server.stop();
    // It looks now and then: a server that is back at once would not be missed.
    await until("it says that nobody answers", () => stderr !== "");
    await server.start();
    const before = blocks();
    await until("it prints again", () => blocks() > before + 1);
    child.kill("SIGTERM");
    await within("it ends", Promise.all([child.exited, ...readings]));
    expect(child.exitCode).toBe(0);
    expect(stderr).toMatch(/^tensord: Cannot .+; asking again\n$/);
    expect(output).not.toContain("\x1b");
  } finally {
    child.kill("SIGKILL");
  }
});

testWith()("what is no interval, and no server, is said with status 1", async () => {
  await using server = await startServer();
  for (const interval of ["0", "0.05", "1e3", "soon", "3601"]) {
    const { status, stdout, stderr } = await server.command("top", "--interval", interval);
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(`Cannot read --interval "${interval}": it is no number of seconds, want 0.1 to 3600`);
  }
  await server.stop();
  const { status, stdout, stderr } = await server.command("top");
  expect([status, stdout]).toEqual([1, ""]);
  expect(stderr).toContain("hint: Start one with `tensord serve`");
  await server.start();
});
