/** The command line as people run it: a process with a status and two streams. */

import { root } from "./instance-needs.ts";
import { runtimeSettings, tensord } from "./server-program.ts";
import { within } from "./server-wait.ts";

export interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs: what it has said so far, and how it ends. */
export interface RunningCommand {
  readonly stderr: string;
  readonly ended: Promise<CommandResult>;
}

/** Starts `tensord …`. `prefix` is what runs it as another user. */
export function startTensord(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  prefix: readonly string[] = [],
): RunningCommand {
  const child = Bun.spawn([...prefix, ...tensord, ...args], {
    cwd: root,
    env: { PATH: process.env.PATH ?? "", ...runtimeSettings, ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  let stderr = "";
  const reading = readText(child.stderr, (text) => {
    stderr += text;
  });
  async function end(): Promise<CommandResult> {
    try {
      const [stdout, , status] = await within(
        `tensord ${args.join(" ")} ends`,
        Promise.all([child.stdout.text(), reading, child.exited]),
      );
      return { status, stdout, stderr };
    } finally {
      child.kill("SIGKILL");
    }
  }
  const ended = end();
  return {
    get stderr() {
      return stderr;
    },
    ended,
  };
}

/** Hands on what a stream says, as it comes, until it ends. */
export async function readText(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  onText: (text: string) => void,
): Promise<void> {
  for await (const text of stream.pipeThrough(new TextDecoderStream())) onText(text);
}

/** Runs `tensord …` to its end. `prefix` is what runs it as another user. */
export function runTensord(...command: Parameters<typeof startTensord>): Promise<CommandResult> {
  return startTensord(...command).ended;
}
