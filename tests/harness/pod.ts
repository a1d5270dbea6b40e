/**
 * A pod, played: what a kubelet and a runtime set up for it, and no more. All containers join the network, IPC and UTS namespaces of a
 * first process; each has its own PID and mount namespaces, its user, no capability, and a new memory cgroup for each start. The volume is a
 * tmpfs of mode 0777, with the group that `fsGroup` gives it. Needs root.
 */

import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInstance, type Instance } from "./instance.ts";
import { root } from "./instance-needs.ts";
import { Tmpfs } from "./instance-tmpfs.ts";
import { NoAnswer, ServerApi } from "./server-api.ts";
import { tensord } from "./server-program.ts";
import { until, within } from "./server-wait.ts";

const MiB = 2 ** 20;
const cgroups = "/sys/fs/cgroup";
/** Which cgroups have the memory here. A machine that mounts both versions has it in the first. */
export const cgroupVersion = existsSync(join(cgroups, "cgroup.controllers")) ? 2 : 1;
const memory = cgroupVersion === 1 ? join(cgroups, "memory") : cgroups;
const limitFile = cgroupVersion === 1 ? "memory.limit_in_bytes" : "memory.max";

/** The image's user, and the manifests' group and directory. */
export const serverUid = 65532;
const fsGroup = 2000;
const directory = "/dev/shm/t";
/** Where a user namespace's users begin on the host (`hostUsers: false`). */
const firstHostUser = 100_000;

export const needsCgroup = (() => {
  if (process.getuid?.() !== 0) return "needs root, to play a pod";
  const probe = join(memory, `tensord-probe-${process.pid}`);
  try {
    mkdirSync(probe);
    const isThere = existsSync(join(probe, limitFile));
    rmdirSync(probe);
    return isThere ? undefined : "needs a memory cgroup to make one in";
  } catch {
    return "needs a memory cgroup to make one in";
  }
})();

/** A Python that every user may run: the one on root's PATH may lie in root's home. */
export const anybodysPython = [Bun.which("python3"), "/usr/bin/python3"].find(
  (path) =>
    path !== null &&
    needsCgroup === undefined &&
    Bun.spawnSync(["setpriv", "--reuid=65534", "--clear-groups", path, "-c", ""]).exitCode === 0,
);
export const needsAnybodysPython = anybodysPython ? undefined : "needs a python3 that every user may run";

export interface PodOptions {
  readonly volumeBytes?: number;
  readonly hasGroup?: boolean;
  readonly hasUsers?: boolean;
  /** `memory.oom.group`, as a kubelet sets it for a container on cgroup v2. */
  readonly endsAsGroup?: boolean;
}

export interface ContainerOptions {
  readonly uid: number;
  readonly memoryBytes?: number;
  /** The volume as it is, at /dev/shm; else the server's directory alone, by subPath. */
  readonly hasVolume?: boolean;
}

export class Pod implements AsyncDisposable {
  readonly volume: Tmpfs;
  readonly #options: Required<PodOptions>;
  readonly #cgroup: string;
  readonly #pause: Bun.Subprocess;
  readonly #made: string[] = [];
  #starts = 0;

