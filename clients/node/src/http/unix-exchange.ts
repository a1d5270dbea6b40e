/**
 * Exchanges over the server's Unix socket without `node:http`, which costs a third of each. A request is one write; an answer of the plain
 * form, as the server's are that are not streamed, is read here. Whatever is not of that form the library reads. It repeats nothing,
 * and knows no routes.
 */

import { type IncomingMessage, request as requestByLibrary } from "node:http";
import { connect, type Socket } from "node:net";
import { Duplex } from "node:stream";

const statusLine = /^HTTP\/1\.1 ([2-5]\d\d)(?: |$)/;
const digits = /^\d{1,15}$/;
/** Of what stands in a request's head: nothing ends a line, or a part of the first one. */
const plainTarget = /^[!-~]+$/;
const plainValue = /^[ -~]*$/;
/** Chunks, or an end. */
const unusual = new Set(["transfer-encoding", "connection"]);
const headEnd = "\r\n\r\n";
const noContent = 204;
const notModified = 304;
const maxIdle = 256;

/** What to send. */
export interface PlainRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string | number | undefined>>;
  readonly payload: string | undefined;
}

interface Head {
  readonly status: number;
  readonly contentType: string;
  readonly byteSize: number;
}

export interface PlainAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: Buffer;
}

/** An answer, or the message of one that the library reads. */
export type Answer = PlainAnswer | IncomingMessage;

/** An answer has more bytes than whoever asked wants. */
export class TooLong extends Error {}

/** Whether it is of use here: the other runtimes' libraries cost a tenth of an exchange (bench/attach-node.ts). */
export const isOfUse = process.versions.bun === undefined && process.versions.deno === undefined;

/** A request's bytes, or undefined where the library shall write it, and say what is wrong with it. */
export function toText({ method, path, headers, payload }: PlainRequest): string | undefined {
  if (!plainTarget.test(path)) return undefined;
  let head = `${method} ${path} HTTP/1.1\r\nhost: localhost\r\n`;
  for (const [name, value] of Object.entries(headers)) {
    if (!plainValue.test(String(value))) return undefined;
    head += `${name}: ${value}\r\n`;
  }
  if (payload === undefined && method !== "GET") head += "content-length: 0\r\n";
  return `${head}\r\n${payload ?? ""}`;
}

/** What an answer's head says, or undefined if it is not of the plain form. */
function parseHead(head: string): Head | undefined {
  const [first = "", ...lines] = head.split("\r\n");
  const status = Number(statusLine.exec(first)?.[1]);
  if (Number.isNaN(status) || status === notModified) return undefined;
  let length: string | undefined;
  let contentType = "";
  for (const line of lines) {
    const at = line.indexOf(":");
    const name = line.slice(0, at).toLowerCase();
    // Two lengths, a line of two.
    if (at < 1 || unusual.has(name) || (name === "content-length" && length !== undefined)) return undefined;
    if (line.startsWith(" ") || line.startsWith("\t")) return undefined;
    if (name === "content-length") length = line.slice(at + 1).trim();
    else if (name === "content-type") contentType = line.slice(at + 1).trim();
  }
  if (status === noContent)
    return length === undefined || length === "0" ? { status, contentType, byteSize: 0 } : undefined;
  return length !== undefined && digits.test(length) ? { status, contentType, byteSize: Number(length) } : undefined;
}

/** Who waits for the answer that comes on a connection. */
interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

/** Kept connections to one Unix socket. One that is idle keeps no process alive. */
export class UnixExchange {
  readonly #path: string;
  readonly #keepMs: number;
  readonly #maxBytes: number;
  readonly #idle: Connection[] = [];
  readonly #all = new Set<Connection>();

  /** @param keepMs how long an idle connection is kept. @param maxBytes the longest body that is read here. */
  constructor(path: string, keepMs: number, maxBytes: number) {
    this.#path = path;
    this.#keepMs = keepMs;
    this.#maxBytes = maxBytes;
  }

