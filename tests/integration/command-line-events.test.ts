/** `tensord events` against a real server, and against ones that cut, say nothing, or talk nonsense. */

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Api } from "../../src/server/cli/api.ts";
import { type Event, follow } from "../../src/server/cli/follow.ts";
import { parseConfig } from "../../src/server/config.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { readText } from "../harness/server-command.ts";
import { tensord } from "../harness/server-program.ts";
import { patienceMs, until, within } from "../harness/server-wait.ts";

afterAll(endLentServers);

/** `tensord events` that runs beside the test. */
class Following implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #readings: Promise<void>[];
  stdout = "";
  stderr = "";

  constructor(server: TestServer, ...args: string[]) {
    this.#process = Bun.spawn([...tensord, "events", ...args], {
      cwd: root,
      env: server.env,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const { stdout, stderr } = this.#process;
    this.#readings = [
      readText(stdout, (text) => {
        this.stdout += text;
      }),
      readText(stderr, (text) => {
        this.stderr += text;
      }),
    ];
  }

  get lines(): string[] {
    return this.stdout.split("\n").slice(0, -1);
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  async ended(): Promise<number> {
    await within("tensord events ends", Promise.all([this.#process.exited, ...this.#readings]));
    return this.#process.exitCode ?? -1;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.ended();
  }
}

/** The id of the newest event: what comes after it, comes whenever the follower connects. */
async function newest(server: TestServer): Promise<string> {
  return (await server.api.call<{ next_after: string }>("GET", "/v1/events?limit=1000")).next_after;
}

/** A named region's life, by which a model and three regions change. */
async function live(server: TestServer): Promise<void> {
  await server.api.call("POST", "/v1/models", { name: "llama", memory_limit_bytes: 2 ** 24 });
  const region = await server.api.create({ model: "llama", name: "weights", byte_size: 1000, ttl_ms: 60_000 });
  await server.api.seal(region.id);
  await server.api.delete(region.id);
  await server.api.untilGone(region.id);
}

testWith()("events prints one line an event, and --json one CloudEvent a line", async () => {
  await using server = await lendServer();
  const after = await newest(server);
  await live(server);
  const { status, stdout, stderr } = await server.command("events", "--after", after, "--count", "5");
  expect([status, stderr]).toEqual([0, ""]);
  const lines = stdout.split("\n").slice(0, -1);
  expect(lines.map((line) => line.split(/ {2,}/)[1])).toEqual([
    "model.registered",
    "region.allocated",
    "region.sealed",
    "region.draining",
    "region.deleted",
  ]);
  expect(lines[0]).toEndWith("  llama  limit 16 MiB");
  expect(lines[2]).toMatch(
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z {2}region\.sealed +llama\/weights {2}reg_\w{26} {2}4.98 KiB$/,
  );
  expect(lines[4]).toContain("  reason request");
  const json = await server.command("events", "--after", after, "--count", "5", "--json");
  const events = json.stdout
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Event);
  expect(events.map(({ specversion, type }) => [specversion, type])).toEqual(
    lines.map((line) => ["1.0", `tensord.${line.split(/ {2,}/)[1]}`]),
  );
});

testWith()(
  "--no-follow prints what is kept and ends; filters by model and by types, with or without tensord.",
  async () => {
    // Its own: what happened on one before would be kept, too.
    await using server = await startServer();
    await live(server);
    await server.api.create({ byte_size: 1, ttl_ms: 60_000 });
    const types = async (...args: string[]) =>
      (await server.command("events", "--no-follow", ...args)).stdout
        .split("\n")
        .flatMap((line) => line.split(/ {2,}/)[1] ?? []);
    const ofModel = ["model.registered", "region.allocated", "region.sealed", "region.draining", "region.deleted"];
    expect(await types("--model", "llama")).toEqual(ofModel);
    expect((await types()).slice(-6)).toEqual([...ofModel, "region.allocated"]);
    expect(await types("--types", "region.sealed,tensord.region.deleted")).toEqual(["region.sealed", "region.deleted"]);
    expect(await types("--model", "llama", "--count", "2")).toEqual(ofModel.slice(0, 2));
  },
);

testWith()("more events than a page has are all printed", async () => {
  await using server = await lendServer();
  const { id } = await server.api.create({ byte_size: 1, ttl_ms: 60_000 });
  const after = await newest(server);
  for (let i = 0; i < 1001; i++) await server.api.call("PATCH", `/v1/regions/${id}`, { labels: { i: String(i) } });
  const { stdout } = await server.command("events", "--no-follow", "--json", "--after", after);
  const labels = stdout
    .split("\n")
    .slice(0, -1)
    .map((line) => (JSON.parse(line) as Event).data.labels);
  expect(labels).toEqual(Array.from({ length: 1001 }, (_, i) => ({ i: String(i) })));
});

testWith()(
  "it goes on through a restart without loss, says so beside the output, and Ctrl-C ends it with 0",
  async () => {
    await using server = await lendServer();
    await using following = new Following(server, "--types", "region.allocated", "--after", await newest(server));
    await server.api.create({ name: "before", byte_size: 1, ttl_ms: 60_000 });
    await until("the first line is there", () => following.lines.length === 1);
    await server.stop();
    await until("it says that the stream broke off", () => following.stderr.includes("the stream broke off"));
    await server.start();
    await server.api.create({ name: "after", byte_size: 1, ttl_ms: 60_000 });
    await until("the second line is there", () => following.lines.length === 2);
    expect(following.lines.map((line) => line.split(/ {2,}/)[2])).toEqual(["default/before", "default/after"]);
    following.signal("SIGINT");
    expect(await following.ended()).toBe(0);
    expect(following.stderr).toMatch(
      /^tensord: the stream broke off; it goes on after event \d+ .*\ntensord: the stream goes on\n$/,
    );
  },
);

testWith()("after a crash it says that events may be missing, and goes on", async () => {
  await using server = await lendServer();
  await using following = new Following(server, "--after", await newest(server));
  await server.api.create({ name: "before", byte_size: 1, ttl_ms: 60_000 });
  await until("the first line is there", () => following.lines.length === 1);
  await server.crash();
  await server.api.create({ name: "after", byte_size: 1, ttl_ms: 60_000 });
  await until("the event after the crash is there", () =>
    following.lines.some((line) => line.includes("default/after")),
  );
  expect(following.lines[1]).toMatch(
    / {2}stream\.gap +events after \d+ are not kept; the next is \d+ or later: list again$/,
  );
});

testWith()("a reader that goes away ends it quietly", async () => {
  await using server = await lendServer();
  const after = await newest(server);
  for (let i = 0; i < 50; i++) await server.api.create({ byte_size: 1, ttl_ms: 60_000 });
  const script = `"$@" events --after ${after} | head -n 1; echo "\${PIPESTATUS[0]}"`;
  const child = Bun.spawn(["bash", "-c", script, "bash", ...tensord], { cwd: root, env: server.env, stderr: "pipe" });
  // The pipe breaks at one of the next writes, so that there must be some.
  const busy = until("it has ended", async () => {
    if (child.exitCode !== null) return true;
    await server.api.create({ byte_size: 1, ttl_ms: 60_000 });
    return false;
  });
  const [stdout, stderr] = await within("it ends", Promise.all([child.stdout.text(), child.stderr.text(), busy]));
  expect(stdout).toMatch(/^.+ {2}region\.allocated .+\n0\n$/);
  expect(stderr).toBe("");
});

testWith()("what cannot be followed is said, with status 1", async () => {
  await using server = await lendServer();
  for (const [args, says] of [
    [["--after", "yesterday"], '"yesterday" is no id of an event'],
    [["--no-follow", "--after", "yesterday"], '"yesterday" is no id of an event'],
    [["--count", "none"], 'Cannot read --count "none": it is no count'],
    [["--model", "a/b"], "want 1 to 128"],
  ] as const) {
    const { status, stdout, stderr } = await server.command("events", ...args);
    expect([status, stdout], args.join(" ")).toEqual([1, ""]);
    expect(stderr).toContain(says);
  }
  await server.stop();
  const { status, stderr } = await server.command("events");
  expect(status).toBe(1);
  expect(stderr).toContain("hint: Start one with `tensord serve`");
  await server.start();
});

const opened = toBlock("0", "tensord.stream.opened");

function toBlock(id: string, type: string): string {
  const event = type === "x" ? { id, type, data: {} } : { id: crypto.randomUUID(), type, data: { after: id } };
  return `id: ${id}\ndata: ${JSON.stringify(event)}\n\n`;
}

/** Follows a server that answers each connection with the next of `answers`, and the last one again and again. */
async function followed(answers: readonly (() => Response)[], count: number, silenceMs = patienceMs) {
  const directory = mkdtempSync(join(tmpdir(), "tensord-test-"));
  const socket = join(directory, "http.sock");
  const asked: (string | null)[] = [];
  const server = Bun.serve({
    unix: socket,
    fetch(request) {
      asked.push(request.headers.get("last-event-id"));
      return (answers[asked.length - 1] ?? answers.at(-1) ?? Response.error)();
    },
  });
  const told: string[] = [];
  try {
    const events = follow(new Api(parseConfig({}), `unix://${socket}`), {
      query: new URLSearchParams(),
      signal: AbortSignal.timeout(patienceMs),
      onCut: (after) => told.push(`cut after ${after}`),
      onResumed: () => told.push("resumed"),
      silenceMs,
    });
    const ids: string[] = [];
    for await (const { id } of events) if (ids.push(id) === count) break;
    return { ids, asked, told };
  } finally {
    await server.stop(true);
    rmSync(directory, { recursive: true });
  }
}

const stream = (text: string) => () => new Response(text, { headers: { "content-type": "text/event-stream" } });

/** Sends `text` and then nothing, for as long as it is read. */
const silent = (text: string) => () =>
  new Response(new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode(text)) }));

