/**
 * A systemd of a test's own: the first process of a PID namespace, with units of the test and no others. Its control groups are
 * those of this machine, so there must be no other systemd here.
 */

import { accessSync, constants, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { needsRoot } from "./instance-needs.ts";
import { until } from "./server-wait.ts";

const program = "/lib/systemd/systemd";
const groups = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
/** What units want of a whole system, and this one has not. */
const targets = ["basic", "multi-user", "shutdown", "sockets", "sysinit"];

export function needsServiceManager(): string | undefined {
  if (needsRoot !== undefined) return needsRoot;
  if (!existsSync(program)) return `needs ${program}`;
  if (existsSync("/run/systemd/system"))
    return "needs a machine without a systemd that runs already: they would share control groups";
  if (!groups.some(isWritable)) return "needs control groups that it may make";
  return Bun.spawnSync(["unshare", "-fpm", "--mount-proc", "true"]).exitCode === 0 ? undefined : "needs PID namespaces";
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return existsSync(join(path, "cgroup.procs"));
  } catch {
    return false;
  }
}

export class ServiceManager implements AsyncDisposable {
  readonly #outside: Bun.Subprocess;
  readonly #pid: number;

  private constructor(outside: Bun.Subprocess, pid: number) {
    this.#outside = outside;
    this.#pid = pid;
  }

  /** @param folder for its units, which is the caller's. @param units by file name, their text. */
  static async start(folder: string, units: Readonly<Record<string, string>>): Promise<ServiceManager> {
    for (const name of targets) writeFileSync(join(folder, `${name}.target`), "[Unit]\nDefaultDependencies=no\n");
    for (const [name, text] of Object.entries(units)) {
      mkdirSync(join(folder, name, ".."), { recursive: true });
      writeFileSync(join(folder, name), text);
    }
    // Its /run is its own: what it has there is found by systemctl, and by nobody outside.
    const script = `mount -t tmpfs tmpfs /run && exec ${program} --system --unit=basic.target`;
    const outside = Bun.spawn(["unshare", "-fpm", "--mount-proc", "--kill-child", "sh", "-c", script], {
      env: { PATH: process.env.PATH ?? "", SYSTEMD_UNIT_PATH: folder, container: "test", SYSTEMD_LOG_TARGET: "null" },
      stdio: ["ignore", "ignore", "ignore"],
    });
    const pid = await until("a service manager runs", () => {
      const path = `/proc/${outside.pid}/task/${outside.pid}/children`;
      const [child] = readFileSync(path, "utf8").split(" ");
      return child !== undefined && child !== "" && Number(child);
    });
    const manager = new ServiceManager(outside, pid);
    await until("it takes commands", () => manager.#systemctl("list-units").exitCode === 0);
    return manager;
  }

  /** Runs systemctl, and returns what it said. @throws Error with that if it failed. */
  call(...args: readonly string[]): string {
    const { exitCode, stdout, stderr } = this.#systemctl(...args);
    if (exitCode !== 0) throw new Error(`systemctl ${args.join(" ")}: ${exitCode}\n${stderr}${stdout}`);
    return String(stdout);
  }

  /** A property of a unit, as `MainPID`. */
  read(unit: string, property: string): string {
    return this.call("show", "--value", `--property=${property}`, unit).trim();
  }

  #systemctl(...args: readonly string[]) {
    return Bun.spawnSync(["nsenter", "-t", String(this.#pid), "-p", "-m", "systemctl", "--no-pager", ...args]);
  }

  /** Everything that it started goes with it. */
  async [Symbol.asyncDispose](): Promise<void> {
    process.kill(this.#pid, "SIGKILL");
    await this.#outside.exited;
    for (const group of ["systemd", "unified", "pids", "memory", ""]) removeGroups(join("/sys/fs/cgroup", group));
  }
}

/** Those of units, which nobody removes where their manager is killed. The kernel keeps what still has a process. */
function removeGroups(root: string): void {
  for (const name of ["system.slice", "init.scope"]) {
    const path = join(root, name);
    if (existsSync(path)) Bun.spawnSync(["find", path, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
  }
}
