/**
 * A model file becomes a region, as an operation: the file itself, where it is mapped, or a copy of its bytes. It is opened below its
 * root, held against what its header says, looked at once more, and the region committed sealed. Which build of the name it is,
 * the file's state says, so that one file is loaded once, and a changed one stands beside what it was.
 */

import { TensordError } from "../memory/error.ts";
import { describe, idOf } from "../memory/journal/region-record.ts";
import { findRequested, startOperation, type Told } from "../memory/operations/run.ts";
import { toOutOfDescriptors } from "../memory/os/descriptors.ts";
import { type CreateRequest, createRegion } from "../memory/regions/create.ts";
import type { Operation } from "../memory/state/operation.ts";
import { isRecovered, type Region } from "../memory/state/region.ts";
import type { Store } from "../memory/state/store.ts";
import { attachToEqual, toReason } from "./equal.ts";
import { fileLabel, toFileLabel } from "./file-label.ts";
import type { FileLane, WantedFormat } from "./file-lane.ts";
import { fill, isWritten, type Source, toFailure } from "./fill.ts";
import { quotePath } from "./formats/refusal.ts";
import { bindTo } from "./map.ts";
import { type Choice, chooseMode, type WantedMode } from "./mode.ts";
import type { ModelPath } from "./source/model-roots.ts";

/** What the region is to be. */
export interface LoadTarget extends Omit<CreateRequest, "tensors" | "layout" | "fill" | "isWritten" | "version"> {
  /** Undefined: the file's state says it. */
  readonly version: string | undefined;
}

/** How the file is taken. */
export interface Wanted {
  readonly format: WantedFormat;
  /** Undefined: nobody said it. */
  readonly mode: WantedMode | undefined;
}

/**
 * Begins to load `file`. How it goes wrong later, the operation says.
 * @returns it, or the one that was begun under the same key by the same caller.
 * @throws TensordError `model-not-found`, `too-many-requests`, `shutting-down`.
 */
export function startLoad(
  store: Store,
  files: FileLane,
  file: ModelPath,
  { format, mode }: Wanted,
  target: LoadTarget,
  requestKey: string | null,
): Operation {
  const { model, createdBy } = target;
  const known = findRequested(store, { requestKey, createdBy });
  if (known !== undefined) return known;
  store.books.model(model);
  const request = { kind: "load", model, createdBy, requestKey, source: file.path, totalBytes: 0 } as const;
  return startOperation(store, request, async (onBytes, signal, told) => {
    const opened = await files.open(file, format, signal).catch((error: unknown) => {
      throw toOutOfDescriptors(error) ?? toFailure(file, error);
    });
    try {
      store.step("load.opened");
      const source = { ...file, ...opened };
      const choice = chooseMode(mode, source, target.isStorageSaid, process.geteuid?.() ?? 0);
      told.setChoice(choice);
      // Who maps a file reads and writes nothing of it here.
      told.setTotal(choice.mode === "map" ? 0 : opened.layout.byteSize);
      if (choice.mode === "copy") {
        const equal = await takeEqual(store, files, source, target, choice, onBytes, told, signal);
        if (equal !== undefined) return idOf(equal);
      }
      const made =
        choice.mode === "map" ? asMap(store, files, source, target) : asCopy(store, files, source, target, onBytes);
      return idOf(await load(store, source, mode === "auto" ? made : inThatMode(store, source, made), signal));
    } finally {
      await files.close(opened);
    }
  });
}

/** Attaches to a region that has the file's bytes, where one stands for it. */
async function takeEqual(
  store: Store,
  files: FileLane,
  source: Source,
  target: LoadTarget,
  { mode, reason }: Choice,
  onBytes: (byteSize: number) => void,
  { setTotal, setChoice }: Told,
  signal: AbortSignal,
): Promise<Region | undefined> {
  let compared = 0;
  const onCompared = (byteSize: number) => {
    compared += byteSize;
    onBytes(byteSize);
  };
  const equal = await attachToEqual(store, files, source, target, onCompared, signal);
  if (equal === undefined) setTotal(compared + source.layout.byteSize);
  else setChoice({ mode, reason: `${reason}; ${toReason(equal)}` });
  return equal;
}

/** What the region is to be, with its version, and what brings its bytes. */
type Made = LoadTarget & Pick<CreateRequest, "version" | "isWritten"> & Required<Pick<CreateRequest, "fill">>;

/** Under versions of their own, so that who cannot open the file finds the copy, and not this one. */
function asMap(store: Store, files: FileLane, source: Source, target: LoadTarget): Made {
  const version = target.version ?? source.key.replace(/^file/, "map");
  return { ...target, version, storage: "file", fill: (region) => bindTo(store, files, source, region) };
}

function asCopy(
  store: Store,
  files: FileLane,
  source: Source,
  target: LoadTarget,
  onBytes: (byteSize: number) => void,
): Made {
  const version = target.version ?? source.key;
  return {
    ...target,
    version,
    isWritten: isWritten(source),
    fill: (region, stop) => fill(store, files, source, region, onBytes, stop),
  };
}

/**
 * Who says a mode gets no region of the other one by its name, nor a file as it was before it changed.
 * @throws TensordError `name-taken`.
 */
function inThatMode(store: Store, source: Source, made: Made): Made {
  const { model, name, version, storage } = made;
  const holder = name === null ? undefined : store.books.model(model).names.get(name, version);
  if (holder === undefined) return made;
  const { origin } = store.storages.of(holder);
  const isOther = (origin === undefined) === (storage === "file");
  if (isOther || origin === undefined) return { ...made, isStorageSaid: made.isStorageSaid || isOther };
  const [file] = source.files;
  const isSame = holder.identity.ino === String(file?.signature.ino);
  if (isSame && origin.mtimeNs(holder.token) === String(file?.signature.mtimeNs)) return made;
  const state = `${describe(holder)} holds the name, as its file was before it changed`;
  throw new TensordError("name-taken", `Cannot map ${quotePath(source.path)}: ${state}`, {
    region: idOf(holder),
    hint: "Leave the version out, which then stands for the file's state, say another one, or delete that region.",
  });
}

async function load(store: Store, source: Source, target: Made, signal: AbortSignal): Promise<Region> {
  const { hasHeader } = store.storages.get(target.storage);
  const { layout, tensors } = source;
  const { version } = target;
  const request = {
    ...target,
    ifExists: (await isLessRecovered(store, { ...target, version, tensors })) ? ("replace" as const) : target.ifExists,
    labels: { [fileLabel]: toFileLabel(source.path), ...target.labels },
    tensors,
    // Where no header is set apart, it is among the bytes.
    layout: hasHeader ? layout : { ...layout, header: new Uint8Array(0), dataOffset: 0 },
  };
  return (await createRegion(store, request, signal)).region;
}

/** Whether the name is held by what came back without its row as plain bytes, of which the file knows more. */
async function isLessRecovered(
  store: Store,
  { model, name, version, tensors }: Pick<CreateRequest, "model" | "name" | "version" | "tensors">,
): Promise<boolean> {
  const holder = name === null ? undefined : store.books.model(model).names.get(name, version);
  if (holder === undefined || !isRecovered(holder) || holder.format !== "raw") return false;
  return (await store.layouts.compare(tensors, holder.tensors)) !== undefined;
}