  private constructor(options: Required<PodOptions>) {
    this.#options = options;
    this.#cgroup = join(memory, `tensord-pod-${crypto.randomUUID().slice(0, 8)}`);
    mkdirSync(this.#cgroup);
    if (cgroupVersion === 2) writeFileSync(join(this.#cgroup, "cgroup.subtree_control"), "+memory");
    this.volume = new Tmpfs({ sizeBytes: options.volumeBytes, mode: "0777" });
    const first = options.hasUsers ? firstHostUser : 0;
    chownSync(this.volume.path, first, first + (options.hasGroup ? fsGroup : 0));
    if (options.hasGroup) chmodSync(this.volume.path, 0o2777);
    const user = options.hasUsers ? ["--user"] : [];
    this.#pause = Bun.spawn(["unshare", ...user, "--net", "--ipc", "--uts", "sleep", "infinity"], { stdin: "ignore" });
  }

  static async up(options: PodOptions = {}): Promise<Pod> {
    const all = { volumeBytes: 128 * MiB, hasGroup: true, hasUsers: false, endsAsGroup: false, ...options };
    const pod = new Pod(all);
    const { pid } = pod.#pause;
    await until("the pod's first process is there", () => readFileSync(`/proc/${pid}/comm`, "utf8") === "sleep\n");
    if (all.hasUsers)
      for (const map of ["uid_map", "gid_map"]) writeFileSync(`/proc/${pid}/${map}`, `0 ${firstHostUser} 65536`);
    must([...pod.#join, "sh", "-c", "hostname pod-1 && ip link set lo up"]);
    return pod;
  }

  get #join(): string[] {
    const user = this.#options.hasUsers ? ["--user"] : [];
    return ["nsenter", "--target", String(this.#pause.pid), ...user, "--net", "--ipc", "--uts"];
  }

  /** Runs a command in the pod's network, as a kubelet's probe comes by it. */
  probe(...command: string[]): string {
    return must([...this.#join, ...command]);
  }

  /** The beginning of a command line that runs what follows as the first process of a new container, and the container's cgroup. */
  container({ uid, memoryBytes = 256 * MiB, hasVolume = false }: ContainerOptions) {
    this.#starts += 1;
    const cgroup = join(this.#cgroup, `container-${this.#starts}`);
    mkdirSync(cgroup);
    this.#made.push(cgroup);
    writeFileSync(join(cgroup, limitFile), String(memoryBytes));
    if (this.#options.endsAsGroup && cgroupVersion === 2) writeFileSync(join(cgroup, "memory.oom.group"), "1");
    const groups = this.#options.hasGroup ? `--groups=${fsGroup}` : "--clear-groups";
    // A runtime gives every container a /dev/shm of its own, and mounts the volume, or what is below it, onto that.
    const mounts = hasVolume
      ? 'mount --bind "$1" /dev/shm'
      : `mount -t tmpfs -o size=64m,mode=1777 shm /dev/shm && mkdir ${directory} && mount --bind "$1/t" ${directory}`;
    const prefix = [
      ...["sh", "-c", 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"', "sh", cgroup],
      ...this.#join,
      ...["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--propagation=private"],
      // The container sees its cgroup where a runtime shows it.
      ...[
        "sh",
        "-c",
        `${mounts} && mount --bind "$2" ${memory} && shift 2 && exec "$@"`,
        "sh",
        this.volume.path,
        cgroup,
      ],
      ...[
        "setpriv",
        `--reuid=${uid}`,
        `--regid=${uid}`,
        groups,
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--no-new-privs",
      ],
    ];
    return { prefix, cgroup };
  }

  /** Everything ends, as when the pod is deleted: its processes, then the volume, then its cgroups. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#pause.kill("SIGKILL");
    await within("the pod's first process ends", this.#pause.exited);
    this.volume[Symbol.dispose]();
    for (const path of [...this.#made, this.#cgroup]) await until(`${path} is empty`, () => isRemoved(path));
  }
}

function isRemoved(path: string): boolean {
  try {
    rmdirSync(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EBUSY") return false;
    throw error;
  }
}

function must(command: readonly string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...command]);
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
  return String(stdout);
}

/** The sidecar: started, ended and started again in containers of one pod. */
export class Sidecar implements AsyncDisposable {
  readonly instance: Instance;
  readonly api: ServerApi;
  readonly #pod: Pod;
  readonly #settings: Readonly<Record<string, string>>;
  #process: Bun.Subprocess<"ignore", "pipe", "pipe"> | undefined;
  #text = "";
  #reading: Promise<unknown> = Promise.resolve();
  cgroup = "";

  /** `api` and `instance` are seen from the host, by the volume's own path. */
  constructor(pod: Pod, settings: Readonly<Record<string, string>> = {}) {
    this.#pod = pod;
    this.#settings = settings;
    this.instance = createInstance(join(pod.volume.path, "t"));
    this.api = new ServerApi(this.instance.socket);
  }

  /** All that it has logged since it was made. */
  get log(): string {
    return this.#text;
  }

  get env(): Record<string, string> {
    return {
      PATH: process.env.PATH ?? "",
      HOME: "/tmp",
      TENSORD_INSTANCE: this.instance.name,
      TENSORD_SHM_DIR: directory,
      KUBERNETES_SERVICE_HOST: "10.0.0.1",
    };
  }

  async start(): Promise<this> {
    const { prefix, cgroup } = this.#pod.container({ uid: serverUid, memoryBytes: 640 * MiB, hasVolume: true });
    this.cgroup = cgroup;
    const env = { ...this.env, TENSORD_PORT: "", TENSORD_HEALTH_ADDRESS: ":7412", ...this.#settings };
    const child = Bun.spawn([...prefix, ...tensord, "serve"], {
      cwd: root,
      env,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#process = child;
    const keep = async (stream: ReadableStream<Uint8Array>) => {
      for await (const chunk of stream) this.#text += Buffer.from(chunk).toString();
    };
    this.#reading = Promise.all([keep(child.stdout), keep(child.stderr)]);
    await until("the sidecar is ready", () => this.#isReady(child));
    return this;
  }

  async #isReady({ exitCode, signalCode }: Bun.Subprocess): Promise<boolean> {
    if (exitCode !== null || signalCode !== null) {
      await this.#reading;
      throw new Error(`the sidecar did not start:\n${this.#text}`);
    }
    try {
      return (await this.api.request("GET", "/readyz")).status === 200;
    } catch (error) {
      if (error instanceof NoAnswer) return false;
      throw error;
    }
  }

  /** The container's first process, as the host calls it. */
  get pid(): number {
    const { pid = 0 } = this.#process ?? {};
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim());
  }

  /** Waits until the container has ended. @returns its status, as a shell has it. */
  async ended(): Promise<number> {
    const child = this.#process;
    if (child === undefined) throw new Error("no sidecar runs");
    const status = await within("the sidecar ends", child.exited);
    await this.#reading;
    this.#process = undefined;
    return status;
  }

  async end(signal: NodeJS.Signals): Promise<number> {
    process.kill(this.pid, signal);
    return await this.ended();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process !== undefined) await this.end("SIGKILL");
  }
}
