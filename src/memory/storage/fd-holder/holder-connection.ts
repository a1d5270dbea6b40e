/**
 * One connection to an fd holder: questions go out in order, a bounded number at a time, and each gets its answer. The answers
 * lie in a socket that the runtime cannot wait for, so the fd holder rings a bell, a pipe, that it can: nothing here blocks.
 */

import { closeSync } from "node:fs";
import type { ReadableStreamDefaultReader } from "node:stream/web";
import { setTimeout as sleep } from "node:timers/promises";
import { SystemError, TensordError } from "../../error.ts";
import { limits } from "../../limits.ts";
import { outOfDescriptors, withSpare } from "../../os/descriptors.ts";
import { createPipe } from "../../os/libc-poll.ts";
import { connectForMessages, readPeerCredentials, receiveMessage, sendMessage } from "../../os/libc-unix.ts";
import {
  type Answer,
  type HolderProblem,
  type HolderStatus,
  parseAnswer,
  protocolVersion,
  type Question,
} from "./protocol.ts";

/** The fd holder ended, or this connection was closed. What it was asked for did not happen, or nobody knows. */
export class HolderGone extends Error {
  override readonly name = "HolderGone";
}

/** The fd holder said no. */
export class HolderRefusal extends Error {
  override readonly name = "HolderRefusal";
  readonly problem: HolderProblem;

  constructor(problem: HolderProblem) {
    super(`the fd holder answered: ${problem}`);
    this.problem = problem;
  }
}

export type Answered = Extract<Answer, { ok: true }> & {
  /** The asker's to close. */
  readonly fds: readonly number[];
};

interface Asked {
  readonly question: Question;
  /** Looked at when it is sent; undefined if it is not to be sent any more. */
  readonly fds: () => readonly number[] | undefined;
  readonly resolve: (answer: Answered | undefined) => void;
  readonly reject: (error: unknown) => void;
  timer: ReturnType<typeof setTimeout> | undefined;
  /** Nobody waits for its answer any more. */
  isGivenUp: boolean;
}

const noDescriptors = (): readonly number[] => [];

export class HolderConnection implements Disposable {
  readonly #sinceMs = performance.now();
  readonly #socket: number;
  readonly #bell: number;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  readonly #waiting: Asked[] = [];
  readonly #sent = new Map<number, Asked>();
  readonly #ended = Promise.withResolvers<void>();
  #status: HolderStatus | undefined;
  #nextId = 1;
  #isOpen = true;

  private constructor(socket: number, bell: number) {
    this.#socket = socket;
    this.#bell = bell;
    this.#reader = Bun.file(bell).stream().getReader();
    void this.#listen();
  }

  /**
   * Says hello on `socket`, which it owns from now on.
   * @throws HolderGone, or TensordError `io-error` if the fd holder does not answer or speaks no version that this program knows.
   */
  static async greet(socket: number): Promise<HolderConnection> {
    using opened = new DisposableStack();
    opened.defer(() => closeSync(socket));
    const { readEnd: reader, writeEnd: writer } = withSpare(createPipe);
    opened.defer(() => closeSync(reader));
    const connection = new HolderConnection(socket, reader);
    opened.move();
    try {
      const hello = connection.ask({ op: "hello", v: protocolVersion }, () => [writer]);
      // Sent: the fd holder's copy is the only one, so that the bell ends with it.
      closeSync(writer);
      connection.#status = readStatus(await hello);
      return connection;
    } catch (error) {
      connection[Symbol.dispose]();
      throw error;
    }
  }

  /** Its descriptor. */
  get socket(): number {
    return this.#socket;
  }

