/** The files of `examples`, run as they stand on a server of the test's own: what several workers use is built once, and one copy. */

import { afterAll, expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { CudaStandIn, needsStandIn } from "../harness/cuda-stand-in.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsStockPython, root, stockPython, testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, node } from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until, within } from "../harness/server-wait.ts";

const examples = join(root, "examples");
const last = ((1 << 20) - 1) ** 2;

const folder = mkdtempSync(join(tmpdir(), "tensord-examples-"));
afterAll(() => {
  rmSync(folder, { recursive: true });
  return assertNothingLeft();
});

function start(server: TestServer, command: readonly string[], more: Readonly<Record<string, string>> = {}) {
  const { shmDirectory, name } = server.instance;
  const env = { PATH: process.env.PATH ?? "", TENSORD_SHM_DIR: shmDirectory, TENSORD_INSTANCE: name, ...more };
  return Bun.spawn([...command], { cwd: examples, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
}

/** Runs a program to its end. @returns what it printed */
async function run(server: TestServer, command: readonly string[], more = {}): Promise<string> {
  const child = start(server, command, more);
  try {
    const ending = Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    const [stdout, stderr, status] = await within(`${command.join(" ")} ends`, ending);
    expect([status, stderr]).toEqual([0, ""]);
    return stdout;
  } finally {
    child.kill("SIGKILL");
  }
}

interface Served {
  readonly pid: number;
  readonly region: string;
  readonly last: number;
}

interface Scored {
  readonly pid: number;
  readonly score: number;
  readonly private: number;
}

/** Asks web workers behind a socket until two of them have answered, looks at them, and stops them. @returns an answer of each */
async function askTwo<Answer extends { pid: number } = Served>(
  server: TestServer,
  socket: string,
  command: readonly string[],
  more = {},
  look: (answers: readonly Answer[]) => Promise<void> = async () => {},
): Promise<Answer[]> {
  const web = start(server, command, more);
  const errors = web.stderr.text();
  const answers = new Map<number, Answer>();
  const askOne = async () => {
    const answer = await fetch("http://localhost/", { unix: socket, keepalive: false }).catch(() => undefined);
    if (answer?.status !== 200) return;
    const served = (await answer.json()) as Answer;
    answers.set(served.pid, served);
  };
  const ask = async () => {
    if (web.exitCode !== null) throw new Error(`the web server has ended: ${await errors}`);
    // While one worker has a question, the other takes the next.
    await Promise.all([askOne(), askOne()]);
    return answers.size > 1;
  };
  try {
    await until("two workers have answered", ask);
    await look([...answers.values()]);
  } finally {
    web.kill("SIGTERM");
    await within("the web server ends", web.exited).finally(() => web.kill("SIGKILL"));
  }
  return [...answers.values()];
}

/** One region, which one worker built: who builds anew makes another one. */
function expectOneCopy(answers: readonly Served[], value: number): void {
  expect(answers.map((answer) => answer.last)).toEqual(answers.map(() => value));
  expect(new Set(answers.map(({ region }) => region)).size).toBe(1);
}

testWith(needsStockPython)("gunicorn's workers serve from one copy", async () => {
  await using server = await startServer();
  const socket = join(folder, "gunicorn.sock");
  const options = ["--workers", "2", "--no-control-socket", "--bind", `unix:${socket}`];
  const answers = await askTwo(server, socket, [stockPython, "-m", "gunicorn", ...options, "gunicorn_app:application"]);
  expectOneCopy(answers, last);
});

/** What of the file at `path` a process has mapped. */
function mapped(pid: number, path: string) {
  const mappings = readFileSync(`/proc/${pid}/smaps`, "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const ours = mappings.filter((text) => text.split("\n", 1)[0]?.endsWith(` ${path}`));
  const sum = (field: string) =>
    ours.reduce((total, text) => total + Number(new RegExp(`^${field}: +(\\d+) kB`, "m").exec(text)?.[1] ?? 0), 0);
  return { mappings: ours.length, touched: sum("Rss"), copied: sum("Anonymous") };
}

testWith(needsStockPython)("uvicorn's workers serve from one copy, of which none has pages of its own", async () => {
  await using server = await startServer();
  const socket = join(folder, "uvicorn.sock");
  const command = [stockPython, "-m", "uvicorn", "--workers", "2", "--uds", socket, "uvicorn_app:application"];
  const look = async (answers: readonly Served[]) => {
    const { storage } = await server.api.get(answers[0]?.region ?? "");
    for (const { pid } of answers) {
      const { mappings, touched, copied } = mapped(pid, storage.path ?? "");
      expect([mappings > 0, touched > 0, copied]).toEqual([true, true, 0]);
    }
  };
  expectOneCopy(await askTwo(server, socket, command, {}, look), last);
});

// Looked for, not imported, which takes seconds.
const findTorch = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)";
const needsTorch =
  needsStockPython ?? (Bun.spawnSync([stockPython, "-c", findTorch]).success ? undefined : "needs torch in the Python");

testWith(needsTorch)("gunicorn's workers use one copy of a module's weights", async () => {
  await using server = await startServer();
  const socket = join(folder, "torch.sock");
  // torch is imported once, before the workers are forked, and nobody counts how long they take.
  const options = ["--preload", "--timeout", "0", "--workers", "2", "--no-control-socket", "--bind", `unix:${socket}`];
  const command = [stockPython, "-m", "gunicorn", ...options, "torch_module:application"];
  const answers = await askTwo<Scored>(server, socket, command);
  expect(new Set(answers.map(({ score }) => score)).size).toBe(1);
  expect(answers.map((answer) => answer.private)).toEqual([0, 0]);
  const events = await server.api.call<{ items: unknown[] }>("GET", "/v1/events?types=tensord.region.sealed");
  expect(events.items).toHaveLength(1);
});

testWith(needsTorch)("the workers of a DataLoader read one copy", async () => {
  await using server = await startServer();
  const count = 1024 * 16;
  expect(Number(await run(server, [stockPython, "data_loader.py"]))).toBeCloseTo((count * (count - 1)) / 2, -4);
  const events = await server.api.call<{ items: unknown[] }>("GET", "/v1/events?types=tensord.region.sealed");
  expect(events.items).toHaveLength(1);
});

testWith(needsStockPython ?? needsStandIn)("two models' KV caches take turns with one GPU's memory", async () => {
  const page = 2 * 2 ** 20;
  // Less than both peaks together.
  await using cuda = new CudaStandIn({ devices: [{ bytes: 30 * page }] });
  await using server = await startServer({ env: cuda.env });
  const lines = (await run(server, [stockPython, "kv_cache.py"], cuda.env)).trim().split("\n");
  const told = lines.map((line) => JSON.parse(line) as Record<string, unknown>).sort(byModel);
  const each = { peak_bytes: 20 * page, whole: true, moved: false };
  expect(told).toEqual([
    { model: "chat", ...each },
    { model: "search", ...each },
  ]);
  await until("the memory is free", () => cuda.inUse().every(({ kind }) => kind !== "memory"));
});

const byModel = (a: Record<string, unknown>, b: Record<string, unknown>) =>
  String(a.model).localeCompare(String(b.model));

testWith(needsNodeClient)("the workers of Node's cluster serve from one copy", async () => {
  await using server = await startServer();
  const socket = join(folder, "cluster.sock");
  const answers = await askTwo(server, socket, [node, "cluster.mjs"], { PORT: socket });
  expectOneCopy(answers, (1 << 20) - 1);
});

interface Container {
  readonly image: string;
  readonly volumeMounts: readonly unknown[];
  readonly [key: string]: unknown;
}

testWith()("the pod's containers share one /dev/shm, and its server is this version's, locked up", async () => {
  const { kind, spec } = Bun.YAML.parse(readFileSync(join(examples, "kubernetes.yaml"), "utf8")) as {
    kind: string;
    spec: { initContainers: Container[]; containers: Container[]; volumes: unknown[]; securityContext: object };
  };
  expect(kind).toBe("Pod");
  expect(spec.volumes).toMatchObject([{ name: "shm", emptyDir: { medium: "Memory", sizeLimit: "8Gi" } }]);
  for (const { volumeMounts } of [...spec.initContainers, ...spec.containers]) {
    expect(volumeMounts).toEqual([{ name: "shm", mountPath: "/dev/shm" }]);
  }
  // The group of the image's user.
  expect(spec.securityContext).toEqual({ fsGroup: 65532 });
  expect(spec.initContainers).toMatchObject([
    {
      ...{ image: `tensord:${packageJson.version}`, args: ["serve"], restartPolicy: "Always" },
      env: [{ name: "TENSORD_PORT", value: "" }],
      securityContext: { readOnlyRootFilesystem: true, allowPrivilegeEscalation: false },
    },
  ]);
});