test("a block that a cut left incomplete is asked for again, and what came is not", async () => {
  const first = `retry: 1000\n${opened}${toBlock("1", "x")}: keep-alive\n\n${toBlock("2", "x").slice(0, -1)}`;
  const rest = stream(`${toBlock("1", "tensord.stream.opened")}${toBlock("2", "x")}${toBlock("3", "x")}`);
  const { ids, asked, told } = await followed([stream(first), rest], 3);
  expect(ids).toEqual(["1", "2", "3"]);
  expect(asked).toEqual([null, "1"]);
  expect(told).toEqual(["cut after 1", "resumed"]);
});

test("a stream that was written by other rules of the format is read", async () => {
  const block = 'id:1\r\nevent:x\r\ndata:{"id": "1",\r\ndata: "type": "x"}\r\n\r\n';
  expect((await followed([stream(`\uFEFF${opened}${block}`)], 1)).ids).toEqual(["1"]);
});

test("a connection without a byte is given up and made again", async () => {
  const { ids, asked } = await followed([silent(opened), stream(`${opened}${toBlock("1", "x")}`)], 1, 50);
  expect([ids, asked]).toEqual([["1"], [null, "0"]]);
});

test("a server that is leaving is asked again once the stream stood, and one that refuses is believed", async () => {
  const problem = (status: number, code: string) => () =>
    Response.json({ code, detail: `Cannot: ${code}` }, { status });
  const leaving = problem(503, "shutting-down");
  const { told } = await followed([stream(opened), leaving, leaving, stream(`${opened}${toBlock("1", "x")}`)], 1);
  expect(told).toEqual(["cut after 0", "resumed"]);
  await expect(followed([leaving], 1)).rejects.toThrow("Cannot: shutting-down");
  await expect(followed([stream(opened), problem(429, "too-many-requests")], 1)).rejects.toThrow("too-many-requests");
});

test.each([
  ["what is no stream", stream("<html>"), "it ended before it began"],
  ["what is no JSON", stream(`${opened}data: {\n\n`), "one is no JSON"],
  ["what has no end", silent(`${opened}data: ${"x".repeat(2 ** 21)}`), "one is longer than 1048576 characters"],
])("%s is not followed", async (_, answer, says) => {
  await expect(followed([answer], 1)).rejects.toThrow(`Cannot follow the events: ${says}`);
});
