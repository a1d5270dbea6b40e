/**
 * What each role may do, as data: the one place that says so. `docs/access.md` has it as a table, and each cell of that is a
 * test. An administrator may do all of it. Pure.
 */

import type { Caller, Role } from "./caller.ts";

/**
 * How far a right goes. `own`: what the caller's token made, in a model that it may use. `model`: whatever is in a model that it
 * may use. `every-model`: only for a token that is held to no models. `any`: it is about nobody's memory, or shows what the
 * caller may see.
 */
export type Reach = "none" | "own" | "model" | "every-model" | "any";

type Right = Readonly<Record<Exclude<Role, "admin">, Reach>>;

const seeing = { worker: "model", reader: "model" } as const;
const working = { worker: "model", reader: "none" } as const;
const changing = { worker: "own", reader: "none" } as const;
const keeping = { worker: "own", reader: "own" } as const;
const asking = { worker: "any", reader: "any" } as const;
const administering = { worker: "none", reader: "none" } as const;

/** By operation: those of the document under their operationId, then those that are a part of one or no HTTP. */
export const rights = {
  createRegion: working,
  listRegions: asking,
  getRegion: seeing,
  getRegionByName: seeing,
  changeRegion: changing,
  changeRegionByName: changing,
  deleteRegion: changing,
  deleteRegionByName: changing,
  sealRegion: changing,
  sealGroup: changing,
  openGroup: seeing,
  verifyRegion: seeing,
  /** What is let go of is read again, and takes time of others. */
  adviseRegion: working,
  flushRegion: changing,
  copyRegion: working,
  /** Of files below the roots that whoever runs the server has named: it reads them as itself. */
  loadModel: working,
  readData: seeing,
  writeData: changing,
  readFile: seeing,
  readFileByName: seeing,
  claimName: working,
  releaseClaim: changing,
  evict: working,
  takeLease: seeing,
  listLeases: seeing,
  renewLease: keeping,
  endLease: keeping,
  listOperations: asking,
  getOperation: seeing,
  cancelOperation: changing,
  openSession: asking,
  listSessions: asking,
  getSession: keeping,
  renewSession: keeping,
  endSession: keeping,
  registerModel: administering,
  listModels: asking,
  getModel: seeing,
  changeModel: administering,
  unregisterModel: administering,
  listEvents: asking,
  getStats: asking,
  getCapabilities: asking,
  createElasticPool: working,
  listElasticPools: asking,
  getElasticPool: seeing,
  changeElasticPool: working,
  deleteElasticPool: working,
  mapPages: working,
  unmapPages: working,
  trimPool: working,
  compactPool: working,
  listDevices: asking,
  getDevice: asking,
  getMetrics: { worker: "every-model", reader: "every-model" },
  diagnose: administering,
  /** The WebSocket of a session. */
  holdSession: keeping,
  /** `"if_exists": "replace"` of a name that another region holds, the seal that takes it over, and a claim's `rebuild`. */
  replaceRegion: changing,
  /** Through the broker, by a descriptor. */
  attachRegion: seeing,
  attachRegionForWriting: changing,
  /** Through the broker, by descriptors that may be mapped for writing: what hands out pages, and holds them. */
  attachToElasticPool: working,
} as const satisfies Readonly<Record<string, Right>>;

export type Operation = keyof typeof rights;

/** What needs no token: the index and the probes, which say nothing of memory. The documents and their page need none either. */
export const openOperations: ReadonlySet<string> = new Set(["getIndex", "isLive", "isReady"]);

export function isOperation(name: string): name is Operation {
  return Object.hasOwn(rights, name);
}

/** What an operation is about. Of a session there is no model. */
export interface Subject {
  readonly model: string | null;
  /** Whose it is. */
  readonly createdBy: string | null;
}

export function reachOf({ role }: Pick<Caller, "role">, operation: Operation): Reach {
  return role === "admin" ? "any" : rights[operation][role];
}

/** Whether the caller may see what is in this model; null is no model's. */
export function mayUse({ models }: Pick<Caller, "models">, model: string | null): boolean {
  return models === null || model === null || models.has(model);
}

/** Whether the caller may do it at all, to whatever. */
export function mayEver(caller: Pick<Caller, "role" | "models">, operation: Operation): boolean {
  const reach = reachOf(caller, operation);
  return reach !== "none" && (reach !== "every-model" || caller.models === null);
}

export function isOwn(
  { name, role }: Pick<Caller, "name" | "role">,
  { createdBy }: Pick<Subject, "createdBy">,
): boolean {
  return role === "admin" || (name !== null && name === createdBy);
}

export function may(caller: Pick<Caller, "name" | "role" | "models">, operation: Operation, subject: Subject): boolean {
  if (!mayEver(caller, operation) || !mayUse(caller, subject.model)) return false;
  return reachOf(caller, operation) !== "own" || isOwn(caller, subject);
}
