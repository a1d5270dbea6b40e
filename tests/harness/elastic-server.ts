/** What a fault test asks of a server with an elastic pool on the stand-in driver, and how what it says compares to what there is. */

import type { CudaStandIn } from "./cuda-stand-in.ts";
import { standInUuid } from "./cuda-stand-in.ts";
import { holderOf } from "./device-server.ts";
import type { TestServer } from "./server.ts";
import { until } from "./server-wait.ts";

export const pageSize = 2 * 2 ** 20;
export const device = standInUuid(0);
const path = `/v1/models/default/vmm/${device}`;

export interface Pool {
  readonly id: string;
  readonly physical_bytes: number;
  readonly mapped_bytes: number;
  readonly survives_restart: boolean;
  readonly runs: readonly { readonly byte_offset: number; readonly byte_size: number; readonly first_page: number }[];
  readonly leaving: readonly { readonly taken_by: readonly number[] }[];
  readonly unreleased: readonly { readonly page: number; readonly reason: string }[];
  readonly stuck: readonly { readonly page: number }[];
  readonly workers: readonly { readonly slot: number; readonly is_connected: boolean; readonly taken_pages: number }[];
}

export interface Operation {
  readonly id: string;
  readonly state: string;
}

export class ElasticServer {
  readonly server: TestServer;
  readonly cuda: CudaStandIn;

  constructor(server: TestServer, cuda: CudaStandIn) {
    this.server = server;
    this.cuda = cuda;
  }

  make(capacity = 32): Promise<Pool> {
    return this.server.api.call("PUT", path, { virtual_capacity: capacity * pageSize, page_size: pageSize });
  }

  pool(): Promise<Pool> {
    return this.server.api.call("GET", path);
  }

  async map(pages: number, index?: number): Promise<void> {
    const where = index === undefined ? {} : { byte_offset: index * pageSize };
    await this.server.api.call("POST", `${path}/map`, { byte_size: pages * pageSize, ...where });
  }

  /** Begins to, and waits for nothing. */
  unmap(index: number, pages: number): Promise<Operation> {
    return this.server.api.call("POST", `${path}/unmap`, {
      byte_offset: index * pageSize,
      byte_size: pages * pageSize,
    });
  }

  async cancel(operation: Operation): Promise<void> {
    await this.server.api.call("DELETE", `/v1/operations/${operation.id}`);
  }

  async trim(): Promise<void> {
    await this.server.api.call("POST", `${path}/trim`);
  }

  async compact(): Promise<void> {
    await this.server.api.call("POST", `${path}/compact`);
  }

  async remove(): Promise<void> {
    await this.server.api.call("DELETE", path);
  }

  /** Pages of the stand-in's card that some process has. */
  get inUse(): number {
    return this.cuda.inUse("memory").length;
  }

  /** Numbers of the pages that are mapped, by offset. */
  async pages(): Promise<number[]> {
    const { runs } = await this.pool();
    return runs.flatMap(({ byte_size: size, first_page: first }) =>
      Array.from({ length: size / pageSize }, (_, each) => first + each),
    );
  }

  /** Waits until nothing leaves and nothing is owed, and the books say what there is of the card. @returns the pool. */
  async atRest(): Promise<Pool> {
    let told = "";
    try {
      return await until("the books are what there is", async () => {
        const pool = await this.pool();
        const isResting = pool.leaving.length + pool.unreleased.length + pool.stuck.length === 0;
        const { pools } = await this.server.api.stats();
        const charged = pools.find((each) => each.pool === device)?.used_bytes ?? 0;
        const inUse = this.inUse * pageSize;
        told = JSON.stringify({ pool, charged, inUse });
        const isRight = [pool.mapped_bytes, pool.physical_bytes, charged].every((bytes) => bytes === inUse);
        return isResting && isRight && pool;
      });
    } catch {
      throw new Error(`the books never become what there is: ${told}`);
    }
  }

  /** Ends the fd holder with all that it keeps; the server starts another. */
  async killHolder(): Promise<void> {
    const pid = await holderOf(this.server);
    process.kill(pid, "SIGKILL");
    await until("another fd holder is there", async () => (await holderOf(this.server)) !== pid);
  }
}
