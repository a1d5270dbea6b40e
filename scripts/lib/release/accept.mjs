/**
 * What each artefact must do as it is installed, in an empty folder and with an empty home: say its version, start, allocate, be mapped by both
 * clients, tell its events, explain the host, stop, and leave nothing. The same for all of them.
 */

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure, killGroup, run } from "../process.mjs";
import { version } from "./facts.mjs";

/** Longer than an emulated server on a busy machine needs to start, or to stop. */
const patienceMs = 600_000;
const pollMs = 100;

const inPython = `
import numpy as np, tensord
with tensord.connect() as client:
    with client.attach(client.get("accepted"), writable=True) as region:
        region["data"].numpy()[-1] = 7
        region.seal()
    client.create("from-python", {"w": np.arange(6, dtype=np.float32)}, ttl=600).seal()
    print("mapped")
`;

const inNode = `
import { connect } from "@tensord/client";
const client = await connect();
const [made, large] = [await client.attach("from-python"), await client.attach("accepted")];
console.log(...made.tensor("w").array("F32"), large.tensor("data").array("U8").at(-1));
for (const thing of [made, large, client]) thing.close();
`;

/**
 * @typedef {object} Installed
 * @property {string} name what is accepted
 * @property {string[]} command the beginning of a command line, with absolute paths
 * @property {string[]} [serve] what runs the server, where that is another command line
 * @property {string[]} [purge] what removes the instance when no server runs, where that is another command line
 * @property {string[]} [remove] what ends what runs on when its command is killed
 * @property {string} [instance] the server's, where it was named before
 * @property {string} [python] an interpreter that has the Python client
 * @property {string} [nodeFolder] a folder whose `node_modules` has the Node client
 * @property {string} [workingFolder] where its commands are run, in place of an empty folder
 * @property {string} [commit] what it was built from
 * @property {Record<string, string>} [env] what its commands need beside
 */

/** A name that no other acceptance of this machine has. */
export const makeInstanceName = () => `accept-${process.pid}-${randomBytes(3).toString("hex")}`;

/** The body that a Unix socket answers with. */
function readOverSocket(socketPath, path) {
  return new Promise((resolve, reject) => {
    const onAnswer = (answer) => text(answer).then(resolve, reject);
    get({ socketPath, path, headers: { Host: "localhost" } }, onAnswer).once("error", reject);
  });
}

class Acceptance {
  #installed;
  #instance;
  #folder = mkdtempSync(join(tmpdir(), "tensord-accept-"));
  #home = mkdtempSync(join(tmpdir(), "tensord-home-"));
  #server;
  #log = "";

  constructor(installed) {
    this.#installed = installed;
    this.#instance = installed.instance ?? makeInstanceName();
  }

  get #env() {
    const { PATH } = process.env;
    return {
      ...{ PATH, HOME: this.#home, TENSORD_INSTANCE: this.#instance, TENSORD_PORT: "" },
      ...this.#installed.env,
    };
  }

