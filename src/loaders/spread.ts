/** The order in which parts are compared that most likely begins with one that differs. Pure. */

/**
 * The last two, of which the very last may be short, the first, the one in the middle, those between, and so on: each once. Of two builds of a
 * model often the ends differ alone.
 */
export function* spread<Item>(items: readonly Item[]): Generator<Item, void, undefined> {
  const inner = Math.max(0, items.length - 2);
  yield* items.slice(inner).reverse();
  const widest = 2 ** Math.ceil(Math.log2(Math.max(1, inner)));
  for (let stride = widest; stride >= 1; stride /= 2) {
    for (let at = 0; at < inner; at += stride) {
      const isDone = stride < widest && at % (2 * stride) === 0;
      if (!isDone) yield items[at] as Item;
    }
  }
}
