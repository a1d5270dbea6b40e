/** `tensord alloc` against a real server: what it makes, what it prints, and what it says of each bad spelling. */

import { afterAll, expect, test } from "bun:test";
import { TensordError } from "../../src/memory/error.ts";
import { toLine } from "../../src/server/cli/events.ts";
import type { Event } from "../../src/server/cli/follow.ts";
import { parseByteSize, parseCount, parseDurationMs, parseLabel, parseTensor } from "../../src/server/cli/quantity.ts";
import { testWith } from "../harness/instance-needs.ts";
import { openSession } from "../harness/instance-sessions.ts";
import { endLentServers, lendServer } from "../harness/lent-server.ts";
import { TestServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";

afterAll(endLentServers);

test("sizes are exact, in units of 1024 and of 1000", () => {
  const sizes = ["0B", "1B", "3KiB", "1536MiB", "1GiB", "8191TiB", "5 kB", "5KB", "7MB", "2GB", "9007TB"];
  const bytes = [0, 1, 3072, 1536 * 2 ** 20, 2 ** 30, 8191 * 2 ** 40, 5000, 5000, 7e6, 2e9, 9007e12];
  expect(sizes.map((text) => parseByteSize("--size", text))).toEqual(bytes);
  expect(parseByteSize("--size", "9007199254740991B")).toBe(Number.MAX_SAFE_INTEGER);
});

test("durations are whole seconds, minutes, hours or days", () => {
  const durations = ["30s", "10min", "12 h", "7d", "3650d"];
  const ms = [30_000, 600_000, 43_200_000, 604_800_000, 315_360_000_000];
  expect(durations.map((text) => parseDurationMs("--ttl", text))).toEqual(ms);
});

test("a tensor is a name, a dtype and sizes; the name may hold colons, and no sizes are a scalar", () => {
  expect(parseTensor("w:F32:1024x3")).toEqual({ name: "w", dtype: "F32", shape: [1024, 3] });
  expect(parseTensor("x:BF16:")).toEqual({ name: "x", dtype: "BF16", shape: [] });
  expect(parseTensor("a:b::U8:0")).toEqual({ name: "a:b:", dtype: "U8", shape: [0] });
});

testWith()("what a terminal would obey is shown as escapes, in tables, events and sentences", async () => {
  await using server = await lendServer();
  const hostile = "w\x1b[2J\n\x9b1A\u202e";
  const controls = /[^\P{Cc}\n]|\p{Bidi_Control}/u;
  const made = await server.command("alloc", "hostile", "--tensor", `${hostile}:U8:1`, "--ttl", "1h");
  expect(made.stdout).toContain("w\\u001b[2J\\u000a\\u009b1A\\u202e  U8");
  const asJson = await server.command("alloc", "again", "--tensor", `${hostile}:U8:1`, "--ttl", "1h", "--json");
  expect((JSON.parse(asJson.stdout) as Region).tensors[0]?.name).toBe(hostile);
  const refused = await server.command("rm", `a/b/${hostile}`);
  expect(refused.stderr).toContain("\\u001b[2J");
  const label = `${hostile}=${hostile}`;
  const labelled = await server.command("alloc", "labelled", "--size", "1B", "--ttl", "1h", "--label", label);
  expect(labelled.stderr).toBe("");
  const listed = await server.command("ls", "--label", label);
  expect(listed.stdout).toContain("labelled");
  const listedAsJson = await server.command("ls", "--json", "--label", label);
  expect(JSON.parse(listedAsJson.stdout)).toMatchObject([{ labels: { [hostile]: hostile } }]);
  const misspelt = await server.command("ls", "--label", hostile);
  expect(misspelt.stderr).toContain("\\u001b[2J");
  for (const { stdout, stderr } of [made, asJson, refused, labelled, listed, listedAsJson, misspelt])
    expect(stdout + stderr).not.toMatch(controls);
});

test("an event's line is one line, whatever its session is called", () => {
  const client = {
    name: "a\x1b[2J\nb",
    pid: 1,
    pid_namespace: null,
    namespace_pid: null,
    hostname: null,
    version: null,
    labels: {},
  };
  const event = {
    id: "1",
    time: "now",
    type: "tensord.session.opened",
    subject: "ses_a",
    data: { name: null, client },
  };
  expect(toLine(event as unknown as Event)).toContain("a\\u001b[2J\\u000ab, pid 1");
});

test("a label's value may hold an equals sign, and be empty", () => {
  expect([parseLabel("a=b=c"), parseLabel("a=")]).toEqual([
    ["a", "b=c"],
    ["a", ""],
  ]);
});

test.each([
  [() => parseByteSize("--size", ""), 'Cannot read --size "": it is no number with a unit, want a whole number and B,'],
  [() => parseByteSize("--size", "1024"), "it has no unit"],
  [() => parseByteSize("--size", "1G"), '"G" is no unit'],
  [() => parseByteSize("--size", "1gib"), '"gib" is no unit'],
  [() => parseByteSize("--size", "1constructor"), '"constructor" is no unit'],
  [() => parseByteSize("--size", "1.5GiB"), "it is no number with a unit"],
  [() => parseByteSize("--size", "-1B"), "it is no number with a unit"],
  [() => parseByteSize("--size", "9007199254740992B"), "it is too large, want at most 9007199254740991B"],
  [() => parseByteSize("--size", `${"9".repeat(400)}TiB`), "it is too large"],
  [() => parseDurationMs("--ttl", "10"), "it has no unit, want a whole number and s, min, h, d, as 90min"],
  [() => parseDurationMs("--ttl", "10m"), '"m" is no unit'],
  [() => parseDurationMs("--ttl", "0s"), "it is too small, want more than 0"],
  [() => parseDurationMs("--ttl", "3651d"), "it is too large, want at most 3650d"],
  [() => parseTensor("w"), "it has not the three parts, want name:dtype:shape"],
  [() => parseTensor(":F32:1"), "it has not the three parts"],
  [() => parseTensor("w:F32"), "it has not the three parts"],
  [() => parseTensor("w:float32:1"), '"float32" is no dtype, want one of BOOL, '],
  [() => parseTensor("w:toString:1"), '"toString" is no dtype'],
  [() => parseTensor("w:F32:1*2"), '"1*2" is no shape, want sizes joined by x'],
  [() => parseTensor("w:F32:1x"), '"1x" is no shape'],
  [() => parseTensor("w:F32:9007199254740992"), '"9007199254740992" is no shape'],
  [() => parseLabel("a"), "want key=value"],
  [() => parseLabel("=b"), "want key=value"],
  [() => parseCount("--count", "0"), 'Cannot read --count "0": it is no count, want a whole number from 1 on'],
  [() => parseCount("--count", "1e3"), "it is no count"],
])("%p is refused with what is wrong: %s", (parse, says) => {
  expect(parse).toThrow(TensordError);
  expect(parse).toThrow(says);
});

testWith()(
  "alloc makes a region of tensors, and says where it is, when it ends, how to attach and remove it",
  async () => {
    await using server = await lendServer();
    await server.api.call("POST", "/v1/models", { name: "llama" });
    const tensors = ["--tensor", "w:F32:16x3", "--tensor", "x:F64:"];
    const flags = ["--model", "llama", ...tensors, "--ttl", "10min", "--label", "job=nightly", "--label", "by=hand"];
    const { status, stdout, stderr } = await server.command("alloc", "weights", ...flags);
    expect([status, stderr]).toEqual([0, ""]);
    const [region] = await server.api.list();
    expect(region).toMatchObject({ model: "llama", name: "weights", labels: { job: "nightly", by: "hand" } });
    expect(region?.owner).toEqual({ kind: "ttl", ttl_ms: 600_000 });
    const laidOut = (await server.api.get(region?.id ?? "")).tensors;
    expect(laidOut.map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual([
      ["w", "F32", [16, 3]],
      ["x", "F64", []],
    ]);
    expect(stdout).toStartWith("allocated llama/weights, open, 4.2 KiB\n");
    expect(stdout).toContain(`  id      ${region?.id}\n  path    ${region?.storage.path}\n`);
    expect(stdout).toMatch(/^ {2}ends {4}in (10|9) min$/m);
    expect(stdout).toContain('client.attach("weights", model="llama", writable=True) in Python');
    expect(stdout).toMatch(/^w +F32 +\[16, 3\] +4104 +192 B\nx +F64 +\[\] +4096 +8 B$/m);
    const [, command = ""] = /^ {2}remove {2}tensord (.*)$/m.exec(stdout) ?? [];
    expect((await server.command(...command.split(" "))).status).toBe(0);
    expect(await server.api.list()).toEqual([]);
  },
);

testWith()("alloc of a size makes one tensor of bytes, and --json prints the descriptor", async () => {
  await using server = await lendServer();
  const { stdout } = await server.command("alloc", "scratch", "--size", "1MiB", "--persist", "--json");
  const region = JSON.parse(stdout) as Region;
  // Asking for it is a use.
  const { last_used_at } = region;
  expect(region).toEqual({ ...(await server.api.descriptor(region.id)), last_used_at });
  expect(region.tensors).toMatchObject([{ name: "data", dtype: "U8", shape: [2 ** 20] }]);
  expect(region.owner).toEqual({ kind: "persist" });
  for (const [flags, told] of [
    [["--private"], { kind: "shm", private: true, path: null }],
    [["--storage", "memfd"], { kind: "memfd", private: true, path: null }],
  ] as const) {
    const made = await server.command("alloc", "hidden", "--size", "1KiB", "--ttl", "1h", ...flags);
    expect(made.stdout).toContain("\n  path    none: it is reached through the broker, and as bytes over HTTP\n");
    const hidden = await server.api.findByName("hidden");
    expect(hidden?.storage as unknown).toMatchObject(told);
    await server.api.delete(hidden?.id ?? "");
  }
  const huge = await server.command("alloc", "huge", "--size", "1KiB", "--ttl", "1h", "--huge-pages", "2MiB");
  expect(huge.stderr).toContain("the storage is shm, want memfd");
});

testWith()("alloc of a name that is taken says so in the command line's words, attaches, or replaces", async () => {
  await using server = await lendServer();
  const args = ["alloc", "w", "--tensor", "w:F32:4", "--ttl", "1h"];
  const region = JSON.parse((await server.command(...args, "--json")).stdout) as Region;
  const refused = await server.command(...args);
  expect([refused.status, refused.stdout]).toEqual([1, ""]);
  expect(refused.stderr).toContain(`tensord: Cannot create the name: ${region.id} (default/w) holds it (open)`);
  expect(refused.stderr).toContain("hint: Remove that region with `tensord rm`");
  expect(refused.stderr).toContain("--if-exists attach or replace");
  await server.api.seal(region.id);
  const attached = await server.command(...args, "--if-exists", "attach");
  expect(attached.stdout).toStartWith(`there already: default/w, sealed, `);
  expect(attached.stdout).toContain('client.attach("w") in Python');
  const replacing = await server.command(...args, "--if-exists", "replace");
  expect(replacing.stdout).toStartWith("allocated default/w, open, ");
  expect(replacing.stdout).toContain("it takes the name w over when it is sealed");
  expect(replacing.stdout).toMatch(/^ {2}remove {2}tensord rm reg_/m);
  const tied = { name: "head", dtype: "F32" as const, shape: [4] };
  const tensors = [
    { ...tied, name: "w" },
    { ...tied, alias_of: "w" },
  ];
  await server.api.create({ name: "tied", tensors, ttl_ms: 3_600_000 });
  const specs = ["--tensor", "w:F32:4", "--tensor", "head:F32:4", "--ttl", "1h"];
  const shown = await server.command("alloc", "tied", ...specs, "--if-exists", "attach");
  expect(shown.stdout).toMatch(/ SIZE +ALIAS OF\nw +F32 .* -\nhead +F32 .* w$/m);
});

testWith()(
  "alloc without an owner, or with what cannot be right, makes nothing and says what to say instead",
  async () => {
    await using server = await lendServer();
    const size = ["--size", "1KiB"];
    const ttl = ["--ttl", "1min"];
    for (const [args, says] of [
      [
        [...size],
        "Cannot allocate w: it has no owner, and so nothing would end it, want --ttl, --linger or --persist\nhint: Say --ttl",
      ],
      [[...size, ...ttl, "--persist"], "--ttl and --persist are there, want one of them"],
      [
        [...size, "--linger", "0s", ...ttl, "--persist"],
        "--ttl and --linger and --persist are there, want one of them",
      ],
      [[...size, "--linger", "1"], 'Cannot read --linger "1": it has no unit'],
      [[...size, ...ttl, "--deadline", "1s"], "Cannot wait until --deadline: --on-full is not wait, want wait"],
      [[...size, ...ttl, "--on-full", "wait", "--deadline", "61min"], "it is too large, want at most 1h"],
      [[...size, ...ttl, "--on-full", "maybe"], "Allowed choices are fail, evict, wait"],
      [[...ttl], "neither --size nor --tensor is there, want one of them\nhint: Say --size 1GiB, or --tensor"],
      [[...size, ...ttl, "--tensor", "w:F32:1"], "both --size and --tensor are there"],
      [[...ttl, "--size", "12"], 'Cannot read --size "12": it has no unit'],
      [[...size, ...ttl, "--if-exists", "maybe"], "Allowed choices are fail, attach, replace"],
      [[...size, ...ttl, "--model", "nobody"], 'Cannot find model "nobody"'],
      [[...ttl, "--tensor", "w:F32:1", "--tensor", "w:F32:1"], 'the tensor name "w" occurs twice'],
      [[...ttl, "--size", "8191TiB"], "Cannot allocate 9006099743117312 bytes"],
    ] as const) {
      const { status, stdout, stderr } = await server.command("alloc", "w", ...args);
      expect([status, stdout], args.join(" ")).toEqual([1, ""]);
      expect(stderr).toContain(says);
    }
    expect(await server.api.list()).toEqual([]);
  },
);

testWith()("alloc of what lingers, or may be evicted, says so in its descriptor and in words", async () => {
  await using server = await lendServer();
  const flags = ["--size", "1KiB", "--linger", "10min", "--evictable"];
  const { stdout } = await server.command("alloc", "cache", ...flags);
  expect(stdout).toContain("  ends    10 min after its last use\n");
  const [region] = await server.api.list();
  expect(region).toMatchObject({ owner: { kind: "linger", linger_ms: 600_000 }, evictable: true });
  const handOff = await server.command("alloc", "hand-off", "--size", "1KiB", "--linger", "0s", "--json");
  expect(JSON.parse(handOff.stdout)).toMatchObject({ owner: { kind: "linger", linger_ms: 0 }, evictable: false });
});

testWith()(
  "alloc without room names the largest sessions and how to make room, and waits for it if asked to",
  async () => {
    await using server = await lendServer();
    await server.api.call("POST", "/v1/models", { name: "small", memory_limit_bytes: 2 ** 20 });
    const client = { name: "trainer", pid: 4711 };
    const session = await openSession(server.api, { client });
    const byteSize = 2 ** 20 - 8192;
    const held = await server.api.create({ model: "small", byte_size: byteSize, session: session.id });
    const args = ["alloc", "w", "--model", "small", "--size", "512KiB", "--ttl", "1h"];

    const refused = await server.command(...args);
    expect([refused.status, refused.stdout]).toEqual([1, ""]);
    expect(refused.stderr).toContain('Cannot allocate 528384 bytes for model "small"');
    expect(refused.stderr).toContain(
      "hint: Make room with `tensord free` or `tensord rm`, or say --on-full evict or wait.",
    );
    expect(refused.stderr).toContain(`Of sessions, ${session.id} (trainer, pid 4711) has 1020 KiB.`);

    const late = await server.command(...args, "--on-full", "wait", "--deadline", "1s");
    expect([late.status, late.stdout]).toEqual([1, ""]);
    expect(late.stderr).toContain("tensord: Cannot wait longer for memory.");
    expect(late.stderr).toContain("hint: Say a longer --deadline, or make room with `tensord free` or `tensord rm`.");

    const waiting = server.command(...args, "--on-full", "wait");
    await server.api.delete(held.id);
    expect((await waiting).stdout).toStartWith("allocated small/w, open, ");
  },
);

testWith()("alloc says how to get a server when there is none", async () => {
  await using server = new TestServer();
  const { status, stderr } = await server.command("alloc", "w", "--size", "1KiB", "--ttl", "1min");
  expect(status).toBe(1);
  expect(stderr).toContain("hint: Start one with `tensord serve`");
});
