/** A client of the broker that says exactly what it is told to, and sees every answer, its descriptors and its end. */

import { closeSync } from "node:fs";
import { connectForMessages, endOneWay, receiveMessage, sendMessage } from "../../src/memory/os/libc-unix.ts";
import type { ProblemBody } from "../../src/routes/schemas/problem.ts";
import type { Region } from "./answers.ts";
import { until } from "./server-wait.ts";

export interface BrokerReply {
  readonly id: number | null;
  readonly ok: boolean;
  readonly problem?: ProblemBody;
  readonly fds?: readonly string[];
  readonly [member: string]: unknown;
}

export interface Received {
  readonly reply: BrokerReply;
  readonly text: string;
  /** Closed with the client, unless somebody closed them before. */
  readonly descriptors: readonly number[];
}

export interface Attached extends Received {
  readonly region: Omit<Region, "tensors">;
  readonly leased: boolean;
  readonly tensorsByteSize: number;
}

export class BrokerClient implements Disposable {
  readonly fd: number;
  readonly #received = new Set<number>();
  #lastId = 0;
  #isClosed = false;

  constructor(path: string) {
    const fd = connectForMessages(path);
    if (fd === undefined) throw new Error(`nobody listens on ${path}`);
    this.fd = fd;
  }

  /** A client that has said hello. */
  static async open(path: string, members: Readonly<Record<string, unknown>> = {}): Promise<BrokerClient> {
    const client = new BrokerClient(path);
    try {
      await client.ok("hello", { v: 1, ...members });
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** @returns whether it was sent: the server may have ended the connection, or read nothing of it for long. */
  send(frame: string | Uint8Array, descriptors: readonly number[] = []): "sent" | "full" | "gone" {
    const sending = sendMessage(this.fd, frame, descriptors);
    if (sending === "flood") throw new Error("too many descriptors are on their way");
    return sending;
  }

  /** The next answer that is there, or `closed`, or undefined. */
  look(): Received | "closed" | undefined {
    const message = receiveMessage(this.fd, 253);
    if (message === undefined) return undefined;
    if (message === "gone" || message.bytes.length === 0) return "closed";
    const { descriptors, isCut, isShort } = message;
    for (const fd of descriptors) this.#received.add(fd);
    if (isCut || isShort) throw new Error(`an answer was ${isCut ? "cut" : "short of descriptors"}`);
    const text = message.bytes.toString();
    return { reply: JSON.parse(text) as BrokerReply, text, descriptors };
  }

  async receive(): Promise<Received | "closed"> {
    return await until("the broker answers", () => this.look());
  }

  /** The next answer. @throws if the connection is closed instead. */
  async answer(): Promise<Received> {
    const received = await this.receive();
    if (received === "closed") throw new Error("the broker closed the connection");
    return received;
  }

  /** @returns what ends the connection: its last answer, if there is one. @throws if others come. */
  async closing(): Promise<BrokerReply | undefined> {
    const first = await this.receive();
    if (first === "closed") return undefined;
    const second = await this.receive();
    if (second !== "closed") throw new Error(`two answers at the end: ${first.text} ${second.text}`);
    return first.reply;
  }

  /** Asks, and reads the answer to it. */
  async ask(op: string, members: Readonly<Record<string, unknown>> = {}): Promise<Received> {
    this.#lastId += 1;
    const id = this.#lastId;
    const sending = this.send(JSON.stringify({ id, op, ...members }));
    if (sending !== "sent") throw new Error(`the request is ${sending}`);
    const received = await this.answer();
    if (received.reply.id !== id) throw new Error(`an answer to another request than ${id}: ${received.text}`);
    return received;
  }

  async ok(op: string, members?: Readonly<Record<string, unknown>>): Promise<Received> {
    const received = await this.ask(op, members);
    if (!received.reply.ok) throw new Error(`${op} was refused: ${received.text}`);
    return received;
  }

  /** The failure that must be the answer. */
  async problem(op: string, members?: Readonly<Record<string, unknown>>): Promise<ProblemBody> {
    const { reply, text } = await this.ask(op, members);
    if (reply.problem === undefined) throw new Error(`${op} was not refused: ${text}`);
    return reply.problem;
  }

  async attach(region: string, members: Readonly<Record<string, unknown>> = {}): Promise<Attached> {
    const received = await this.ok("attach", { region, access: "ro", ...members });
    const { region: described, leased, tensors_byte_size: tensorsByteSize = 0 } = received.reply;
    const facts = { region: described, leased, tensorsByteSize } as Pick<
      Attached,
      "region" | "leased" | "tensorsByteSize"
    >;
    return { ...received, ...facts };
  }

  /** Closes descriptors that came, and with them what they lease. */
  letGo(descriptors: readonly number[]): void {
    for (const fd of descriptors) if (this.#received.delete(fd)) closeSync(fd);
  }

  /** Says that nothing more is sent; answers can still be read. */
  endSending(): void {
    endOneWay(this.fd, "sending");
  }

  close(): void {
    this.letGo([...this.#received]);
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
