/**
 * Says how wide each integer of the document is. Without a format most generators take 32 bits, and some cut what does not
 * fit without a word.
 */

const int32 = { minimum: -(2 ** 31), maximum: 2 ** 31 - 1 };

interface Bounds {
  readonly minimum?: number;
  readonly maximum?: number;
}

/** A copy of `value` in which each integer has a format: `int32` only where its bounds say that it is small. */
export function withIntegerFormats<Value>(value: Value): Value {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(withIntegerFormats) as Value;
  const copy = Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withIntegerFormats(item)]));
  return (isInteger(value) ? { ...copy, format: isSmall(value) ? "int32" : "int64" } : copy) as Value;
}

function isInteger(schema: object): boolean {
  return "type" in schema && [schema.type].flat().includes("integer");
}

function isSmall({ minimum = -Infinity, maximum = Infinity }: Bounds): boolean {
  return minimum >= int32.minimum && maximum <= int32.maximum;
}
