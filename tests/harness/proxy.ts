/**
 * nginx and haproxy as processes of a test: of the host's own packages, on a free port, with a configuration in a
 * directory of their own, and gone afterwards. The system's service and its files are left alone.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./instance-needs.ts";
import { until } from "./server-wait.ts";

/** Debian puts them where only root's PATH leads. */
const find = (name: string) => Bun.which(name, { PATH: `${process.env.PATH}:/usr/sbin:/usr/local/sbin` });
const nginx = find("nginx");
const haproxy = find("haproxy");

const reason = (name: string, path: string | null) =>
  path === null ? `needs ${name} (Debian: apt-get install ${name === "nginx" ? "nginx-light" : name})` : undefined;
export const needsNginx = reason("nginx", nginx);
export const needsHaproxy = reason("haproxy", haproxy);

/** A port that nobody listened on a moment ago. */
export async function findPort(): Promise<number> {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
  const { port = 0 } = server;
  await server.stop(true);
  return port;
}

/** The example of `docs/proxies.md` in that language. */
export function readExample(language: "nginx" | "haproxy"): string {
  const text = readFileSync(join(root, "docs/proxies.md"), "utf8");
  const example = new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "ms").exec(text)?.[1];
  if (example === undefined) throw new Error(`docs/proxies.md has no example for ${language}`);
  return example;
}

/** `text` with each of the parts replaced, which must be there. */
export function adapt(text: string, replacements: Readonly<Record<string, string>>): string {
  return Object.entries(replacements).reduce((all, [part, other]) => {
    if (!all.includes(part)) throw new Error(`the example does not have ${JSON.stringify(part)}`);
    return all.replaceAll(part, other);
  }, text);
}

export class FrontProxy implements AsyncDisposable {
  readonly port: number;
  readonly #directory: string;
  readonly #process: Bun.Subprocess<"ignore", "pipe", "pipe">;

  private constructor(port: number, directory: string, command: readonly string[]) {
    this.port = port;
    this.#directory = directory;
    this.#process = Bun.spawn([...command], { cwd: directory, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  }

  /** @param configuration of the whole process, as in the documents. */
  static async nginx(port: number, configuration: string): Promise<FrontProxy> {
    const directory = mkdtempSync(join(tmpdir(), "tensord-proxy-"));
    const folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    const own = [...folders.map((name) => `${name}_temp_path ${directory}/${name};`), "access_log off;"];
    // Its workers run as whoever runs the test.
    writeFileSync(join(directory, "nginx.conf"), adapt(configuration, { "http {\n": `http {\n${own.join("\n")}\n` }));
    const user = process.getuid?.() === 0 ? "user root; " : "";
    const globals = `${user}daemon off; worker_processes 1; pid ${directory}/pid; error_log stderr warn;`;
    const command = [nginx ?? "", "-p", directory, "-c", "nginx.conf", "-e", "stderr", "-g", globals];
    return await new FrontProxy(port, directory, command).#listening();
  }

  static async haproxy(port: number, configuration: string): Promise<FrontProxy> {
    const directory = mkdtempSync(join(tmpdir(), "tensord-proxy-"));
    const own = `global\n  stats socket ${directory}/stats\n\n`;
    writeFileSync(join(directory, "haproxy.cfg"), own + configuration);
    return await new FrontProxy(port, directory, [haproxy ?? "", "-db", "-f", "haproxy.cfg"]).#listening();
  }

  /** Where it listens, without a path. */
  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** What haproxy's check says of a server now, such as `UP L7OK 200`. */
  async readCheck(backend: string): Promise<string> {
    const table = await ask(join(this.#directory, "stats"), "show stat\n");
    const [head = "", ...rows] = table.replace(/^# /, "").split("\n");
    const names = head.split(",");
    const row = rows.map((line) => line.split(",")).find(([at, server]) => at === backend && server === "local") ?? [];
    const cell = (name: string) => row[names.indexOf(name)] ?? "";
    return `${cell("status")} ${cell("check_status")} ${cell("check_code")}`.trim();
  }

  async #listening(): Promise<this> {
    await until("the proxy listens", async () => {
      if (this.#process.exitCode !== null) throw new Error(`the proxy ended: ${await this.#process.stderr.text()}`);
      return await isListening(this.port);
    });
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Both take it for the wish to end at once, workers included.
    this.#process.kill("SIGTERM");
    await this.#process.exited;
    rmSync(this.#directory, { recursive: true });
  }
}

function isListening(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1");
  socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
  return promise.finally(() => socket.destroy());
}

/** What is answered on a Unix socket until its other side ends the connection. */
function ask(path: string, question: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect(path, () => socket.write(question));
  let answer = "";
  socket.setEncoding("utf8").on("data", (text: string) => {
    answer += text;
  });
  socket.once("end", () => resolve(answer)).once("error", reject);
  return promise.finally(() => socket.destroy());
}