  /** What the fd holder said of itself at first. */
  get status(): HolderStatus {
    if (this.#status === undefined) throw new Error("the fd holder was not greeted");
    return this.#status;
  }

  /** For how long it has been there. */
  get livedMs(): number {
    return performance.now() - this.#sinceMs;
  }

  /** Resolves when the fd holder has ended, or this was disposed of. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /**
   * @param fds copies of these go along, as they are when the question is sent.
   * @returns undefined if `fds` says then that nothing is to be asked any more.
   * @throws HolderGone, HolderRefusal, or TensordError `io-error` if no answer comes.
   */
  async ask(question: Question, fds: Asked["fds"]): Promise<Answered | undefined>;
  async ask(question: Question): Promise<Answered>;
  ask(question: Question, fds: Asked["fds"] = noDescriptors): Promise<Answered | undefined> {
    if (!this.#isOpen) return Promise.reject(new HolderGone());
    const { promise, resolve, reject } = Promise.withResolvers<Answered | undefined>();
    const asked: Asked = { question, fds, resolve, reject, timer: undefined, isGivenUp: false };
    asked.timer = setTimeout(() => this.#giveUp(asked), limits.holderAnswerMs);
    asked.timer.unref();
    this.#waiting.push(asked);
    this.#send();
    return promise;
  }

  [Symbol.dispose](): void {
    this.#end();
  }

  #send(): void {
    while (this.#isOpen && this.#sent.size < limits.holderWindow) {
      const asked = this.#waiting[0];
      if (asked === undefined) return;
      const fds = asked.fds();
      if (fds === undefined) settle(asked, () => asked.resolve(undefined));
      else if (!this.#trySend(asked, fds)) return;
      this.#waiting.shift();
    }
  }

  /** @returns false if there is no room: the next answer makes some. */
  #trySend(asked: Asked, fds: readonly number[]): boolean {
    const id = this.#nextId;
    try {
      const sending = sendMessage(this.#socket, JSON.stringify({ id, ...asked.question }), fds);
      if (sending === "full") return false;
      // The bell tells so too, but later.
      if (sending === "gone") this.#end();
      if (sending === "flood") throw outOfDescriptors("Cannot reach the fd holder");
      if (sending !== "sent") return true;
    } catch (error) {
      settle(asked, () => asked.reject(error));
      return true;
    }
    this.#nextId += 1;
    this.#sent.set(id, asked);
    return true;
  }

  /** What was not sent yet never is, but for a `drop`: it is to be done whenever the fd holder goes on. */
  #giveUp(asked: Asked): void {
    asked.isGivenUp = true;
    const at = asked.question.op === "drop" ? -1 : this.#waiting.indexOf(asked);
    if (at >= 0) this.#waiting.splice(at, 1);
    const pid = this.#status?.pid ?? readPeerCredentials(this.#socket).pid;
    asked.reject(
      new TensordError("io-error", `Cannot reach the fd holder: process ${pid} did not answer in time`, {
        hint: `Is it stopped? kill -CONT ${pid} lets it go on; kill -KILL ${pid} ends it, and a new one takes its place.`,
        pid,
      }),
    );
  }

  async #listen(): Promise<void> {
    try {
      for (;;) {
        const { done } = await this.#reader.read();
        if (done || !this.#isOpen) break;
        this.#receive();
      }
      // What it said last before it ended.
      if (this.#isOpen) this.#receive();
    } catch {
      // As its end.
    }
    this.#end();
  }

  #receive(): void {
    for (;;) {
      const message = receiveMessage(this.#socket, 1);
      if (message === undefined) break;
      if (message === "gone") return this.#end();
      const { bytes, descriptors } = message;
      const answer = parseAnswer(bytes);
      const asked = answer && this.#sent.get(answer.id);
      if (answer === undefined || asked === undefined) {
        for (const fd of descriptors) closeSync(fd);
        return this.#end();
      }
      this.#sent.delete(answer.id);
      settle(asked, () => this.#settle(asked, answer, descriptors));
    }
    this.#send();
  }

  #settle(asked: Asked, answer: Answer, fds: readonly number[]): void {
    const { question } = asked;
    if (answer.ok && !asked.isGivenUp) return asked.resolve({ ...answer, fds });
    for (const fd of fds) closeSync(fd);
    if (!answer.ok) return asked.reject(new HolderRefusal(answer.problem));
    // It took what nobody waits for any more.
    if (question.op === "keep") this.ask({ op: "drop", token: question.token }).catch(() => {});
  }

  #end(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    void this.#reader.cancel().catch(() => {});
    closeSync(this.#socket);
    closeSync(this.#bell);
    const left = [...this.#sent.values(), ...this.#waiting];
    this.#sent.clear();
    this.#waiting.length = 0;
    for (const asked of left) settle(asked, () => asked.reject(new HolderGone()));
    this.#ended.resolve();
  }
}

function settle(asked: Asked, end: () => void): void {
  clearTimeout(asked.timer);
  end();
}

function readStatus(hello: Answered | undefined): HolderStatus {
  const { v = 0, pid = 0, descriptors = 0, age_ms = 0 } = hello ?? {};
  if (v >= 1 && v <= protocolVersion) return { v, pid, descriptors, age_ms };
  throw new TensordError("io-error", `Cannot speak to the fd holder, process ${pid}: its protocol is version ${v}`, {
    hint: `This server speaks versions 1 to ${protocolVersion}. Start the version of tensord again that started it, or kill ${pid}.`,
  });
}

/** Where an fd holder is to be found. */
export interface HolderAddress {
  readonly holderPath: string;
  /** Whether a service manager listens there, and starts it for whoever connects; else a server does. */
  readonly isHolderManaged: boolean;
}

/**
 * A connection to the fd holder there, or undefined if nobody listens: with a service manager somebody has to, or what is kept would be taken for
 * lost. One that is closed at once says neither: the fd
 * holder may just end, or have too many of them.
 * @throws TensordError as `greet`, or if it stays so.
 */
export async function findHolder({
  holderPath,
  isHolderManaged,
}: HolderAddress): Promise<HolderConnection | undefined> {
  for (let attempt = 1; ; attempt++) {
    const socket = await connect(holderPath);
    if (socket === undefined && isHolderManaged) throw notServed(holderPath);
    if (socket === undefined) return undefined;
    try {
      return await HolderConnection.greet(socket);
    } catch (error) {
      if (!(error instanceof HolderGone)) throw error;
      if (attempt === limits.holderAttempts) throw unreachable();
    }
    await sleep(limits.holderRetryMinMs);
  }
}

/** Waits for a place in the queue of those who connect, which is full where the fd holder is stopped, and some have tried. */
async function connect(path: string): Promise<number | undefined> {
  const deadline = performance.now() + limits.holderAnswerMs;
  for (;;) {
    try {
      return withSpare(() => connectForMessages(path));
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      if (error.code === "EACCES") throw refusedAt(path, error);
      if (error.code !== "EWOULDBLOCK") throw error;
    }
    if (performance.now() >= deadline) throw unreachable();
    await sleep(limits.holderRetryMinMs);
  }
}

function refusedAt(path: string, cause: SystemError): TensordError {
  return new TensordError(
    "io-error",
    `Cannot reach the fd holder: ${cause.message} (${path})`,
    { hint: "It is for the server's own user alone: see who owns that socket, and its mode." },
    { cause },
  );
}

/** What a service manager is to start is nobody else's to start. */
export function notServed(path: string): TensordError {
  return new TensordError(
    "io-error",
    `Cannot keep memory over a restart: no fd holder of this instance answers on ${path}`,
    {
      hint:
        "Is its unit there (systemctl status tensord-fd-holder.socket), with the lock file of this instance? Without TENSORD_HOLDER_SOCKET the " +
        "server starts one by itself.",
    },
  );
}

function unreachable(): TensordError {
  return new TensordError("io-error", "Cannot reach the fd holder: it takes no connection", {
    hint: "Is its process (tensord fd-holder) stopped? kill -CONT lets it go on; kill -KILL ends it, and all that it keeps is lost.",
  });
}
