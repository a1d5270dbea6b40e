/** The order in which parts are compared that most likely begins with one that differs. Pure. */

/** The last, the first, the one in the middle, those between, and so on: each once. Of two builds of a model often the ends differ alone. */
export function* spread<Item>(items: readonly Item[]): Generator<Item, void, undefined> {
  const last = items.length - 1;
  if (last >= 0) yield items[last] as Item;
  const widest = 2 ** Math.ceil(Math.log2(Math.max(1, last)));
  for (let stride = widest; stride >= 1; stride /= 2) {
    for (let at = 0; at < last; at += stride) {
      const isDone = stride < widest && at % (2 * stride) === 0;
      if (!isDone) yield items[at] as Item;
    }
  }
}
