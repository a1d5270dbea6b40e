/** How the command line talks to a running server: over the instance's socket, or where TENSORD_URL says. */

import { TensordError } from "../../memory/error.ts";
import { toInstancePath } from "../../memory/instance-directory.ts";
import type { Config } from "../config.ts";

/** A server, as the command line reaches it. */
export class Api {
  readonly #base: string;
  readonly #unix: string | undefined;

  constructor(config: Config, url: string | undefined) {
    const target = url ?? `unix://${config.socket ?? `${toInstancePath(config)}/http.sock`}`;
    this.#unix = target.startsWith("unix://") ? target.slice("unix://".length) : undefined;
    this.#base = this.#unix === undefined ? target.replace(/\/$/, "") : "http://localhost";
  }

  /** @returns the answer's body. @throws the server's failure, or one that says that nobody answers. */
  async call<Body>(method: "GET" | "DELETE", path: string): Promise<Body> {
    const response = await this.#fetch(method, path);
    const body = await response.json();
    if (response.ok) return body as Body;
    const { code, detail, ...facts } = body as ConstructorParameters<typeof TensordError>[2] & {
      code: TensordError["code"];
      detail: string;
    };
    throw new TensordError(code, detail, facts);
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

  async #fetch(method: string, path: string): Promise<Response> {
    try {
      return await fetch(this.#base + path, { method, ...(this.#unix === undefined ? {} : { unix: this.#unix }) });
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
