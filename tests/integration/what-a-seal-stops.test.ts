/**
 * What the kernel refuses whom on a region's memory, by kind of storage: every cell is tried by a process that has the
 * descriptor, and the table of `docs/security.md` is what came of it.
 */

import { expect } from "bun:test";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Region } from "../harness/answers.ts";
import { TestApp } from "../harness/app.ts";
import { needsPython, needsRoot, python, root, testWith } from "../harness/instance-needs.ts";
import { findMemfd } from "../harness/memfd.ts";

const nobody = 65534;
const group = process.getegid?.() ?? 0;
const asUser = (gid: number) => [String(nobody), String(gid)];

/** What the kernel said to each thing that was tried: the name of an errno, or null where it is possible. */
type Tried = Readonly<Record<string, string | null>>;

interface Column {
  readonly title: string;
  readonly request: object;
  readonly seal: object;
}

const columns: readonly Column[] = [
  { title: "named", request: {}, seal: {} },
  { title: "`stock_writable`", request: {}, seal: { stock_writable: true } },
  { title: "`private`", request: { private: true }, seal: {} },
  { title: "`memfd`", request: { storage: "memfd" }, seal: {} },
];

interface Row {
  readonly who: string;
  readonly what: string;
  /** Of `try_descriptor.py`. */
  readonly key: string;
  readonly by: "member" | "stranger" | "open" | "writer" | "own";
}

const rows: readonly Row[] = [
  { who: "a reader, of any uid", what: "writes through its descriptor", key: "write", by: "stranger" },
  { who: "", what: "maps it for writing", key: "map", by: "stranger" },
  { who: "", what: "`mprotect`s its map to be written", key: "mprotect", by: "stranger" },
  { who: "", what: "truncates it", key: "truncate", by: "stranger" },
  {
    who: "a reader in the server's group",
    what: "opens it anew (`/proc/self/fd`) for writing",
    key: "reopen-write",
    by: "member",
  },
  { who: "", what: "the same before the seal", key: "reopen-write", by: "open" },
  { who: "", what: "opens it anew for reading", key: "reopen-read", by: "member" },
  { who: "a reader of neither uid nor group", what: "opens it anew for writing", key: "reopen-write", by: "stranger" },
  { who: "", what: "opens it anew for reading", key: "reopen-read", by: "stranger" },
  { who: "who kept a writable descriptor", what: "writes", key: "write", by: "writer" },
  { who: "", what: "truncates it", key: "truncate", by: "writer" },
  { who: "", what: "extends it", key: "extend", by: "writer" },
  { who: "", what: "maps it for writing", key: "map", by: "writer" },
  { who: "", what: "`mprotect`s a later map to be written", key: "mprotect", by: "writer" },
  { who: "the server's own uid, and root", what: "opens it anew and writes", key: "reopen-write", by: "own" },
  { who: "", what: "opens it anew and maps it for writing", key: "reopen-map", by: "own" },
];

/** Where this process reaches the memory, as the server does that hands descriptors out. */
function pathOf({ shmDirectory, instance }: TestApp, { id, storage }: Region): string {
  const token = id.slice("reg_".length);
  if (storage.kind === "memfd") return findMemfd(token) ?? "";
  return `${shmDirectory}/tensord.${instance}/keep/${token}${storage.path === null ? ".private" : ""}`;
}

/** Lets a process, of that uid and gid or of our own, try all of it on the open file `fd`. */
async function tryAll(fd: number, user: readonly string[]): Promise<Tried> {
  const command = [python ?? "", join(root, "tests/harness/workers/try_descriptor.py"), "3", ...user];
  const child = Bun.spawn(command, { stdio: ["ignore", "pipe", "inherit", fd] });
  const text = await new Response(child.stdout).text();
  expect(await child.exited).toBe(0);
  return JSON.parse(text) as Tried;
}

/** As a reader who has a descriptor of his own. */
async function tryReading(path: string, user: readonly string[]): Promise<Tried> {
  const fd = openSync(path, "r");
  try {
    return await tryAll(fd, user);
  } finally {
    closeSync(fd);
  }
}

async function tryColumn(app: TestApp, { request, seal }: Column): Promise<Readonly<Record<Row["by"], Tried>>> {
  const region = await app.create({ ...request, byte_size: 8192 });
  const path = pathOf(app, region);
  const open = await tryReading(path, asUser(group));
  const kept = openSync(path, "r+");
  try {
    await app.seal(region.id, seal);
    return {
      open,
      member: await tryReading(path, asUser(group)),
      stranger: await tryReading(path, asUser(nobody)),
      writer: await tryAll(kept, asUser(nobody)),
      own: await tryReading(path, []),
    };
  } finally {
    closeSync(kept);
  }
}

testWith(needsRoot, needsPython)("docs/security.md has the table of what the kernel refuses whom", async () => {
  const app = await TestApp.open();
  const tried = await Promise.all(columns.map((column) => tryColumn(app, column)));
  await app.close();
  expect(app.mistakes).toEqual([]);
  const toCell = (said: string | null | undefined) => (said === null ? "**can**" : `no (${said})`);
  const lines = [
    `| who | what | ${columns.map(({ title }) => title).join(" | ")} |`,
    `|---|---|${columns.map(() => "---|").join("")}`,
    ...rows.map(
      ({ who, what, key, by }) =>
        `| ${who} | ${what} | ${tried.map((column) => toCell(column[by][key])).join(" | ")} |`,
    ),
  ];
  console.log(lines.join("\n"));
  const document = readFileSync(join(root, "docs/security.md"), "utf8");
  expect(document.includes(`\n${lines.join("\n")}\n`), "it has the table that was printed").toBeTrue();
  // Whatever the document says: what is sealed in a memfd nobody changes, and no other uid opens it.
  const [memfd] = tried.slice(-1);
  for (const by of ["member", "stranger", "writer", "own"] as const) {
    const { read, "reopen-read": reread, ...changes } = memfd?.[by] ?? {};
    expect([by, read]).toEqual([by, null]);
    expect(Object.values(changes)).not.toContain(null);
    if (by !== "own") expect([by, reread]).toEqual([by, "EACCES"]);
  }
});
