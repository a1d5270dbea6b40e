/**
 * Those who play: a server on an instance of its own, and the actors, in Python and Node. Whatever happens, `Cast.end`
 * leaves none of them, and nothing of the instance.
 */

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure, root, throwIfStopped } from "../scripts/lib/process.mjs";
import { python, pythonEnvironment } from "../scripts/lib/python-packages.mjs";
import { bun } from "../scripts/lib/server-packages.mjs";
import { Actor } from "./actor.mjs";

/** Longer than a busy machine takes to import torch in three processes. */
const deadlineMs = 180_000;
const pollMs = 10;

/** Waits until `condition` gives something, and says what was waited for if it never does. */
export async function until(what, condition) {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    throwIfStopped();
    const value = await condition();
    if (value) return value;
    if (performance.now() > deadline) throw new Failure(`Waited ${deadlineMs / 1000} s in vain until ${what}.`);
    await sleep(pollMs);
  }
}

export class Cast {
  #environment;
  #actors = [];
  #server;
  #log;

  constructor(shmDirectory) {
    this.shmDirectory = shmDirectory;
    this.instance = `demo-${process.pid}`;
    this.socket = `${shmDirectory}/tensord.${this.instance}/http.sock`;
    this.#log = join(tmpdir(), `tensord.${this.instance}.log`);
    const own = Object.entries(pythonEnvironment()).filter(([name]) => !name.startsWith("TENSORD_"));
    this.#environment = {
      ...Object.fromEntries(own),
      TENSORD_INSTANCE: this.instance,
      TENSORD_SHM_DIR: shmDirectory,
      TENSORD_PORT: "",
      // Everything is on this machine already: no library shall ask a model hub, or show how far it is.
      HF_HUB_OFFLINE: "1",
      TQDM_DISABLE: "1",
    };
  }

  /** Everybody who comes from now on has these in the environment too. */
  lead(environment) {
    Object.assign(this.#environment, environment);
  }

  get serverPid() {
    return this.#server.pid;
  }

  /** Starts the server and waits until it welcomes requests. */
  async startServer() {
    const log = openSync(this.#log, "a");
    this.#server = spawn(bun, this.#command("serve"), {
      env: this.#environment,
      stdio: ["ignore", log, log],
      detached: true,
    });
    await until("the server was ready", async () => {
      if (this.#server.exitCode !== null) throw new Failure(`The server ended:\n${readFileSync(this.#log, "utf8")}`);
      return (await this.call("GET", "/readyz").catch(() => undefined))?.status === 200;
    });
  }

  /** Ends the server by `signal`. @returns its exit status, or the signal that ended it */
  async endServer(signal) {
    const { exitCode, signalCode } = this.#server;
    if (exitCode !== null || signalCode !== null) return signalCode ?? exitCode;
    const ended = once(this.#server, "exit");
    this.#server.kill(signal);
    const [code, by] = await ended;
    return by ?? code;
  }

  /** One request over the Unix socket. @returns {Promise<{ status: number, body: any }>} */
  call(method, path) {
    return new Promise((resolve, reject) => {
      const outgoing = request({ socketPath: this.socket, method, path }, (answer) => {
        let text = "";
        answer.setEncoding("utf8");
        answer.on("data", (chunk) => {
          text += chunk;
        });
        answer.on("end", () => resolve({ status: answer.statusCode, body: JSON.parse(text) }));
        answer.on("error", reject);
      });
      outgoing.on("error", reject);
      outgoing.end();
    });
  }

  /** The region as the server describes it now. */
  async find(id) {
    const { status, body } = await this.call("GET", `/v1/regions/${id}`);
    if (status !== 200) throw new Failure(`The server does not know ${id}: ${body.detail}`);
    return body;
  }

  python(script, ...args) {
    return this.#engage(python, script, args);
  }

  node(script, ...args) {
    return this.#engage(process.execPath, script, args);
  }

  #engage(command, script, args) {
    const actor = new Actor(command, script, args, { cwd: join(root, "demo"), env: this.#environment });
    this.#actors.push(actor);
    return actor;
  }

  /** Removes everything of the instance, whose server must be down. @returns what it says */
  purge() {
    const { status, stdout, stderr } = spawnSync(bun, this.#command("purge"), {
      env: this.#environment,
      encoding: "utf8",
    });
    if (status !== 0) throw new Failure(`Cannot purge instance ${this.instance}: ${stderr}`);
    return stdout.trim();
  }

  /** The names in the shared memory directory that carry the instance's. */
  names() {
    return readdirSync(this.shmDirectory).filter((name) => name.startsWith(`tensord.${this.instance}`));
  }

  /** Instances of other demos, running or left behind. */
  otherDemos() {
    const names = readdirSync(this.shmDirectory).map((name) => /^tensord\.(demo-\d+)$/.exec(name)?.[1]);
    return names.filter((instance) => instance !== undefined && instance !== this.instance);
  }

  /** Ends everybody now. For a story that was broken off; after one that went well it finds nothing to do. */
  async end() {
    await Promise.all(this.#actors.map((actor) => actor.kill()));
    if (this.#server !== undefined) await this.endServer("SIGKILL");
    if (this.names().length > 0) this.purge();
    rmSync(this.#log, { force: true });
  }

  #command(name) {
    return ["--no-env-file", "--no-install", "--no-orphans", join(root, "src/main.ts"), name];
  }
}
