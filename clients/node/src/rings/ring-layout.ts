/** Where a ring has its slots and words, and what a word says (docs/protocol.md, "Ring"). Pure arithmetic. */

/** A generation's low 12 bits are the slot's index. */
export const maxSlots = 4096;
const firstWordAt = 4096;
const wordBytes = 8;

/** Where the word of a slot begins, in bytes from the start of the file. */
export function wordOffset(index: number): number {
  return firstWordAt + wordBytes * index;
}

/** Where a slot begins, in bytes from the start of the file. */
export function slotOffset(index: number, slots: number, slotBytes: number): number {
  return wordOffset(slots) + slotBytes * index;
}

/** The word of a slot that was raised `count` times. Below 2^53 for every count that a process lives to see. */
export function toGeneration(count: number, index: number): number {
  return maxSlots * count + index;
}

/** The slot that a generation belongs to. */
export function slotOf(generation: number): number {
  return generation % maxSlots;
}