  /**
   * Sends a request, and gives its answer; of one that the library reads the message, whose body is still to come.
   * @param text of `toText`. @param isRepeatable whether it may be sent where it may be lost: a kept connection may have ended without our
   *   knowing. @param canCut is given what ends the exchange.
   * @throws Error what the socket says, what ended it; `TooLong`
   */
  ask(text: string, isRepeatable: boolean, canCut: (cut: (why: Error) => void) => void): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const connection = (isRepeatable ? this.#idle.pop() : undefined) ?? this.#connect();
      canCut((why) => connection.fail(why));
      connection.ask(text, { resolve, reject });
    });
  }

  /** Ends every connection. */
  close(): void {
    for (const connection of this.#all) connection.fail(new Error("the client was closed"));
  }

  #connect(): Connection {
    const connection: Connection = new Connection(connect({ path: this.#path }), this.#keepMs, this.#maxBytes, {
      free: () => {
        if (this.#idle.length < maxIdle) this.#idle.push(connection);
        else connection.fail(new Error("there are enough"));
      },
      over: () => {
        this.#all.delete(connection);
        const at = this.#idle.indexOf(connection);
        if (at >= 0) this.#idle.splice(at, 1);
      },
    });
    this.#all.add(connection);
    return connection;
  }
}

/** One connection, and at most one exchange on it at a time. */
class Connection {
  readonly #socket: Socket;
  readonly #maxBytes: number;
  readonly #tell: { readonly free: () => void; readonly over: () => void };
  #waiting: Waiting | undefined;
  #chunks: Buffer[] = [];
  #size = 0;
  #head: Head | undefined;

  constructor(socket: Socket, keepMs: number, maxBytes: number, tell: { free: () => void; over: () => void }) {
    this.#socket = socket;
    this.#maxBytes = maxBytes;
    this.#tell = tell;
    socket.setTimeout(keepMs);
    socket.on("timeout", () => {
      if (this.#waiting === undefined) this.fail(new Error("it was idle"));
    });
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("error", (error) => this.fail(error));
    socket.on("close", () => this.fail(new Error(this.#size > 0 ? "the answer ended early" : "the connection ended")));
  }

  ask(text: string, waiting: Waiting): void {
    this.#waiting = waiting;
    this.#socket.ref();
    this.#socket.write(text);
  }

  /** Ends it, and the exchange on it. Safe to call twice. */
  fail(why: Error): void {
    const waiting = this.#end();
    this.#socket.destroy();
    waiting?.reject(why);
  }

  /** It is nobody's from now on. @returns who waits */
  #end(): Waiting | undefined {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    this.#tell.over();
    return waiting;
  }

  #read(chunk: Buffer): void {
    // What nobody asked for is the server's last word.
    if (this.#waiting === undefined) return this.fail(new Error("it is not to be used"));
    if (this.#head === undefined) {
      const at = chunk.indexOf(headEnd);
      const head = at < 0 ? undefined : parseHead(chunk.toString("latin1", 0, at));
      if (head === undefined) return this.#giveToLibrary(chunk);
      if (head.byteSize > this.#maxBytes) return this.fail(new TooLong());
      this.#head = head;
      this.#add(chunk.subarray(at + headEnd.length), head);
    } else this.#add(chunk, this.#head);
  }

  #add(part: Buffer, head: Head): void {
    this.#chunks.push(part);
    this.#size += part.length;
    if (this.#size >= head.byteSize) this.#finish(head);
  }

  #finish({ status, contentType, byteSize }: Head): void {
    const [first = Buffer.alloc(0)] = this.#chunks;
    const all = this.#chunks.length === 1 ? first : Buffer.concat(this.#chunks);
    const isExact = this.#size === byteSize;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    this.#head = undefined;
    this.#chunks = [];
    this.#size = 0;
    if (isExact) {
      this.#socket.unref();
      this.#tell.free();
    } else this.fail(new Error("more came than was asked for"));
    waiting?.resolve({ status, contentType, body: all.subarray(0, byteSize) });
  }

  #giveToLibrary(seen: Buffer): void {
    const waiting = this.#end();
    this.#socket.removeAllListeners("data").removeAllListeners("timeout");
    const answering = new Answering(this.#socket, seen);
    const sent = requestByLibrary({ createConnection: () => answering }, (message) => waiting?.resolve(message));
    sent.on("error", (error) => {
      answering.destroy();
      waiting?.reject(error);
    });
    sent.end();
  }
}

/** A connection on which the request was sent: what is written to it is nothing new, and what comes begins with what was seen. */
class Answering extends Duplex {
  readonly #socket: Socket;

  constructor(socket: Socket, seen: Buffer) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    this.push(seen);
    socket.on("data", (chunk) => {
      if (!this.push(chunk)) socket.pause();
    });
    socket.on("end", () => this.push(null));
    socket.on("error", (error) => this.destroy(error));
    socket.on("close", () => this.push(null));
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(_chunk: unknown, _encoding: unknown, done: () => void): void {
    done();
  }

  /** The library ends what it has read. */
  override _final(done: () => void): void {
    this.#socket.destroy();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}
