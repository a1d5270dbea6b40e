/**
 * A real Chromium without a window, of the host's own package: it opens one page, whose script tells what it saw by posting it
 * back to where it came from.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome"];
const chromium = process.env.TEST_CHROMIUM ?? names.map((name) => Bun.which(name)).find((path) => path !== null);
export const needsChromium =
  chromium === undefined
    ? "needs a Chromium (Debian: apt-get install chromium-headless-shell; or TEST_CHROMIUM=path)"
    : undefined;

export class Browser implements AsyncDisposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "tensord-browser-"));
  readonly #process: Bun.Subprocess;

  /** @param hosts names that lead to this machine in this browser. */
  constructor(url: string, hosts: readonly string[]) {
    const rules = hosts.map((host) => `MAP ${host} 127.0.0.1`).join(", ");
    const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
    // Otherwise it asks the user before a page may reach loopback, and what we refuse would never be asked.
    const local = ["--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,OptimizationHints"];
    // Open until it is ended: what it is to do, its page does.
    const held = ["--remote-debugging-port=0", `--user-data-dir=${this.#folder}`, `--host-resolver-rules=${rules}`];
    const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"];
    this.#process = Bun.spawn([chromium ?? "", ...flags, ...local, ...held, ...quiet, url], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
      // A group of its own: Debian's command is a script, and the browser its child.
      detached: true,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.kill(-this.#process.pid, "SIGKILL");
    await this.#process.exited;
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 20 });
  }
}
