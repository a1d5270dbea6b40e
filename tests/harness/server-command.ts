/** The command line as people run it: a process with a status and two streams. */

import { root } from "./instance-needs.ts";
import { tensord } from "./server-program.ts";
import { within } from "./server-wait.ts";

export interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `tensord …` to its end. `prefix` is what runs it as another user. */
export async function runTensord(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  prefix: readonly string[] = [],
): Promise<CommandResult> {
  const child = Bun.spawn([...prefix, ...tensord, ...args], {
    cwd: root,
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  try {
    const [stdout, stderr, status] = await within(
      `tensord ${args.join(" ")} ends`,
      Promise.all([child.stdout.text(), child.stderr.text(), child.exited]),
    );
    return { status, stdout, stderr };
  } finally {
    child.kill("SIGKILL");
  }
}
