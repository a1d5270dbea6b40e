/**
 * The latest texts under keys, bounded, as bytes outside of the collected heap: as with events, ten thousand small objects among what
 * comes and goes would keep most of a busy hour's memory.
 */

import { KeptTexts } from "../events/kept-texts.ts";

/** Between key and text. Neither ids nor names have it. */
const separator = "\n";
/** Keys of one region: its token, which never comes again, and its name with and without a version. */
const keysOfOne = 3;

export class KeptEndings {
  readonly #mostKeys: number;
  readonly #texts: KeptTexts;
  /** By slot: whether it has a text, the hash of its key, and the slot before it in its chain and 1. */
  readonly #isUsed: Uint8Array;
  readonly #hashes: Uint32Array;
  readonly #before: Uint32Array;
  /** By the low bits of a hash: the newest slot and 1. */
  readonly #newest: Uint32Array;
  #first = 0;
  #next = 0;
  #size = 0;

  /** @param mostKeys how many are kept. */
  constructor(mostKeys: number) {
    this.#mostKeys = mostKeys;
    // A key that comes anew leaves a slot empty. One of `keysOfOne` does not, so that these are enough for as many keys.
    const slots = keysOfOne * mostKeys;
    this.#texts = new KeptTexts(slots);
    this.#isUsed = new Uint8Array(slots);
    this.#hashes = new Uint32Array(slots);
    this.#before = new Uint32Array(slots);
    this.#newest = new Uint32Array(2 ** Math.ceil(Math.log2(mostKeys)));
  }

  get size(): number {
    return this.#size;
  }

  /** Keeps `text` under `key`, which is the newest from here on; the oldest key goes if there are too many. */
  set(key: string, text: string): void {
    const hash = toHash(key);
    const known = this.#find(key, hash);
    if (known !== undefined) this.#remove(known);
    const slots = this.#isUsed.length;
    while (this.#size >= this.#mostKeys || this.#next - this.#first >= slots) this.#dropOldest();
    const slot = this.#next % slots;
    this.#next += 1;
    this.#texts.put(slot, `${key}${separator}${text}`);
    this.#isUsed[slot] = 1;
    this.#size += 1;
    this.#hashes[slot] = hash;
    const chain = hash % this.#newest.length;
    this.#before[slot] = this.#newest[chain] ?? 0;
    this.#newest[chain] = slot + 1;
  }

  get(key: string): string | undefined {
    const slot = this.#find(key, toHash(key));
    return slot === undefined ? undefined : this.#texts.at(slot).slice(key.length + separator.length);
  }

  #find(key: string, hash: number): number | undefined {
    for (let link = this.#newest[hash % this.#newest.length] ?? 0; link !== 0; link = this.#before[link - 1] ?? 0) {
      if (this.#hashes[link - 1] === hash && this.#texts.at(link - 1).startsWith(`${key}${separator}`)) return link - 1;
    }
    return undefined;
  }

  #dropOldest(): void {
    const slot = this.#first % this.#isUsed.length;
    if (this.#isUsed[slot] === 1) this.#remove(slot);
    this.#first += 1;
  }

  #remove(slot: number): void {
    const chain = (this.#hashes[slot] ?? 0) % this.#newest.length;
    let after: number | undefined;
    for (let link = this.#newest[chain] ?? 0; link !== slot + 1; link = this.#before[link - 1] ?? 0) after = link - 1;
    const before = this.#before[slot] ?? 0;
    if (after === undefined) this.#newest[chain] = before;
    else this.#before[after] = before;
    this.#isUsed[slot] = 0;
    this.#texts.clear(slot);
    this.#size -= 1;
  }
}

/** FNV-1a, from a start that nobody knows, so that nobody can choose names that all have one hash. */
const hashStart = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;

function toHash(key: string): number {
  let hash = hashStart;
  for (let index = 0; index < key.length; index++) hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193) >>> 0;
  return hash;
}
