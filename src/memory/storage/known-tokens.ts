/**
 * Which tokens may be of regions, as a filter that two threads see: who reads what strangers do passes on no other. It may take a
 * token for one of ours that is none, and never the other way round.
 */

/** Of 10,000 regions a stranger's token passes once in 14. */
const places = 2 ** 17;

export class KnownTokens {
  /** How many tokens fell on each place. */
  readonly #counts: Int32Array;

  constructor(memory = new SharedArrayBuffer(4 * places)) {
    this.#counts = new Int32Array(memory);
  }

  get memory(): SharedArrayBuffer {
    return this.#counts.buffer as SharedArrayBuffer;
  }

  add(token: string): void {
    Atomics.add(this.#counts, placeOf(token), 1);
  }

  /** Of one that was added. */
  remove(token: string): void {
    Atomics.sub(this.#counts, placeOf(token), 1);
  }

  mayHave(token: string): boolean {
    return Atomics.load(this.#counts, placeOf(token)) > 0;
  }
}

/** FNV-1a, 32 bit, folded. */
function placeOf(token: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < token.length; at++) hash = Math.imul(hash ^ token.charCodeAt(at), 0x01000193);
  return ((hash >>> 17) ^ hash) & (places - 1);
}
