/**
 * Requests that schemathesis makes from `openapi.yaml`, right ones and wrong ones, in all four of its phases: no answer is a
 * failure of the server's own, each is as the document has it, nothing is left of them, and another client notices nothing.
 * `npm test -- --long tests/faults/api-fuzz.test.ts` is the long form. What it finds becomes a file of `tests/hostile/requests`.
 */

import { expect } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Region } from "../harness/answers.ts";
import { BrokerClient } from "../harness/broker-client.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { Random } from "../harness/instance-random.ts";
import { deadlineMsOf, isLong, roundsOf } from "../harness/rounds.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { TokensPath, tokenOf } from "../harness/tokens-file.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;
const schemathesis = join(root, ".tmp/schemathesis/bin/schemathesis");
const document = join(root, "openapi.yaml");
const needsSchemathesis = existsSync(schemathesis) ? undefined : "needs .tmp/schemathesis, which `npm test` makes";

/** Requests of each operation that are made by chance. */
const examples = roundsOf("api-fuzz");
/** Walks along what answers lead to, for each of these: a walk has up to 12 steps, and all operations share them. */
const walks = isLong ? 15 : 5;
const phases = ["Examples", "Coverage", "Fuzzing", "Stateful"];

const witness = "witness";
const content = Buffer.from("nobody disturbs this");

/** What counts as right beyond the document: failures that it declares, and refusals for what a schema cannot say. */
const settings = `
hooks = "${join(root, "tests/faults/api-fuzz/hooks.py")}"
continue-on-failure = true
request-timeout = 120
max-redirects = 0
warnings = false

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501, 503, 504, 507]

[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 412, 413, 416, 422, "5xx"]

[phases.stateful]
max-steps = 12
generation = { mode = "positive", max-examples = ${examples * walks} }
`;

/** In the short form a run makes requests by rule and by chance of one in so many operations; examples and walks are of all. */
const shares = isLong ? 1 : 4;

/** Leaves out the operations whose turn it is not with this seed. */
function settingsOf(seed: number): string {
  const ids = [...readFileSync(document, "utf8").matchAll(/operationId: (\w+)/g)].map(([, id]) => id);
  const others = ids.filter((_, index) => (index + seed) % shares !== 0);
  if (others.length === 0) return settings;
  const off = ["coverage", "fuzzing"].map((phase) => `phases.${phase}.enabled = false`);
  return [settings, "[[operations]]", `include-operation-id = ${JSON.stringify(others)}`, ...off, ""].join("\n");
}

/** All of them, but for two that compare callers: nobody authenticates in the document. */
const checks = [
  ...["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"],
  ...["response_schema_conformance", "negative_data_rejection", "positive_data_acceptance", "missing_required_header"],
  ...["unsupported_method", "allow_header_conformance", "use_after_free", "ensure_resource_availability"],
];

function countOpen({ pid }: TestServer): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

function readMemoryBytes({ pid }: TestServer): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

