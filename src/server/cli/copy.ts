/** `copy`: has the server copy a region, and shows how far it is; Ctrl-C cancels it. `operations`: lists them, and cancels one. */

import { type FailureCode, type FailureFacts, TensordError } from "../../memory/error.ts";
import { inOurWords, type TargetOptions, toTarget } from "./alloc.ts";
import type { Operation, RegionDetail } from "./answers.ts";
import type { Api } from "./api.ts";
import { operationHead, toOperationRow, toProgress } from "./operation-text.ts";
import { toBytes, toJson, toTable } from "./table.ts";
import { toId } from "./target.ts";
import { pause, type Running } from "./until-stopped.ts";

/** As they were written. */
export interface CopyOptions extends TargetOptions {
  readonly device?: string;
  readonly wait: boolean;
}

/** As they were written. */
export interface OperationsOptions {
  readonly model?: string;
  readonly state?: string;
  readonly cancel?: string;
}

const longestPauseMs = 250;

/**
 * Copies a region, by id, `name` (of the default model) or `model/name`.
 * @param name of the copy; undefined: none.
 * @throws what the copy fails with.
 */
export async function copy(
  api: Api,
  target: string,
  name: string | undefined,
  { device, wait, ...options }: CopyOptions,
  asJson: boolean,
  running: Running,
): Promise<string> {
  const request = {
    ...(name !== undefined && { name }),
    ...toTarget(options, `copy ${target}`),
    ...(device !== undefined && { storage: "cuda_vmm", device_uuid: device }),
  };
  const id = await toId(api, target, "copy");
  const begun = api.call<Operation>("POST", `/v1/regions/${id}/copy`, request);
  const operation = await toResult(api, begun, wait, running);
  if (asJson) return toJson(operation);
  const region = operation.region === null ? undefined : await api.findRegion(operation.region);
  if (region === undefined) return `${operation.id} has begun; \`tensord operations\` tells how far it is`;
  return toText(target, region);
}

/** An operation as it ended, or, where nobody waits for that, as it began. @throws what it failed with, in the command line's words. */
export async function toResult(
  api: Api,
  begun: Promise<Operation>,
  wait: boolean,
  running: Running,
): Promise<Operation> {
  const first = await begun.catch(inOurWords);
  const operation = wait ? await follow(api, first, running) : first;
  const { problem } = operation;
  if (problem === null) return operation;
  const { code, detail, ...facts } = problem;
  return inOurWords(new TensordError(code as FailureCode, detail, facts as FailureFacts));
}

function toText(target: string, { id, model, name, storage }: RegionDetail): string {
  const device = storage.device_uuid === null ? "" : ` on ${storage.device_uuid}`;
  const called = name === null ? id : `${model}/${name}`;
  return [
    `copied ${target} to ${called}, sealed, ${storage.kind}${device}, ${toBytes(storage.byte_size)}`,
    `  id      ${id}`,
    `  remove  tensord rm ${name === null ? id : model === "default" ? name : called}`,
  ].join("\n");
}

/** Asks until it has ended. On a terminal it shows how far it is. */
async function follow(api: Api, begun: Operation, { signal }: Running): Promise<Operation> {
  const path = `/v1/operations/${begun.id}`;
  let operation = begun;
  for (let pauseMs = 5; operation.ended_at === null; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
    show(toProgress(operation));
    await pause(pauseMs, signal);
    operation = await api.call<Operation>(signal.aborted ? "DELETE" : "GET", path);
  }
  show("");
  return operation;
}

/** One line, in place of the one before. */
function show(line: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${line}`);
}

/** All operations that are told of, or the one that is to be cancelled, as it ended. */
export async function operations(api: Api, options: OperationsOptions, asJson: boolean): Promise<string> {
  const { model, state, cancel } = options;
  const found =
    cancel === undefined
      ? await Array.fromAsync(api.list<Operation>(`/v1/operations?${toQuery({ model, state })}`))
      : [await api.call<Operation>("DELETE", `/v1/operations/${encodeURIComponent(cancel)}`)];
  if (asJson) return toJson(found);
  return found.length === 0 ? "no operations" : toTable(operationHead, found.map(toOperationRow));
}

function toQuery(filters: Readonly<Record<string, string | undefined>>): URLSearchParams {
  return new URLSearchParams(Object.entries(filters).filter((entry): entry is [string, string] => Boolean(entry[1])));
}
