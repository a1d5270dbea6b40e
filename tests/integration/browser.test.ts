/**
 * What a web page can do to a server on the same machine, in a real browser: a page of another origin, and one whose own name
 * was rebound to us. The same page, from an origin that the operator allows, is the control: there the same attempts come through.
 */

import { expect } from "bun:test";
import { connect, createServer, type Server, type Socket } from "node:net";
import { Browser, needsChromium } from "../harness/browser.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { within } from "../harness/server-wait.ts";

/** What the page tries, each by a name: `refused`, or what came of it. */
type Report = Readonly<Record<string, string>>;

/** `target` is the server across origins; without one the page's own origin, which by then is ours. */
const toPage = (
  target: string,
  region: string,
  session: string,
) => `<!doctype html><meta charset="utf-8"><script type="module">
const target = ${JSON.stringify(target)} || location.origin;
const socket = target.replace("http", "ws");
const outcome = async (action) => { try { return await action(); } catch { return "refused"; } };
const read = (path, init) => outcome(async () => {
  const response = await fetch(target + path, init);
  return response.ok ? "read" : response.status === 403 ? "refused" : String(response.status);
});
const opens = (path) => outcome(() => new Promise((resolve) => {
  const one = new WebSocket(socket + path);
  one.onopen = () => resolve("opened");
  one.onerror = () => resolve("refused");
}));
const loads = (tag, attribute, path) => outcome(() => new Promise((resolve) => {
  const element = document.createElement(tag);
  element.onload = () => resolve("loaded");
  element.onerror = () => resolve("refused");
  element[attribute] = target + path;
  document.head.append(element);
}));
if (!${JSON.stringify(target)}) await fetch("/rebind", { method: "POST" });
const json = { method: "POST", headers: { "content-type": "application/json" } };
const report = {
  stats: await read("/v1/stats"),
  metrics: await read("/metrics"),
  credentials: await read("/v1/regions", { credentials: "include" }),
  create: await read("/v1/regions", { ...json, body: '{"byte_size":64,"ttl_ms":3600000,"name":"made-by-a-page"}' }),
  remove: await read("/v1/regions/${region}", { method: "DELETE" }),
  events: await read("/v1/events", { headers: { accept: "text/event-stream" }, signal: AbortSignal.timeout(60000) }),
  stream: await outcome(() => new Promise((resolve) => {
    const source = new EventSource(target + "/v1/events");
    source.onmessage = () => { source.close(); resolve("heard"); };
    source.onerror = () => { source.close(); resolve("refused"); };
  })),
  eventSocket: await opens("/v1/events/ws"),
  holdSocket: await opens("/v1/sessions/${session}/hold"),
  script: await loads("script", "src", "/openapi.json"),
  image: await loads("img", "src", "/v1/stats"),
};
// Nobody reads what these are answered with: what counts is what they did.
for (const [path, method] of [["/v1/evict", "POST"], ["/v1/sessions/${session}", "POST"], ["/v1/regions", "POST"]])
  await outcome(() => fetch(target + path, { method, mode: "no-cors", body: '{"bytes":1}', headers: { "content-type": "text/plain" } }));
await fetch("//" + location.hostname + ":REPORT/report", { method: "POST", mode: "no-cors", body: JSON.stringify(report) });
</script>`;

/** Serves the page once, and from \`/rebind\` on leads every connection to \`target\`: as a name whose address changes. */
class PageServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isRebound = false;
  readonly report: Promise<Report>;

  private constructor(server: Server, report: Promise<Report>, onSocket: (use: (socket: Socket) => void) => void) {
    this.#server = server;
    this.report = report;
    onSocket((socket) => this.#take(socket));
  }

  static async open(toText: (reportPort: number) => string, target: number): Promise<PageServer> {
    const reported = Promise.withResolvers<Report>();
    const reports = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      async fetch(request) {
        if (new URL(request.url).pathname === "/report") reported.resolve((await request.json()) as Report);
        return new Response(null, { status: 204 });
      },
    });
    let use: (socket: Socket) => void = () => {};
    const server = createServer((socket) => use(socket));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const page = new PageServer(
      server,
      reported.promise.finally(() => void reports.stop(true)),
      (take) => {
        use = take;
      },
    );
    page.#text = toText(reports.port ?? 0);
    page.#target = target;
    return page;
  }

  #text = "";
  #target = 0;

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  #take(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => {});
    if (this.#isRebound) {
      const onward = connect(this.#target, "127.0.0.1");
      this.#sockets.add(onward);
      onward.on("error", () => socket.destroy());
      socket.pipe(onward);
      onward.pipe(socket);
      return;
    }
    socket.once("data", (data) => {
      if (String(data).startsWith("POST /rebind")) this.#isRebound = true;
      const head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
      socket.end(`${head}Content-Length: ${Buffer.byteLength(this.#text)}\r\n\r\n${this.#text}`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const hour = 3_600_000;
const attempts = [
  "stats",
  "metrics",
  "credentials",
  "create",
  "remove",
  "events",
  "stream",
  "eventSocket",
  "holdSocket",
  "script",
  "image",
];

/** What a page of `host` saw of a server that lets `friend.example` in, and what stands there after it. */
async function visit(host: string, isRebound: boolean) {
  await using server = await startServer({ env: { TENSORD_PORT: "0", TENSORD_ALLOWED_HOSTS: "friend.example" } });
  server.log.expect(/every local user can reach/);
  const target = await server.readUrl();
  const make = async (path: string, body: object) =>
    (await server.api.request("POST", path, body)).body as { id: string };
  const region = await make("/v1/regions", { byte_size: 64, ttl_ms: hour, name: "weights" });
  const session = await make("/v1/sessions", { ttl_ms: hour });
  const toText = (port: number) =>
    toPage(isRebound ? "" : target, region.id, session.id).replace("REPORT", String(port));
  await using page = await PageServer.open(toText, Number(new URL(target).port));
  await using _ = new Browser(`http://${host}:${page.port}/`, [host]);
  const report = await within("the page tells what it saw", page.report);
  const { items } = (await server.api.request("GET", "/v1/regions")).body as { items: { name: string | null }[] };
  const { held } = (await server.api.request("GET", `/v1/sessions/${session.id}`)).body as { held: boolean };
  return { report, names: items.map(({ name }) => name), held };
}

const nothing = Object.fromEntries(attempts.map((attempt) => [attempt, "refused"]));
const claim = testWith(needsChromium);

claim(
  "a page of another origin is refused on REST, on Server-Sent Events and on both WebSockets, and changes nothing",
  async () => {
    expect(await visit("evil.example", false)).toEqual({ report: nothing, names: ["weights"], held: false });
  },
);

claim("a page whose own name was rebound to the server is refused everywhere, too", async () => {
  expect(await visit("evil.example", true)).toEqual({ report: nothing, names: ["weights"], held: false });
});

claim(
  "a page under a name that the operator allows comes through: what the others tried is what a page can do",
  async () => {
    const { report, names } = await visit("friend.example", true);
    expect(report).toMatchObject({
      stats: "read",
      create: "read",
      remove: "read",
      stream: "heard",
      eventSocket: "opened",
      holdSocket: "opened",
    });
    expect(names).toEqual(["made-by-a-page"]);
  },
);
