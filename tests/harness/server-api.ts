/** A client over a server's Unix socket, thin enough that a test sees every status, and typed by the server's own schemas. */

import type { z } from "@hono/zod-openapi";
import type { ProblemBody } from "../../src/routes/schemas/problem.ts";
import type * as regions from "../../src/routes/schemas/region.ts";
import type * as requests from "../../src/routes/schemas/requests.ts";
import type * as books from "../../src/routes/schemas/stats.ts";
import type { ListedRegion, Region, RegionDetail, RegionList } from "./answers.ts";
import { patienceMs, until } from "./server-wait.ts";

export type { ListedRegion, Region, RegionDetail, RegionList };
export type Stats = z.infer<typeof books.Stats>;
export type Deletion = z.infer<typeof regions.Deletion>;
export type Verification = z.infer<typeof regions.Verification>;
export type NewRegion = z.input<typeof requests.CreateRegion>;

export interface Answer<Body> {
  readonly status: number;
  readonly body: Body;
}

/** The server, or the connection to it, went away before there was an answer. */
export class NoAnswer extends Error {
  override readonly name = "NoAnswer";
}

/** A failure that the server answered with. */
export class Refused extends Error {
  override readonly name = "Refused";
  readonly problem: ProblemBody;

  constructor(what: string, problem: ProblemBody) {
    super(`${what}: ${JSON.stringify(problem)}`);
    this.problem = problem;
  }
}

export class ServerApi {
  readonly #socket: string;

  constructor(socket: string) {
    this.#socket = socket;
  }

  /** Any answer, whatever its status. @throws NoAnswer if there is none, Error if the deadline passed. */
  async request<Body>(method: string, path: string, body?: unknown, deadlineMs = patienceMs): Promise<Answer<Body>> {
    const signal = AbortSignal.timeout(deadlineMs);
    try {
      const response = await fetch(`http://localhost${path}`, {
        method,
        unix: this.#socket,
        signal,
        ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
      });
      return { status: response.status, body: (await response.json()) as Body };
    } catch (cause) {
      if (signal.aborted) throw new Error(`not within ${deadlineMs} ms: an answer to ${method} ${path}`, { cause });
      throw new NoAnswer(`${method} ${path}: ${cause}`, { cause });
    }
  }

  /** The body of a success. @throws Refused with the problem if it is none. */
  async call<Body>(method: string, path: string, body?: unknown, deadlineMs?: number): Promise<Body> {
    const answer = await this.request<Body>(method, path, body, deadlineMs);
    if (answer.status < 300) return answer.body;
    throw new Refused(`${method} ${path}`, answer.body as ProblemBody);
  }

  /** The problem of a failure. @throws Error if it is a success. */
  async problem(method: string, path: string, body?: unknown, deadlineMs?: number): Promise<ProblemBody> {
    const answer = await this.request<ProblemBody>(method, path, body, deadlineMs);
    if (answer.status >= 400) return answer.body;
    throw new Error(`${method} ${path} should fail: ${answer.status} ${JSON.stringify(answer.body)}`);
  }

  create(body: NewRegion, deadlineMs?: number): Promise<Region> {
    return this.call("POST", "/v1/regions", body, deadlineMs);
  }

  get(id: string): Promise<RegionDetail> {
    return this.call("GET", `/v1/regions/${id}`);
  }

  /** The region, or undefined if there is none. */
  async find(id: string): Promise<RegionDetail | undefined> {
    const { status, body } = await this.request<RegionDetail>("GET", `/v1/regions/${id}`);
    if (status === 200) return body;
    if (status === 404) return undefined;
    throw new Refused(`GET ${id}`, body as unknown as ProblemBody);
  }

  /** The region that holds the name in the model `default`, or undefined. */
  async findByName(name: string): Promise<RegionDetail | undefined> {
    const { status, body } = await this.request<RegionDetail>("GET", `/v1/models/default/regions/${name}`);
    if (status === 200) return body;
    if (status === 404) return undefined;
    throw new Refused(`GET ${name}`, body as unknown as ProblemBody);
  }

  seal(id: string, options: z.input<typeof requests.SealRegion> = {}): Promise<Region> {
    return this.call("POST", `/v1/regions/${id}/seal`, options);
  }

  verify(id: string): Promise<Verification> {
    return this.call("POST", `/v1/regions/${id}/verify`);
  }

  delete(id: string): Promise<Deletion> {
    return this.call("DELETE", `/v1/regions/${id}`);
  }

  stats(): Promise<Stats> {
    return this.call("GET", "/v1/stats");
  }

  /** What creating it answered, as it is now: the descriptor without what only the kernel and clients' reports tell. */
  async descriptor(id: string): Promise<Region> {
    const { in_use, has_writers, leases, holders, unknown_holders, lease_barred, drain, ...descriptor } =
      await this.get(id);
    return descriptor;
  }

  async list(): Promise<ListedRegion[]> {
    const regions: ListedRegion[] = [];
    for (let cursor: string | null = ""; cursor !== null; ) {
      const query: string = cursor === "" ? "" : `&cursor=${cursor}`;
      const page: RegionList = await this.call("GET", `/v1/regions?limit=1000${query}`);
      regions.push(...page.items);
      cursor = page.next_cursor;
    }
    return regions;
  }

  /** Waits until the region is gone from the books. */
  async untilGone(id: string): Promise<void> {
    await until(`${id} is freed`, async () => (await this.find(id)) === undefined);
  }
}
