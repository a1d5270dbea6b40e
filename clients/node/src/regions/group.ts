/** Groups: regions that are sealed in one turn, and mapped as of one turn. */

import type { AccessOptions, SealGroupOptions } from "../options.ts";
import "../dispose.ts";
import { inspect } from "node:util";
import { TensordError } from "../errors.ts";
import type { ListedRegion } from "../http/wire.ts";
import type { WaitOptions } from "../waiting.ts";
import type { Asker } from "./asker.ts";
import { mapReported } from "./make-region.ts";
import { findRegions, toAccess } from "./mapper.ts";
import { Region, viewOf } from "./region.ts";
import { sealViews } from "./region-view.ts";

/**
 * Regions that were opened in one turn: one version of all of them. `attach` makes it, of a list of names. Close it, which
 * closes each, or declare it with `using`; `const [first, second] = group` are its regions, in the order of the names.
 */
export class Group implements Iterable<Region> {
  /** All of them, in the order of the names. */
  readonly regions: readonly Region[];

  constructor(regions: readonly Region[]) {
    this.regions = regions;
  }

  [Symbol.iterator](): IterableIterator<Region> {
    return this.regions[Symbol.iterator]();
  }

  /** Lets go of all of them here. Safe to call twice. Arrays taken before stay valid. */
  close(): void {
    for (const region of this.regions) region.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** As `console.log` shows it. */
  [inspect.custom](): string {
    return `Group of ${this.regions.length} regions`;
  }
}

/** Names of one model, of one version or, without, each of its newest that is sealed. */
export interface NamedGroup {
  readonly model: string;
  readonly names: readonly string[];
  readonly version: string | undefined;
}

/** Maps the regions of all these names as they are in one turn. Throws as `attach` of one does. */
export async function openGroup(
  asker: Asker,
  named: NamedGroup,
  { timeoutMs, signal, ...access }: AccessOptions & WaitOptions & { readonly timeoutMs: number },
): Promise<Group> {
  const { api } = asker;
  const wanted = toAccess(access);
  const finding = { timeoutMs, isWriter: wanted === "write", signal };
  const find = () => findRegions((waitUntil) => api.openGroup(named, { signal, waitUntil }), finding);
  const mapped = await mapReported(asker, await find(), { ask: find, choose: () => wanted });
  return new Group(mapped.map(({ region, attachment }) => new Region(api, region, attachment, false)));
}

/** Seals all of them in one turn: those that are mapped here, by their view of it, and others by their id. */
export async function sealGroup(
  { api }: Asker,
  members: readonly (string | { readonly id: string })[],
  { checksum = false, stockWritable = false, ifMatch, signal }: SealGroupOptions,
): Promise<readonly ListedRegion[]> {
  const ids = members.map((member) => (typeof member === "string" ? member : member.id));
  const twice = ids.find((id, index) => ids.indexOf(id) !== index);
  if (twice !== undefined) {
    throw new TensordError("validation-failed", `Cannot seal the group: ${twice} is there twice, want each once`);
  }
  if (ifMatch !== undefined && ifMatch.length !== ids.length) {
    const detail = `ifMatch has ${ifMatch.length} revisions, want one for each of ${ids.length} regions`;
    throw new TensordError("validation-failed", `Cannot seal the group: ${detail}`);
  }
  const regions = ids.map((region, index) => {
    const revision = ifMatch?.[index];
    return revision === undefined ? { region } : { region, revision };
  });
  const views = members.filter((member) => member instanceof Region).map(viewOf);
  const seal = () => api.sealGroup({ regions, checksum, stockWritable }, signal);
  const sealed = await sealViews(views, seal, signal);
  return members.map((member, index) => {
    const facts = sealed[index] as ListedRegion;
    if (!(member instanceof Region)) return facts;
    const view = viewOf(member);
    // The answer has no tensors, which a seal does not change.
    view.descriptor = { ...facts, tensors: view.descriptor.tensors };
    return view.descriptor;
  });
}
