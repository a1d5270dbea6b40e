/** A server that asks for tokens, as people meet it: at its start, on the command line, from the Node client, and over restarts. */

import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsReadableCheckout, testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes } from "../harness/node-program.ts";
import { type ServerOptions, startServer, TestServer } from "../harness/server.ts";
import { startTensord } from "../harness/server-command.ts";
import { until } from "../harness/server-wait.ts";
import { TokensPath, tokenOf } from "../harness/tokens-file.ts";

afterAll(assertNothingLeft);

const hour = 3_600_000;
const lines = [
  { name: "ops", role: "admin", token: tokenOf("ops") },
  { name: "trainer", role: "worker", token: tokenOf("trainer") },
  { name: "dashboard", role: "reader", token: tokenOf("dashboard") },
  { name: "eager", role: "reader", token: tokenOf("eager"), requests_per_second: 1 },
];

const env = (path: string, more: object = {}): ServerOptions => ({ env: { TENSORD_TOKENS_FILE: path, ...more } });
const bearer = (name: string) => ({ authorization: `Bearer ${tokenOf(name)}` });

async function ask(server: TestServer, method: string, path: string, headers: Record<string, string>, body?: object) {
  const unix = server.instance.socket;
  const json = body === undefined ? {} : { body: JSON.stringify(body) };
  const init = { method, unix, headers: { "content-type": "application/json", ...headers }, ...json };
  const response = await fetch(`http://localhost${path}`, init);
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Record<string, unknown>,
  };
}

describe("a server with tokens", () => {
  test("asks for one on the Unix socket as on TCP, and no other than the header has", async () => {
    using file = new TokensPath(lines);
    await using server = await startServer(env(file.path, { TENSORD_PORT: "0" }));
    const url = await server.readUrl();
    const secret = tokenOf("ops");
    for (const path of [
      "/v1/stats",
      `/v1/stats?token=${secret}`,
      `/v1/stats?access_token=${secret}`,
      "/metrics",
      "/v1/doctor",
    ]) {
      for (const headers of [
        {},
        { cookie: `token=${secret}` },
        { "x-token": secret },
        { authorization: `Basic ${btoa(`ops:${secret}`)}` },
      ]) {
        expect((await ask(server, "GET", path, headers as Record<string, string>)).status).toBe(401);
        expect((await fetch(url + path, { headers: headers as Record<string, string> })).status).toBe(401);
      }
    }
    for (const path of ["/", "/livez", "/readyz", "/openapi.json", "/asyncapi.json", "/docs"]) {
      expect((await fetch(url + path)).status).toBe(200);
    }
    expect((await fetch(`${url}/nowhere`)).status).toBe(404);
    const answer = await fetch(`${url}/v1/stats`, { headers: bearer("ops") });
    expect(answer.status).toBe(200);
    expect(answer.headers.get("set-cookie")).toBeNull();
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "x-content-type-options": "nosniff",
      "cross-origin-resource-policy": "same-origin",
      "referrer-policy": "no-referrer",
      "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    });
    expect(server.log.find(/every local user can reach/)).toBeUndefined();
    expect(server.log.toString()).not.toContain(secret);
  });

  test("follows its file while it runs, keeps the tokens of before where that is wrong, and says so", async () => {
    using file = new TokensPath(lines);
    await using server = await startServer(env(file.path));
    server.log.expect(/the tokens of before still count/);
    chmodSync(file.path, 0o644);
    const refusal = await until("the log says so", () => server.log.find(/the tokens of before still count/));
    expect(JSON.stringify(refusal)).toContain("its mode is 0644");
    expect((await ask(server, "GET", "/v1/stats", bearer("ops"))).status).toBe(200);
    chmodSync(file.path, 0o600);
    file.write(lines.filter(({ name }) => name !== "dashboard"));
    await until("it counts no longer", async () => {
      return (await ask(server, "GET", "/v1/stats", bearer("dashboard"))).status === 401;
    });
    expect((await ask(server, "GET", "/v1/stats", bearer("ops"))).status).toBe(200);
  });

  test("knows after a crash whose a region, a session and a lease are, and says who deleted", async () => {
    using file = new TokensPath(lines);
    await using server = await startServer(env(file.path));
    const made = (path: string, body: object) => ask(server, "POST", path, bearer("trainer"), body);
    const region = (await made("/v1/regions", { byte_size: 64, ttl_ms: hour })).body;
    const session = (await made("/v1/sessions", { ttl_ms: hour })).body;
    const lease = (await made(`/v1/regions/${region.id}/leases`, { ttl_ms: hour })).body;
    await server.crash();
    const find = async (path: string, name: string) => (await ask(server, "GET", path, bearer(name))).body;
    expect(await find(`/v1/regions/${region.id}`, "ops")).toMatchObject({ created_by: "trainer" });
    expect(await find(`/v1/sessions/${session.id}`, "trainer")).toMatchObject({ created_by: "trainer" });
    expect(await find(`/v1/sessions/${session.id}`, "dashboard")).toMatchObject({ code: "session-not-found" });
    const end = (name: string) => ask(server, "DELETE", `/v1/leases/${lease.id}`, bearer(name));
    expect((await end("dashboard")).status).toBe(403);
    expect((await end("trainer")).status).toBe(200);
    expect((await ask(server, "DELETE", `/v1/regions/${region.id}`, bearer("trainer"))).status).toBe(200);
    const line = await until("the log has it", () => server.log.find(/tensord\.region\.deleted/));
    expect(line).toMatchObject({ actor: "trainer" });
  });
});

