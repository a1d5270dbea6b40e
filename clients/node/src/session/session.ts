/**
 * This client's session: opened when it is first needed, held for as long as the process lives, and told what the process
 * maps. If the server ended it, the next use opens another.
 */

import { isTensordError, TensordError } from "../errors.ts";
import type { Api } from "../http/api.ts";
import type { SessionDescriptor, SessionEnd } from "../http/wire.ts";
import type { Observed } from "../memory/attachment.ts";
import type { Access } from "../memory/pages.ts";
import type { SessionOptions } from "../options.ts";
import { orAborted, pause } from "../waiting.ts";
import { Hold } from "./hold.ts";
import { describeProgram, sessionName } from "./program.ts";
import type { ReportedMapping } from "./reports.ts";
import { Ways } from "./ways.ts";

/** Ended mappings that are remembered for a server that is away. */
const maxEnded = 10_000;
/** Who maps what cannot be leased does not wait longer for a lease by request. */
const leaseAnswerMs = 5_000;
/** How long a request waits for the token that the next hello brings. */
const renewMs = 2_000;
const renewPauseMs = 20;

interface HeldSession {
  readonly id: string;
  readonly hold: Hold;
}

export class Session {
  readonly #api: Api;
  readonly #options: SessionOptions;
  readonly #ways: Ways;
  readonly #tellLost: (error: TensordError) => void;
  readonly #mappings = new Set<ReportedMapping>();
  readonly #ended: ReportedMapping[] = [];
  #held: Promise<HeldSession> | undefined;
  #hold: Hold | undefined;
  /** The one whose session this client ends itself. */
  #ending: Hold | undefined;

  constructor(api: Api, options: SessionOptions) {
    this.#api = api;
    this.#options = options;
    this.#tellLost = options.onLost ?? warn;
    this.#ways = new Ways(api, options.hold);
    if (api.transport.endpoint.token === undefined) api.transport.renewToken = (refused) => this.#renewToken(refused);
  }

