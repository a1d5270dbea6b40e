/**
 * Who somebody is: by the token that came, or by the uid that the kernel says of a Unix socket's peer. It follows the file of tokens
 * as that changes; a file that cannot be used changes nothing and is told of. What a caller may do is `src/routes/access`'s.
 */

import { randomBytes, timingSafeEqual } from "node:crypto";
import { statSync } from "node:fs";
import { TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import { quote } from "../../memory/naming.ts";
import type { Peer } from "../../memory/os/libc-unix.ts";
import { anybody, type Caller } from "../../routes/access/caller.ts";
import { unauthorized } from "../../routes/access/checks.ts";
import { Rate } from "./rate.ts";
import { hashToken, readTokens, type TokenEntry } from "./tokens-file.ts";

/** What somebody shows. A token counts before the peer does, and a wrong one is not made good by it. */
export interface Credentials {
  readonly token?: string | undefined;
  readonly peer?: Peer | undefined;
}

/** Hears that the file was read anew, or why it was not. */
export type OnTokens = (message: string, error?: unknown) => void;

interface Holder {
  readonly caller: Caller;
  readonly hash: Buffer | undefined;
  readonly uids: readonly number[];
  readonly rate: Rate | undefined;
  /** All that its line says. */
  readonly text: string;
  readonly revoke: () => void;
}

/** Of a server that asks for no tokens: whoever reaches it is anybody, and may do everything. */
export const openAuthority = { authenticate: () => anybody, issue: () => undefined } as const;

export class Authority implements Disposable {
  readonly #path: string;
  readonly #onTokens: OnTokens;
  readonly #timer: Timer;
  #holders: readonly Holder[];
  #signature: string;
  /** Tokens that were issued for sessions: by their hash, and by the session. */
  readonly #issued = new Map<string, Holder>();
  readonly #ofSession = new Map<string, string>();

  /** @throws TensordError if the file cannot be used. */
  constructor(path: string, onTokens: OnTokens) {
    this.#path = path;
    this.#onTokens = onTokens;
    this.#signature = signatureOf(path);
    this.#holders = toHolders(readTokens(path), []);
    this.#timer = setInterval(() => this.look(), limits.tokensLookMs);
    this.#timer.unref();
  }

  /** @throws TensordError `unauthorized`. */
  authenticate(credentials: Credentials): Caller {
    return this.#find(credentials).caller;
  }

  /** Who sends a request with this header, which counts against its rate. @throws TensordError `unauthorized`, `too-many-requests`. */
  authenticateHeader(authorization: string | undefined): Caller {
    const holder = this.#find({ token: parseAuthorization(authorization) });
    const seconds = holder.rate?.take(performance.now()) ?? 0;
    if (seconds === 0) return holder.caller;
    const { name } = holder.caller;
    throw new TensordError(
      "too-many-requests",
      `Cannot answer: token ${quote(name ?? "")} asks more often than it may`,
      {
        retry_after_seconds: seconds,
        hint: "Ask again later. `requests_per_second` in the server's TENSORD_TOKENS_FILE says how often.",
      },
    );
  }

  /**
   * A token with which `caller` can be told by HTTP, too, for as long as the session lives and the file says what it says. Issued
   * again, it is another one, and the first no longer counts.
   * @param session its token.
   */
  issue(caller: Caller, session: string): string | undefined {
    const holder = this.#holders.find((each) => each.caller === caller);
    if (holder === undefined) return undefined;
    this.revoke(session);
    const token = `tsd_${randomBytes(32).toString("base64url")}`;
    const key = hashToken(token).toString("hex");
    this.#issued.set(key, holder);
    this.#ofSession.set(session, key);
    return token;
  }

  /** The session has ended, and with it what was issued for it. */
  revoke(session: string): void {
    this.#issued.delete(this.#ofSession.get(session) ?? "");
    this.#ofSession.delete(session);
  }

  /** Reads the file anew if it is another one. */
  look(): void {
    const signature = signatureOf(this.#path);
    if (signature === this.#signature) return;
    this.#signature = signature;
    try {
      const before = this.#holders;
      this.#holders = toHolders(readTokens(this.#path), before);
      for (const holder of before) if (!this.#holders.includes(holder)) holder.revoke();
      this.#onTokens(`tokens were read anew from ${this.#path}: ${this.#holders.length} of them count`);
    } catch (error) {
      this.#onTokens(`the tokens of before still count: ${(error as Error).message}`, error);
    }
  }

  #find({ token, peer }: Credentials): Holder {
    if (token !== undefined) return this.#findByToken(token);
    const holder = peer && this.#holders.find(({ uids }) => uids.includes(peer.uid));
    if (holder !== undefined) return holder;
    throw unauthorized(peer === undefined ? "no token came" : `no token came, and none is for uid ${peer.uid}`);
  }

  #findByToken(token: string): Holder {
    const hash = hashToken(token);
    let found: Holder | undefined;
    // Every one is looked at, and in the same time, so that the answer's time tells of none.
    for (const holder of this.#holders) {
      if (holder.hash !== undefined && timingSafeEqual(hash, holder.hash)) found = holder;
    }
    // Where a hash lies in a map tells nothing of a token with another hash.
    found ??= this.#issued.get(hash.toString("hex"));
    if (found !== undefined && !found.caller.revoked.aborted) return found;
    throw unauthorized("the token is none that counts here");
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** Lines that stand as they did keep their callers, and what those have open. */
function toHolders(entries: readonly TokenEntry[], before: readonly Holder[]): readonly Holder[] {
  const known = new Map(before.map((holder) => [holder.text, holder]));
  return entries.map((entry) => {
    const text = JSON.stringify({ ...entry, hash: entry.hash?.toString("hex") });
    return known.get(text) ?? toHolder(entry, text);
  });
}

function toHolder(
  { name, role, models, roots, hash, uids = [], requests_per_second: perSecond }: TokenEntry,
  text: string,
): Holder {
  const revoked = new AbortController();
  const caller = {
    name,
    role,
    models: models === undefined ? null : new Set(models),
    roots: roots ?? null,
    revoked: revoked.signal,
  };
  const rate = perSecond === undefined ? undefined : new Rate(perSecond, performance.now());
  return { caller, hash, uids, rate, text, revoke: () => revoked.abort() };
}

function parseAuthorization(header: string | undefined): string | undefined {
  if (header === undefined) return undefined;
  const token = /^Bearer +([A-Za-z0-9._~+/-]{1,512}=*) *$/i.exec(header)?.[1];
  if (token !== undefined) return token;
  throw unauthorized("the header Authorization is no `Bearer` with a token");
}

/** What is another after every change of the file, and after every one that takes its place, or the way to it. */
function signatureOf(path: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(" ");
  } catch (error) {
    // Reading it says so in words.
    return String((error as NodeJS.ErrnoException).code);
  }
}
