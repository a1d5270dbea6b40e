/**
 * A server that does nothing but keep descriptors: it has an instance's lock and its fd holder, and does what each line of its
 * standard input says, as JSON. `TEST_KILL_STEP=holder.owned` has it kill itself there, as the server of the fault tests does.
 */

import { closeSync, fstatSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { connectForMessages, sendMessage } from "../../src/memory/os/libc-unix.ts";
import { HeldDescriptors } from "../../src/memory/storage/fd-holder/held-descriptors.ts";
import { InstanceDirectory } from "../../src/memory/storage/instance-directory.ts";

const {
  TEST_INSTANCE: instance = "",
  TEST_SHM_DIRECTORY: shmDirectory = "",
  TEST_KILL_STEP,
  TEST_TTL_MS = "3600000",
} = process.env;

const directory = InstanceDirectory.open({ instance, shmDirectory });
const held = new HeldDescriptors({
  place: directory,
  // Who only looks has none.
  ttlMs: TEST_TTL_MS === "" ? undefined : Number(TEST_TTL_MS),
  onWarning: (message) => say({ warning: message }),
  onStep: (step) => {
    if (step === TEST_KILL_STEP) process.kill(process.pid, "SIGKILL");
  },
});
const fds = new Map<string, number>();

/** A file without a name, whose bytes say which it is. */
function makeFile(text: string): number {
  const path = `${shmDirectory}/tensord-test-${instance}-${text}`;
  const fd = openSync(path, "wx+");
  unlinkSync(path);
  writeSync(fd, text);
  return fd;
}

function readFile(fd: number): string {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  readSync(fd, bytes, 0, bytes.length, 0);
  return bytes.toString();
}

const deeds: Record<string, (token: string) => unknown> = {
  async keep(token) {
    const fd = makeFile(token);
    fds.set(token, fd);
    await held.keep(token, fd);
    return token;
  },
  async give(token) {
    const fd = await held.give(token);
    fds.set(token, fd);
    return readFile(fd);
  },
  async drop(token) {
    await held.drop(token);
    closeSync(fds.get(token) ?? -1);
    return token;
  },
  /** So many, of one file. */
  async keepMany(count) {
    const fd = makeFile("many");
    const names = Array.from({ length: Number(count) }, (_, index) => `token-${String(index).padStart(5, "0")}`);
    await Promise.all(names.map((name) => held.keep(name, fd)));
    return names.length;
  },
  list: () => held.list(),
  status: async () => (await held.status()) ?? null,
  end: () => held.end(),
  /** Sends the lock to an fd holder that is stopped, and dies with it unread. */
  async dieWithLockUnread() {
    const pid = (await held.status())?.pid ?? 0;
    const socket = connectForMessages(directory.holderPath) ?? -1;
    process.kill(pid, "SIGSTOP");
    sendMessage(socket, JSON.stringify({ id: 1, op: "own", ttl_ms: 3_600_000 }), [directory.lock]);
    process.kill(process.pid, "SIGKILL");
  },
};

function say(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

say({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const [deed = "", token = ""] = JSON.parse(line) as string[];
  try {
    say({ answer: (await deeds[deed]?.(token)) ?? null });
  } catch (error) {
    say({ failure: (error as Error).message });
  }
}
// Standard input ended: a stop in order.
held[Symbol.dispose]();
directory[Symbol.dispose]();
process.exit(0);
