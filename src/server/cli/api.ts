/** How the command line talks to a running server: over the instance's socket, or where TENSORD_URL says. */

import { TensordError } from "../../memory/error.ts";
import { toInstancePath } from "../../memory/storage/instance-directory.ts";
import type { Config } from "../config.ts";
import type { RegionDetail } from "./answers.ts";

/** What a success answered with. */
export interface Answer<Body> {
  readonly status: number;
  readonly body: Body;
}

/** A server, as the command line reaches it. */
export class Api {
  readonly #base: string;
  readonly #unix: string | undefined;

  constructor(config: Config, url: string | undefined) {
    const target = url ?? `unix://${config.socket ?? `${toInstancePath(config)}/http.sock`}`;
    this.#unix = target.startsWith("unix://") ? target.slice("unix://".length) : undefined;
    this.#base = this.#unix === undefined ? target.replace(/\/$/, "") : "http://localhost";
  }

  /** @throws the server's failure, or one that says that nobody answers. */
  async ask<Body>(method: "GET" | "POST" | "DELETE", path: string, request?: unknown): Promise<Answer<Body>> {
    const json =
      request === undefined ? {} : { body: JSON.stringify(request), headers: { "content-type": "application/json" } };
    const response = await this.#fetch(path, { method, ...json });
    if (!response.ok) throw await toFailure(response);
    return { status: response.status, body: (await response.json()) as Body };
  }

  /** @returns the answer's body. @throws as `ask` does. */
  async call<Body>(method: "GET" | "POST" | "DELETE", path: string, request?: unknown): Promise<Body> {
    return (await this.ask<Body>(method, path, request)).body;
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

  /** All items of a list, page after page. */
  async *list<Item>(path: string): AsyncGenerator<Item> {
    const separator = path.includes("?") ? "&" : "?";
    for (let cursor: string | null = ""; cursor !== null; ) {
      const page: { items: Item[]; next_cursor: string | null } = await this.call(
        "GET",
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
    if (!response.ok || response.body === null) throw await toFailure(response);
    try {
      yield* response.body.pipeThrough(new TextDecoderStream());
    } catch (cause) {
      throw new TensordError("io-error", "Cannot read on: the connection broke", {}, { cause });
    }
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const unix = this.#unix === undefined ? {} : { unix: this.#unix };
    try {
      // Who waits for memory waits longer than the five minutes that Bun lets a connection be silent.
      return await fetch(this.#base + path, { ...init, ...unix, timeout: false });
    } catch (error) {
      const where = this.#unix === undefined ? this.#base : `unix://${this.#unix}`;
      const { code = "unknown" } = error as NodeJS.ErrnoException;
      throw new TensordError(
        "io-error",
        `Cannot reach a server at ${where}: ${code}`,
        { hint: "Start one with `npm start`, or name another with --url, --instance or --shm-dir." },
        { cause: error },
      );
    }
  }
}

async function toFailure(response: Response): Promise<TensordError> {
  const { code, detail, ...facts } = (await response.json()) as ConstructorParameters<typeof TensordError>[2] & {
    code: TensordError["code"];
    detail: string;
  };
  return new TensordError(code, detail, facts);
}