/** Who asks over the Unix socket, with a token. */
class Caller {
  readonly #server: TestServer;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(server: TestServer, name: string) {
    this.#server = server;
    this.#headers = { authorization: `Bearer ${tokenOf(name)}` };
  }

  async call<Body>(method: string, path: string, body?: unknown): Promise<Body> {
    const isBytes = Buffer.isBuffer(body);
    const response = await fetch(`http://localhost${path}`, {
      ...{ method, unix: this.#server.instance.socket },
      headers: { ...this.#headers, ...(body !== undefined && !isBytes && { "content-type": "application/json" }) },
      ...(body !== undefined && { body: isBytes ? body : JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return (response.headers.get("content-type")?.startsWith("application/json") ? JSON.parse(text) : text) as Body;
  }
}

/** A worker beside it, with a model, a session and a sealed region of its own, over HTTP and the broker. */
class Witness implements Disposable {
  readonly #caller: Caller;
  readonly #broker: BrokerClient;
  readonly #region: Region;
  rounds = 0;

  private constructor(caller: Caller, broker: BrokerClient, region: Region) {
    this.#caller = caller;
    this.#broker = broker;
    this.#region = region;
  }

  static async begin(server: TestServer, admin: Caller): Promise<Witness> {
    const caller = new Caller(server, witness);
    await admin.call("POST", "/v1/models", { name: witness });
    const owner = { model: witness, name: "weights", persist: true };
    const spec = { ...owner, storage: "memfd", byte_size: content.length };
    const region = await caller.call<Region>("POST", "/v1/regions", spec);
    await caller.call("PUT", `/v1/regions/${region.id}/data`, content);
    await caller.call("POST", `/v1/regions/${region.id}/seal`, { checksum: true });
    const session = { name: witness, ttl_ms: hour };
    const broker = await BrokerClient.open(server.instance.broker, { token: tokenOf(witness), session });
    return new Witness(caller, broker, region);
  }

  /** What a worker does all day. @throws if any of it is not as it was. */
  async look(): Promise<void> {
    const { id } = this.#region;
    const path = `/v1/models/${witness}/regions/weights`;
    expect(await this.#caller.call(`GET`, path)).toMatchObject({ id, state: "sealed", checksum: expect.anything() });
    const { descriptors } = await this.#broker.attach(id);
    const [fd = -1] = descriptors;
    const read = Buffer.alloc(content.length);
    readSync(fd, read, 0, read.length, this.#region.tensors[0]?.byte_offset ?? 0);
    expect(read).toEqual(content);
    this.#broker.letGo(descriptors);
    expect(await this.#caller.call<string>("GET", `/v1/regions/${id}/data`)).toBe(content.toString());
    expect(await this.#caller.call("POST", `/v1/regions/${id}/verify`)).toMatchObject({ ok: true });
    const { items } = await this.#caller.call<{ items: readonly object[] }>("GET", "/v1/sessions");
    expect(items).toMatchObject([{ name: witness }]);
    this.rounds += 1;
  }

  [Symbol.dispose](): void {
    this.#broker.close();
  }
}

/** Deletes what the requests have made. */
async function tidy(admin: Caller): Promise<void> {
  interface Page {
    readonly items: readonly { readonly id: string; readonly name: string | null; readonly model: string }[];
  }
  const others = async (path: string) => (await admin.call<Page>("GET", `${path}?limit=1000`)).items;
  for (const { id, name } of await others("/v1/sessions"))
    if (name !== witness) await admin.call("DELETE", `/v1/sessions/${id}`);
  for (const { id, model } of await others("/v1/regions"))
    if (model !== witness) await admin.call("DELETE", `/v1/regions/${id}`).catch(ignoreMissing);
}

/** What lingers may be gone by now. */
function ignoreMissing(error: unknown): void {
  if (!(error as Error).message.includes("region-not-found")) throw error;
}

/** Runs it to its end, with `look` all the while. @returns what it printed. */
async function fuzz(server: TestServer, seed: number, look: () => Promise<void>): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "tensord-api-fuzz-"));
  try {
    writeFileSync(join(folder, "schemathesis.toml"), settingsOf(seed));
    const options = ["--seed", `${seed}`, "--max-examples", `${examples}`, "--generation-database", "none"];
    const run = ["run", document, "--url", await server.readUrl(), "--checks", checks.join(",")];
    const child = Bun.spawn([schemathesis, ...run, ...options, "--no-shrink", "--no-color"], {
      cwd: folder,
      env: {
        // What it imports is compiled once and kept: that takes it longer than some requests.
        ...{ PATH: process.env.PATH ?? "", HOME: folder },
        ...{ FUZZ_ADMIN_TOKEN: tokenOf("admin"), FUZZ_WORKER_TOKEN: tokenOf("fuzz"), FUZZ_WITNESS_MODEL: witness },
      },
      stdout: "pipe",
      stderr: "pipe",
    });
    try {
      const printed = Promise.all([child.stdout.text(), child.stderr.text()]);
      while (child.exitCode === null && child.signalCode === null) {
        await look();
        await Promise.race([child.exited, Bun.sleep(200)]);
      }
      return (await printed).join("\n");
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

testWith(needsSchemathesis)(
  `what schemathesis makes of the document, ${examples} requests of an operation by chance, is answered as the document has it`,
  async () => {
    const { seed } = new Random();
    console.log(`TEST_SEED=${seed}`);
    const worker = (name: string) => ({ name, role: "worker", token: tokenOf(name) });
    using tokens = new TokensPath([{ ...worker("admin"), role: "admin" }, worker("fuzz"), worker(witness)]);
    await using server = await startServer({
      env: { TENSORD_PORT: "0", TENSORD_TOKENS_FILE: tokens.path, TENSORD_MEMORY_LIMIT_BYTES: `${256 * MiB}` },
    });
    server.log.expect(/^tensord\.pool\.pressure$/);
    const admin = new Caller(server, "admin");
    using beside = await Witness.begin(server, admin);
    await beside.look();
    const [openBefore, memoryBefore] = [countOpen(server), readMemoryBytes(server)];
    const printed = await fuzz(server, seed, () => beside.look());
    // All of what it printed is worth seeing, and only then.
    const ended = phases.map((phase) => [phase, printed.includes(`✅  ${phase} (in `)]);
    if (!printed.includes("No issues found") || ended.some(([, isDone]) => !isDone)) throw new Error(printed);
    expect(beside.rounds).toBeGreaterThan(1);
    await beside.look();
    await tidy(admin);
    await until("nothing of it is left open", () => countOpen(server) <= openBefore);
    expect(readMemoryBytes(server) - memoryBefore).toBeLessThan(128 * MiB);
    await admin.call("DELETE", `/v1/models/${witness}/regions/weights`);
  },
  // It takes many times as long on a machine that is busy with something else.
  deadlineMsOf(examples + 20, 30_000),
);