  get #socket() {
    return `/dev/shm/tensord.${this.#instance}/http.sock`;
  }

  get #workingFolder() {
    return this.#installed.workingFolder ?? this.#folder;
  }

  async #run(what, command, args) {
    const { status, output } = await run(command, args, { cwd: this.#workingFolder, env: this.#env, capture: true });
    if (status === 0) return output;
    throw new Failure(
      `Cannot ${what}: it ended with status ${status} and said:\n${output}\nThe server's log:\n${this.#log}`,
    );
  }

  #tensord(...args) {
    const [command, ...before] = this.#installed.command;
    return this.#run(`run tensord ${args[0]}`, command, [...before, ...args]);
  }

  #expect(what, output, pattern) {
    if (!pattern.test(output))
      throw new Failure(
        `Cannot accept ${this.#installed.name}: ${what} said ${output.slice(0, 2000)}, want ${pattern}`,
      );
  }

  async #start() {
    const [command, ...args] = this.#installed.serve ?? [...this.#installed.command, "serve"];
    const options = { cwd: this.#workingFolder, env: this.#env, stdio: ["ignore", "pipe", "pipe"], detached: true };
    const child = spawn(command, args, options);
    const ended = new Promise((resolve) => child.once("close", (code, signal) => resolve(signal ?? code)));
    const server = { child, ended, end: undefined };
    void ended.then((end) => {
      server.end = end;
    });
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text) => {
        this.#log += text;
      });
    this.#server = server;
    const deadline = performance.now() + patienceMs;
    while (!this.#log.includes('"ready on ')) {
      if (server.end !== undefined)
        throw new Failure(`Cannot start: it ended with ${server.end} and said:\n${this.#log}`);
      if (performance.now() > deadline) throw new Failure(`Cannot start: not ready in ${patienceMs} ms:\n${this.#log}`);
      await sleep(pollMs);
    }
    await this.#tensord("healthcheck");
  }

  async #stop() {
    this.#server.child.kill("SIGTERM");
    const end = await Promise.race([this.#server.ended, sleep(patienceMs, "nothing", { ref: false })]);
    if (end !== 0) throw new Failure(`Cannot stop: it ended with ${end} and said:\n${this.#log}`);
    const [command, ...args] = this.#purge;
    await this.#run("purge the instance", command, args);
    const left = readdirSync("/dev/shm").filter((name) => name.includes(this.#instance));
    if (left.length > 0) throw new Failure(`Cannot stop without a trace: ${left.join(", ")} is left in /dev/shm`);
  }

  get #purge() {
    return this.#installed.purge ?? [...this.#installed.command, "purge"];
  }

  /** After a failure nothing runs on, and nothing is left: what there is to say has been said. */
  async #cleanUp({ child, ended, end }) {
    if (end === 0) return;
    if (end === undefined) killGroup(child.pid, "SIGKILL");
    await ended;
    for (const [command, ...args] of [this.#installed.remove, this.#purge].filter(Boolean))
      await run(command, args, { cwd: this.#workingFolder, env: this.#env, capture: true });
  }

  get #versionPattern() {
    const { commit } = this.#installed;
    const of = commit === undefined ? "(commit [0-9a-f]{12}(, changed)?|sources)" : `commit ${commit}`;
    return new RegExp(`^${version.replaceAll(".", "\\.")} \\(${of}\\)$`, "m");
  }

  /** @returns {Promise<[string, number][]>} each step, with how many milliseconds it took */
  async run() {
    const { python, nodeFolder } = this.#installed;
    const steps = {
      start: () => this.#start(),
      version: async () => this.#expect("--version", await this.#tensord("--version"), this.#versionPattern),
      // Above 1 MiB, a Worker allocates; the host's facts are another Worker's.
      "allocate 64 MiB": () => this.#tensord("alloc", "accepted", "--size", "64MiB", "--ttl", "10min"),
      doctor: async () => this.#expect("doctor", await this.#tensord("doctor", "--json"), /"open-files"/),
      // A file that lies inside the executable.
      docs: async () =>
        this.#expect("/docs", await readOverSocket(this.#socket, "/docs/swagger-ui-bundle.js"), /SwaggerUIBundle/),
      ...(python !== undefined && {
        "map from Python": async () =>
          this.#expect("Python", await this.#run("map from Python", python, ["-c", inPython]), /mapped/),
      }),
      ...(python !== undefined &&
        nodeFolder !== undefined && {
          "map from Node": async () => this.#expect("Node", await this.#mapFromNode(nodeFolder), /0 1 2 3 4 5 7/),
        }),
      events: async () =>
        this.#expect(
          "events",
          await this.#tensord("events", "--no-follow", "--after", "0", "--json"),
          /region\.allocated/,
        ),
      stop: () => this.#stop(),
    };
    const times = [];
    try {
      for (const [name, step] of Object.entries(steps)) {
        const start = performance.now();
        await step();
        times.push([name, Math.round(performance.now() - start)]);
      }
    } finally {
      if (this.#server !== undefined) await this.#cleanUp(this.#server);
      for (const folder of [this.#folder, this.#home]) rmSync(folder, { recursive: true, force: true });
    }
    return times;
  }

  async #mapFromNode(folder) {
    const args = ["--input-type=module", "--eval", inNode];
    // A program on the command line finds packages from where it runs.
    const { status, output } = await run(process.execPath, args, { cwd: folder, env: this.#env, capture: true });
    if (status === 0) return output;
    throw new Failure(`Cannot map from Node: it ended with status ${status} and said:\n${output}`);
  }
}

/**
 * @param {Installed} installed
 * @throws Failure at the first thing that it does not do.
 */
export function accept(installed) {
  return new Acceptance(installed).run();
}