/** What a server says that does not start. */
async function refusalOf(environment: Record<string, string>): Promise<string> {
  const server = new TestServer();
  const { status, stderr } = await startTensord(["serve"], { ...server.env, ...environment }).ended;
  expect(status).not.toBe(0);
  return stderr;
}

test("who sets the server's environment runs code in it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-preload-"));
  try {
    const path = join(folder, "preload.js");
    writeFileSync(path, 'console.log("code of somebody else\'s");');
    const { stdout } = await startTensord(["--version"], {
      PATH: process.env.PATH ?? "",
      BUN_OPTIONS: `--preload=${path}`,
    }).ended;
    expect(stdout).toContain("code of somebody else's");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe("a server does not start", () => {
  test("on an address that others reach, without tokens", async () => {
    expect(await refusalOf({ TENSORD_PORT: "0", TENSORD_HOST: "0.0.0.0" })).toContain(
      "together with TENSORD_TOKENS_FILE",
    );
  });

  test("with a file of tokens that others may read, and says how to close it", async () => {
    using file = new TokensPath(lines);
    chmodSync(file.path, 0o644);
    const said = await refusalOf({ TENSORD_TOKENS_FILE: file.path });
    expect(said).toContain("its mode is 0644");
    expect(said).toContain(`chmod 600 ${file.path}, or of a Kubernetes secret`);
  });
});

testWith(needsReadableCheckout())(
  "a server takes root's file of tokens by its group, as a pod finds a secret",
  async () => {
    using file = new TokensPath(lines);
    const uid = 65534;
    chmodSync(join(file.path, ".."), 0o755);
    chmodSync(file.path, 0o440);
    chownSync(file.path, 0, uid);
    await using server = await startServer({ ...env(file.path), uid });
    expect((await ask(server, "GET", "/v1/stats", bearer("ops"))).status).toBe(200);
    expect((await ask(server, "GET", "/v1/stats", {})).status).toBe(401);
  },
);

test("on every address a server with tokens takes any address for its Host, and no foreign name or origin", async () => {
  using file = new TokensPath(lines);
  await using server = await startServer(env(file.path, { TENSORD_PORT: "0", TENSORD_HOST: "0.0.0.0" }));
  const { port } = new URL(await server.readUrl());
  const statusOf = async (headers: Record<string, string>) =>
    (await fetch(`http://127.0.0.1:${port}/v1/stats`, { headers: { ...bearer("ops"), ...headers } })).status;
  expect(await statusOf({ host: "10.1.2.3" })).toBe(200);
  expect(await statusOf({ host: `10.1.2.3:${port}`, origin: `http://10.1.2.3:${port}` })).toBe(200);
  expect(await statusOf({ host: "evil.example" })).toBe(403);
  expect(await statusOf({ host: "10.1.2.3", origin: "http://6.6.6.6" })).toBe(403);
});

test("the command line sends the token of its environment or of a file, waits as it is told to, and takes no other argument", async () => {
  using file = new TokensPath(lines);
  const folder = mkdtempSync(join(tmpdir(), "tensord-token-"));
  await using server = await startServer(env(file.path));
  try {
    const path = join(folder, "token");
    writeFileSync(path, `${tokenOf("trainer")}\n`);
    const run = (args: string[], more: Record<string, string> = {}) =>
      startTensord(args, { ...server.env, ...more }).ended;
    const refused = await run(["ls"]);
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toContain("TENSORD_TOKEN");
    expect(await run(["alloc", "weights", "--size", "64B", "--ttl", "1h", "--token-file", path])).toMatchObject({
      status: 0,
      stderr: "",
    });
    expect((await run(["ls"], { TENSORD_TOKEN: tokenOf("dashboard") })).stdout).toContain("weights");
    const forbidden = await run(["rm", "weights"], { TENSORD_TOKEN: tokenOf("dashboard") });
    expect(forbidden.stderr).toContain('token "dashboard" may not delete region');
    for (let count = 0; count < 3; count++)
      expect((await run(["ls"], { TENSORD_TOKEN: tokenOf("eager") })).status).toBe(0);
    expect((await run(["events", "--no-follow"], { TENSORD_TOKEN_FILE: path })).stdout).toContain("weights");
    expect((await run(["healthcheck"])).status).toBe(0);
    expect((await run(["rm", "weights"], { TENSORD_TOKEN_FILE: path })).status).toBe(0);
    expect((await run(["ls", "--token", tokenOf("ops")])).stderr).toContain("unknown option");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  testWith(needsNodeClient)(
    `${runtime}: a client with a token makes, holds, follows, waits, and is refused what is another's`,
    async () => {
      using file = new TokensPath(lines);
      const folder = mkdtempSync(join(tmpdir(), "tensord-token-"));
      await using server = await startServer(env(file.path));
      try {
        const path = join(folder, "token");
        writeFileSync(path, `${tokenOf("trainer")}\n`);
        const seen = await runProgram<Record<string, unknown>>(
          runtime,
          { ...server.env, TENSORD_TOKEN_FILE: path },
          `
          const client = await connect();
          const events = client.events()[Symbol.asyncIterator]();
          const first = events.next();
          const region = await client.create("weights", new Uint8Array([1, 2]), { ttlMs: ${hour} });
          await region.seal();
          let session;
          do session = await client.session(); while (!session.held);
          const viewer = await connect({ token: "${tokenOf("dashboard")}" });
          const eager = await connect({ token: "${tokenOf("eager")}", session: false });
          const asked = [];
          for (let count = 0; count < 3; count++) asked.push((await eager.stats()).models);
          const wrong = await connect({ token: "${tokenOf("nobody")}" });
          const failure = await wrong.stats().catch((error) => error);
          tell({
            heard: (await first).value.type.startsWith("tensord."),
            isSeen: [...(await viewer.attach("weights")).tensor().array()],
            asked,
            codes: [await codeOf(() => viewer.delete(region.id)), await codeOf(() => viewer.create("mine", new Uint8Array(1)))],
            wrong: [failure.code, failure.hint.includes("TENSORD_TOKEN"), failure.message.includes("nobody-")],
            none: [await codeOf(() => connect({ token: "a b" })), await codeOf(() => connect({ token: 7 }))],
            shown: JSON.stringify([client, region.descriptor]).includes("${tokenOf("trainer")}"),
          });
          await client.delete(region);
          for (const each of [client, viewer, eager, wrong]) await each.close();
        `,
        );
        expect(seen).toEqual({
          heard: true,
          isSeen: [1, 2],
          asked: [1, 1, 1],
          codes: ["forbidden", "forbidden"],
          wrong: ["unauthorized", true, false],
          none: ["validation-failed", "validation-failed"],
          shown: false,
        });
      } finally {
        rmSync(folder, { recursive: true });
      }
    },
  );
}