  /**
   * Does something in the session, and once more in a new one if the server has ended it meanwhile.
   * @throws TensordError what `action` throws, `server-unavailable`, `closed`; the signal's reason
   */
  async use<Result>(
    action: (id: string, tellsMakers: boolean) => Promise<Result>,
    signal?: AbortSignal | undefined,
  ): Promise<Result> {
    // It is opened for all who wait: the signal of one of them ends that one's wait.
    const held = await orAborted(this.#open(), signal);
    try {
      return await action(held.id, held.hold.tellsMakers);
    } catch (error) {
      if (!isTensordError(error, "session-not-found")) throw error;
      this.#lose(held, error);
      const { id, hold } = await orAborted(this.#open(), signal);
      return action(id, hold.tellsMakers);
    }
  }

  /** The session as the server sees it; opens it if there is none. */
  describe(signal?: AbortSignal | undefined): Promise<SessionDescriptor> {
    return this.use((id) => this.#api.session(id, signal), signal);
  }

  /** Ends the session if there is one, and all that it owns. @returns what ended with it */
  async end(signal?: AbortSignal | undefined): Promise<SessionEnd | undefined> {
    const held = await orAborted(
      Promise.resolve(this.#held).catch(() => undefined),
      signal,
    );
    if (held === undefined) return undefined;
    this.#ending = held.hold;
    held.hold.tell();
    try {
      return await this.#api.endSession(held.id, signal);
    } catch (error) {
      if (isTensordError(error, "session-not-found")) return undefined;
      throw error;
    } finally {
      this.#forget(held.hold);
    }
  }

  /** Lets go of it, which ends it. */
  close(): void {
    this.#hold?.close();
  }

  /**
   * Tells the server of a mapping, and of its end, which comes when the last array over it was collected. That of a hand-off's
   * is told at once, and however short it was; so, if later, where `isHandOffs` is undefined.
   */
  report(attachment: Observed, isHandOffs: boolean | undefined): void {
    const { isMakers, access, place } = attachment;
    const mapping = { region: place.region, isWritable: access === "write", isMakers, isHandOffs };
    this.#mappings.add(mapping);
    this.#hold?.changed();
    attachment.observe({
      remapped: (access: Access, isMakers: boolean) => {
        mapping.isWritable = access === "write";
        mapping.isMakers = isMakers;
        this.#hold?.changed();
      },
      unmapped: () => {
        this.#mappings.delete(mapping);
        const isConsumers = !mapping.isMakers && isHandOffs !== false;
        // Without a session nobody is told of what may be a hand-off's.
        const isTold = isConsumers && (isHandOffs === true || this.#hold !== undefined);
        if (isTold && this.#ended.length < maxEnded) this.#ended.push(mapping);
        if (isConsumers && isHandOffs === true) this.#hold?.tell();
        else this.#hold?.changed();
      },
    });
  }

  /**
   * Leases a region by request, where no lock can. @returns what gives it back
   * @throws TensordError what a request throws
   */
  async lease(region: string): Promise<() => void> {
    const signal = AbortSignal.timeout(leaseAnswerMs);
    const lease = await this.use((session) => this.#api.takeLease(region, session, signal), signal);
    return () => void this.#api.endLease(lease).catch(() => undefined);
  }

  /** Opens it behind the caller's back, so that the server can name who maps what. Whoever needs it sees a failure. */
  openSoon(): void {
    this.#open().catch(() => undefined);
  }

  /**
   * Whether there is another token than the one that was refused: that of a session, opened if need be, which the broker holds. After a
   * restart of the server the hold says hello again, and gets another.
   */
  async #renewToken(refused: string | undefined): Promise<boolean> {
    const { transport } = this.#api;
    await this.#open().catch(() => undefined);
    const deadline = performance.now() + renewMs;
    while (this.#ways.isAtBroker && isOld(transport.issuedToken, refused) && performance.now() < deadline)
      await pause(renewPauseMs, { signal: transport.closed });
    return !isOld(transport.issuedToken, refused);
  }

  #open(): Promise<HeldSession> {
    this.#held ??= this.#begin().catch((error) => {
      this.#hold?.close();
      this.#hold = undefined;
      this.#held = undefined;
      throw error;
    });
    return this.#held;
  }

  async #begin(): Promise<HeldSession> {
    const { name, quotaBytes, ttlMs: wantedMs } = this.#options;
    const { id, ttlMs, connection } = await this.#ways.open({
      name: name ?? sessionName(),
      client: describeProgram(name),
      quotaBytes,
      ttlMs: wantedMs,
    });
    const { closed, retryMs } = this.#api.transport;
    const options = {
      ttlMs,
      mapped: () => this.#mappings,
      takeEnded: () => this.#ended.splice(0),
      lost: (why: unknown) => this.#lose({ id, hold }, why),
    };
    const hold: Hold = new Hold(this.#ways, id, options, connection);
    this.#hold = hold;
    await hold.open(retryMs);
    closed.throwIfAborted();
    return { id, hold };
  }

  /** Forgets a session that this client did not end, and says so. */
  #lose({ id, hold }: HeldSession, cause: unknown): void {
    if (this.#hold !== hold) return;
    this.#forget(hold);
    if (this.#ending === hold) return;
    const what = isTensordError(cause, "session-not-found")
      ? "has ended without this process, and with it what it owned"
      : `cannot be held any more, and ends with what it owns (${cause})`;
    this.#tellLost(
      new TensordError("session-not-found", `Session ${id} ${what}`, {
        hint: "what is mapped here stays mapped; make again what others should find: the next use opens another session",
        fields: { session: id },
        cause,
      }),
    );
  }

  /** The next use opens another. */
  #forget(hold: Hold): void {
    hold.close();
    if (this.#hold !== hold) return;
    this.#hold = undefined;
    this.#held = undefined;
  }
}

function isOld(token: string | undefined, refused: string | undefined): boolean {
  return token === undefined || token === refused;
}

function warn({ message }: TensordError): void {
  process.emitWarning(message, { type: "TensordWarning", code: "session-not-found" });
}
