/**
 * One connection to the broker (docs/protocol.md, "Frames"): requests out, answers in, and the descriptors that come with them.
 * Nothing here waits but `wait`, for as long as it is told. Whose answer it is says its number, so several may be under way.
 */

import { outOfDescriptors } from "../descriptors.ts";
import { fromProblem, TensordError } from "../errors.ts";
import { fromWire, isObject, type WireObject } from "../http/wire.ts";
import { HeldFile } from "../memory/held-file.ts";
import { SystemError } from "../memory/libc.ts";
import {
  closeDescriptor,
  connectTo,
  type Message,
  openMessageSocket,
  receiveMessage,
  sendMessage,
  waitFor,
} from "../memory/libc-unix.ts";

/** sockaddr_un.sun_path holds 108 bytes with its NUL (unix(7)). */
const maxPathBytes = 107;
const version = 1;

/** There is no connection, or it has ended: what was asked may be asked again. `code` is an errno's name, if there is one. */
export class Lost extends Error {
  override readonly name = "Lost";
  readonly code: string | undefined;

  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.code = cause instanceof SystemError ? cause.code : undefined;
  }
}

/** What was answered, and the files that came with it, which are the caller's. */
export interface Answer {
  readonly members: WireObject;
  readonly files: readonly HeldFile[];
}

export class BrokerConnection {
  readonly path: string;
  readonly #socket: HeldFile;
  readonly #answers = new Map<number, Answer>();
  readonly #hello: number;
  /** What hello was answered with, once it was. */
  #greeting: WireObject | undefined;
  #lastId = 0;
  #isClosed = false;

  /**
   * Connects, and says hello with these members, whose answer is not waited for.
   * @throws Lost, TensordError `out-of-descriptors`
   */
  constructor(path: string, hello: WireObject) {
    this.path = path;
    this.#socket = connect(path);
    this.#hello = this.send("hello", { v: version, ...hello });
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The server's instance, once anything was answered. */
  get instance(): string {
    return this.#greeting === undefined ? "" : String(this.#greeting.instance);
  }

  /** @returns the number of the answer. @throws Lost */
  send(op: string, members: WireObject): number {
    const id = this.trySend(op, members);
    if (id !== undefined) return id;
    this.close();
    throw new Lost("it reads nothing");
  }

  /** As `send`; undefined if the server does not read just now, and nothing was sent. @throws Lost */
  trySend(op: string, members: WireObject): number | undefined {
    const id = this.#lastId + 1;
    const isSent = this.#orLost(() => sendMessage(this.#socket.fd, JSON.stringify({ id, op, ...members })));
    if (!isSent) return undefined;
    this.#lastId = id;
    return id;
  }

  /** What hello was answered with, if it was by now. @throws Lost; TensordError what it says */
  greeting(): WireObject | undefined {
    while (this.#greeting === undefined && !this.#answers.has(this.#hello)) if (!this.#read()) return undefined;
    try {
      this.#greeting ??= toGreeting(this.#takeOut(this.#hello));
      return this.#greeting;
    } catch (error) {
      // Hello is said once: the next question says it anew, by another token perhaps.
      this.close();
      throw error;
    }
  }

  /** Reads what there is, and throws it away. @throws Lost, TensordError if the server ends it */
  drain(): void {
    while (this.#read());
    for (const { files } of this.#answers.values()) closeAll(files);
    this.#answers.clear();
  }

  /** The answer of that number, if it is there. @throws Lost; TensordError what it says, `out-of-descriptors` */
  take(id: number): Answer | undefined {
    while (!this.#answers.has(id)) if (!this.#read()) return undefined;
    this.greeting();
    return toSuccess(this.#takeOut(id));
  }

  /** Waits until there is something to read, for so many milliseconds at most. */
  wait(timeoutMs: number): boolean {
    return this.#isClosed || waitFor(this.#socket.fd, "reading", timeoutMs);
  }

  /** What is on its way is closed by the kernel. Safe to call twice. */
  close(): void {
    this.#isClosed = true;
    this.#socket.close();
    for (const { files } of this.#answers.values()) closeAll(files);
    this.#answers.clear();
  }

  #takeOut(id: number): Answer {
    const answer = this.#answers.get(id);
    if (answer === undefined) throw new Lost("it answered out of turn");
    this.#answers.delete(id);
    return answer;
  }

  /** @returns whether there was anything to read */
  #read(): boolean {
    if (this.#isClosed) throw new Lost("the connection was closed");
    const message = this.#orLost(() => receiveMessage(this.#socket.fd));
    if (message === undefined) return false;
    const files = message.descriptors.map((fd) => new HeldFile(fd, "kernel"));
    try {
      this.#keep(message, files);
      return true;
    } catch (error) {
      closeAll(files);
      this.close();
      throw error;
    }
  }

  #keep({ text, isCut, isShort }: Message, files: readonly HeldFile[]): void {
    if (text === "") throw new Lost("the server closed the connection");
    // The kernel says no more than that: of a machine that has none left it says the same.
    if (isShort) throw outOfDescriptors("take a region's descriptor", new SystemError("recvmsg", emfile));
    const members = isCut ? undefined : parse(text);
    const named = members?.fds ?? [];
    if (members === undefined || !Array.isArray(named) || named.length !== files.length) throw notAnAnswer();
    // An answer to no request is the last word before it is closed.
    if (members.id === null) throw toFailure(members);
    this.#answers.set(members.id as number, { members, files });
  }

  #orLost<Result>(call: () => Result): Result {
    try {
      return call();
    } catch (error) {
      this.close();
      throw error instanceof SystemError ? new Lost(error.message, error) : error;
    }
  }
}

const emfile = 24;

export function closeAll(files: readonly HeldFile[]): void {
  for (const file of files) file.close();
}

function connect(path: string): HeldFile {
  const size = Buffer.byteLength(path);
  if (size > maxPathBytes) throw new Lost(`the path has ${size} bytes, want at most ${maxPathBytes} (unix(7))`);
  let fd: number | undefined;
  try {
    fd = openMessageSocket();
    connectTo(fd, path);
    return new HeldFile(fd, "kernel");
  } catch (error) {
    if (fd !== undefined) closeDescriptor(fd);
    if (!(error instanceof SystemError)) throw error;
    if (error.code === "EMFILE" || error.code === "ENFILE") throw outOfDescriptors(`connect to ${path}`, error);
    throw new Lost(error.code, error);
  }
}

function parse(text: string): WireObject | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function toSuccess(answer: Answer): Answer {
  if (answer.members.ok === true) return answer;
  closeAll(answer.files);
  throw toFailure(answer.members);
}

function toFailure({ problem }: WireObject): TensordError {
  if (!isObject(problem)) return notAnAnswer();
  return fromProblem(Number(problem.status), fromWire(problem) as WireObject);
}

function toGreeting(answer: Answer): WireObject {
  const { members } = toSuccess(answer);
  if (typeof members.instance !== "string") throw notAnAnswer();
  return members;
}

function notAnAnswer(): TensordError {
  return new TensordError("server-fault", "Cannot read the broker's answer: it is none of this protocol", {
    hint: "is TENSORD_BROKER_SOCKET something else's socket, or the server another version?",
  });
}
