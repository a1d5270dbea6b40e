/** How the command line talks to a running server: over the instance's socket, or where TENSORD_URL says. */

import { accessSync, constants, lstatSync } from "node:fs";
import { dirname } from "node:path";
import { TensordError } from "../../memory/error.ts";
import { howToStart } from "../../memory/host/pod.ts";
import { toInstancePath } from "../../memory/storage/instance-directory.ts";
import type { Config } from "../config.ts";
import type { RegionDetail } from "./answers.ts";

const mostWaits = 10;
const longestWaitSeconds = 10;

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

/** What a success answered with. */
export interface Answer<Body> {
  readonly status: number;
  readonly body: Body;
}

/** A server, as the command line reaches it. */
export class Api {
  readonly #base: string;
  readonly #unix: string | undefined;
  readonly #authorization: Readonly<Record<string, string>>;

  constructor(config: Config, url: string | undefined, token?: string) {
    this.#authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const target = url ?? `unix://${config.socket ?? `${toInstancePath(config)}/http.sock`}`;
    this.#unix = target.startsWith("unix://") ? target.slice("unix://".length) : undefined;
    this.#base = this.#unix === undefined ? target.replace(/\/$/, "") : "http://localhost";
  }

  /** @throws the server's failure, or one that says that nobody answers. */
  async ask<Body>(
    method: Method,
    path: string,
    request?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Answer<Body>> {
    const json =
      request === undefined
        ? { headers }
        : { body: JSON.stringify(request), headers: { ...headers, "content-type": "application/json" } };
    const response = await this.#fetch(path, { method, ...json });
    if (!response.ok) throw await this.#toFailure(response);
    return { status: response.status, body: (await this.#read(response)) as Body };
  }

  /** @returns the answer's body. @throws as `ask` does. */
  async call<Body>(
    method: Method,
    path: string,
    request?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<Body> {
    return (await this.ask<Body>(method, path, request, headers)).body;
  }

  /** The region, and who maps it, or undefined if it is gone. The server takes the question for a use. */
  async findRegion(id: string): Promise<RegionDetail | undefined> {
    try {
      return await this.call<RegionDetail>("GET", `/v1/regions/${id}`);
    } catch (error) {
      if (error instanceof TensordError && error.code === "region-not-found") return undefined;
      throw error;
    }
  }

  /** One page of a list, under the name that its schema gives the rest. @throws as `ask` does. */
  async page<Page extends { readonly items: readonly unknown[] }>(path: string): Promise<Page> {
    const page = await this.call<Page>("GET", path);
    if (!Array.isArray(page.items)) throw this.#notOurs("it has no items");
    return page;
  }

  /** All items of a list, page after page. */
  async *list<Item>(path: string): AsyncGenerator<Item> {
    const separator = path.includes("?") ? "&" : "?";
    for (let cursor: string | null = ""; cursor !== null; ) {
      const page: { items: Item[]; next_cursor: string | null } = await this.page(
        `${path}${separator}limit=1000${cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`}`,
      );
      yield* page.items;
      cursor = page.next_cursor;
    }
  }

  /**
   * The text of an answer that goes on, as it comes, until the server ends it.
   * @throws as `ask` does, and when the connection breaks or `signal` aborts.
   */
  async *open(path: string, headers: Record<string, string>, signal: AbortSignal): AsyncGenerator<string> {
    const response = await this.#fetch(path, { headers, signal });
    if (!response.ok || response.body === null) throw await this.#toFailure(response);
    try {
      yield* response.body.pipeThrough(new TextDecoderStream());
    } catch (cause) {
      throw new TensordError("io-error", "Cannot read on: the connection broke", {}, { cause });
    }
  }

  /** Whoever asks too often is told when to ask again, and does. */
  async #fetch(path: string, init: RequestInit): Promise<Response> {
    for (let waits = 0; ; waits++) {
      const response = await this.#fetchOnce(path, init);
      const seconds = response.status === 429 ? Number(response.headers.get("retry-after")) : 0;
      if (!(seconds > 0 && seconds <= longestWaitSeconds && waits < mostWaits)) return response;
      await response.body?.cancel();
      await Bun.sleep(seconds * 1000);
    }
  }

  async #fetchOnce(path: string, init: RequestInit): Promise<Response> {
    const unix = this.#unix === undefined ? {} : { unix: this.#unix };
    try {
      // Who waits for memory waits longer than the five minutes that Bun lets a connection be silent.
      const headers = { ...(init.headers as Record<string, string> | undefined), ...this.#authorization };
      return await fetch(this.#base + path, { ...init, headers, ...unix, timeout: false });
    } catch (error) {
      if (this.#unix !== undefined) checkAccess(this.#unix, error);
      const { code = "unknown" } = error as NodeJS.ErrnoException;
      throw new TensordError(
        "io-error",
        `Cannot reach a server at ${this.#where}: ${code}`,
        {
          hint: howToStart(
            "Start one with `tensord serve` (`npm start` in its repository), or name another with --url, --instance or --shm-dir.",
          ),
        },
        { cause: error },
      );
    }
  }

  get #where(): string {
    return this.#unix === undefined ? this.#base : `unix://${this.#unix}`;
  }

  /** The answer's object. @throws TensordError if it has none: another server listens there, or a proxy answers for ours. */
  async #read(response: Response): Promise<Readonly<Record<string, unknown>>> {
    let body: unknown;
    try {
      body = await response.json();
    } catch (cause) {
      if (cause instanceof SyntaxError) throw this.#notOurs(`status ${response.status}, and no JSON`);
      throw new TensordError("io-error", `Cannot read the answer of ${this.#where}: it broke off`, {}, { cause });
    }
    if (typeof body !== "object" || body === null || Array.isArray(body))
      throw this.#notOurs(`status ${response.status}, and no JSON object`);
    return body as Readonly<Record<string, unknown>>;
  }

  async #toFailure(response: Response): Promise<TensordError> {
    const { code, detail, ...facts } = await this.#read(response);
    if (typeof code !== "string" || typeof detail !== "string")
      return this.#notOurs(`status ${response.status}, and no failure of ours`);
    return new TensordError(code as TensordError["code"], detail, facts);
  }

  #notOurs(state: string): TensordError {
    return new TensordError("internal", `Cannot read the answer of ${this.#where}: ${state}`, {
      hint: "Is a tensord server there? See --url and TENSORD_URL.",
    });
  }
}

/** A socket that stands, and that this user may not open, says so. @throws TensordError. */
function checkAccess(path: string, cause: unknown): void {
  const uid = process.geteuid?.();
  try {
    accessSync(path, constants.W_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EACCES") return;
    const owner = ownerOf(path) ?? ownerOf(dirname(path));
    throw new TensordError(
      "io-error",
      `Cannot reach the server at unix://${path}: uid ${uid} may not open its socket (${code})`,
      {
        errno: code,
        hint: `It belongs to ${owner ?? "another user"}. Run this as that user, or as a member of the group (in Kubernetes by fsGroup).`,
      },
      { cause },
    );
  }
}

/** Whose it is, if that may be seen: a directory that may not be entered hides what is in it. */
function ownerOf(path: string): string | undefined {
  try {
    const { uid, gid } = lstatSync(path);
    return `uid ${uid} and group ${gid}`;
  } catch {
    return undefined;
  }
}
