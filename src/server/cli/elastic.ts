/** `pools`: the elastic pools, one a line. `pool`: makes one, shows it, maps and unmaps its pages, and so on. */

import { type FailureCode, type FailureFacts, TensordError } from "../../memory/error.ts";
import type {
  Compaction,
  ElasticPool,
  ElasticPoolDetail,
  MappedPages,
  Operation,
  PoolDeletion,
  Trim,
} from "./answers.ts";
import type { Api } from "./api.ts";
import { poolHead, toPoolText, toRow } from "./elastic-text.ts";
import { parseByteSize, parseDurationMs } from "./quantity.ts";
import { toBytes, toJson, toTable } from "./table.ts";

export const poolActions = ["create", "show", "change", "map", "unmap", "trim", "compact", "delete"] as const;
export type PoolAction = (typeof poolActions)[number];

/** As they were written. */
export interface PoolOptions {
  readonly capacity?: string;
  readonly pageSize?: string;
  readonly minimum?: string;
  readonly maximum?: string;
  readonly offset?: string;
  readonly size?: string;
  readonly session?: string;
  readonly evictable?: boolean;
  readonly onFull?: string;
  readonly deadline?: string;
  readonly wait: boolean;
}

export async function pools(api: Api, { model }: { readonly model?: string }, asJson: boolean): Promise<string> {
  const query = model === undefined ? "" : `?model=${encodeURIComponent(model)}`;
  const found = await Array.fromAsync(api.list<ElasticPool>(`/v1/vmm${query}`));
  if (asJson) return toJson(found);
  return found.length === 0 ? "no elastic pools" : toTable(poolHead, found.map(toRow));
}

/** Does `action` to the elastic pool of a model on a device. @throws what the server refuses. */
export async function pool(
  api: Api,
  action: PoolAction,
  { model, device }: { readonly model: string; readonly device: string },
  options: PoolOptions,
  asJson: boolean,
): Promise<string> {
  refuseStray(action, options);
  const path = `/v1/models/${encodeURIComponent(model)}/vmm/${encodeURIComponent(device)}`;
  const done = <Answer>(answer: Answer, toText: (answer: Answer) => string) =>
    asJson ? toJson(answer) : toText(answer);
  switch (action) {
    case "create": {
      const asked = { virtual_capacity: need(action, options, "capacity"), ...toLimits(options) };
      const page = options.pageSize === undefined ? {} : { page_size: parseByteSize("--page-size", options.pageSize) };
      return done(await api.call<ElasticPoolDetail>("PUT", path, { ...asked, ...page }), toPoolText);
    }
    case "show":
      return done(await api.call<ElasticPoolDetail>("GET", path), toPoolText);
    case "change":
      return done(await api.call<ElasticPoolDetail>("PATCH", path, toLimits(options)), toPoolText);
    case "map":
      return done(await api.call<MappedPages>("POST", `${path}/map`, toMapRequest(options)), ({ run }) => {
        return `mapped ${toBytes(run.byte_size)} at ${run.byte_offset}, pages from ${run.first_page}`;
      });
    case "unmap":
      return done(await unmap(api, path, options), toUnmapText);
    case "trim":
      return done(await api.call<Trim>("POST", `${path}/trim`), ({ freed_bytes: freed }) => `${toBytes(freed)} freed`);
    case "compact":
      return done(await api.call<Compaction>("POST", `${path}/compact`), ({ moves }) => {
        const bytes = moves.reduce((sum, { byte_size }) => sum + byte_size, 0);
        return moves.length === 0 ? "nothing to move" : `${toBytes(bytes)} moved, in ${moves.length} pieces`;
      });
    case "delete":
      return done(
        await api.call<PoolDeletion>("DELETE", path),
        ({ freed_bytes: freed }) => `deleted, ${toBytes(freed)} freed`,
      );
  }
}

/** Which options each action takes. */
const taken: Readonly<Record<PoolAction, readonly (keyof PoolOptions)[]>> = {
  create: ["capacity", "pageSize", "minimum", "maximum"],
  show: [],
  change: ["minimum", "maximum"],
  map: ["size", "offset", "session", "evictable", "onFull", "deadline"],
  unmap: ["offset", "size", "wait"],
  trim: [],
  compact: [],
  delete: [],
};

const flags: Readonly<Record<keyof PoolOptions, string>> = {
  capacity: "--capacity",
  pageSize: "--page-size",
  minimum: "--minimum",
  maximum: "--maximum",
  offset: "--offset",
  size: "--size",
  session: "--session",
  evictable: "--evictable",
  onFull: "--on-full",
  deadline: "--deadline",
  wait: "--no-wait",
};

/** An option that would be ignored is a mistake. */
function refuseStray(action: PoolAction, options: PoolOptions): void {
  const given = (Object.keys(flags) as (keyof PoolOptions)[]).filter((name) =>
    name === "wait" ? !options.wait : options[name] !== undefined,
  );
  const stray = given.find((name) => !taken[action].includes(name));
  if (stray === undefined) return;
  const wanted = taken[action].map((name) => flags[name]).join(", ");
  throw new TensordError(
    "validation-failed",
    `Cannot ${action} an elastic pool: ${flags[stray]} is not for that, want ${wanted === "" ? "no option" : wanted}`,
  );
}

function need(action: PoolAction, options: PoolOptions, name: "capacity" | "size" | "offset"): number {
  const text = options[name];
  if (text !== undefined) return parseByteSize(flags[name], text);
  throw new TensordError("validation-failed", `Cannot ${action}: ${flags[name]} is missing, want it as 1GiB`);
}

/** `none` takes a maximum away. */
function toLimits({ minimum, maximum }: PoolOptions) {
  return {
    ...(minimum !== undefined && { minimum_bytes: parseByteSize("--minimum", minimum) }),
    ...(maximum !== undefined && { maximum_bytes: maximum === "none" ? null : parseByteSize("--maximum", maximum) }),
  };
}

function toMapRequest(options: PoolOptions) {
  const { offset, session, evictable, onFull, deadline } = options;
  return {
    byte_size: need("map", options, "size"),
    ...(offset !== undefined && { byte_offset: parseByteSize("--offset", offset) }),
    ...(session !== undefined && { session }),
    ...(evictable === true && { evictable }),
    ...(onFull !== undefined && { on_full: onFull }),
    ...(deadline !== undefined && { deadline_ms: parseDurationMs("--deadline", deadline) }),
  };
}

/** Until every worker has let go, unless it is not to be waited for. @throws what it fails with. */
async function unmap(api: Api, path: string, options: PoolOptions): Promise<Operation> {
  const asked = { byte_offset: need("unmap", options, "offset"), byte_size: need("unmap", options, "size") };
  let operation = await api.call<Operation>("POST", `${path}/unmap`, asked);
  while (options.wait && operation.ended_at === null) {
    operation = await api.call<Operation>("GET", `/v1/operations/${operation.id}`, undefined, { prefer: "wait=60" });
  }
  const { problem } = operation;
  if (problem === null) return operation;
  const { code, detail, ...facts } = problem;
  throw new TensordError(code as FailureCode, detail, facts as FailureFacts);
}

function toUnmapText({ id, ended_at: endedAt, total_bytes: bytes }: Operation): string {
  if (endedAt !== null) return `unmapped ${toBytes(bytes)}`;
  return `${id}: ${toBytes(bytes)} go once every worker has let go; \`tensord operations\` tells, and cancels`;
}
