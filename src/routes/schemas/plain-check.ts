/**
 * Whether a value meets a schema and stays as it is by it, found out without a copy: zod makes a hundred objects of the smallest
 * creation, which every allocation would pay for. It says yes, or that it does not know; then zod is asked, whose refusals are the answer.
 */

import type { z } from "@hono/zod-openapi";

/** True: the schema accepts the value, and makes nothing else of it. False: who knows. */
export type PlainCheck = (value: unknown) => boolean;

type Def = z.core.$ZodTypes["_zod"]["def"];
type ChecksDef = z.core.$ZodChecks["_zod"]["def"];

/** What was checked by hand in a schema, and could not be read from it. */
const byHand = new WeakMap<object, PlainCheck>();

/** Says for `schema` what its `custom` and `superRefine` say of a value, all of it. @returns the schema */
export function checkedBy<Schema extends z.ZodType>(schema: Schema, check: PlainCheck): Schema {
  byHand.set(schema._zod.def, check);
  return schema;
}

/** The check of `schema`. What it has that is unknown here, zod is asked about each time. */
export function toPlainCheck(schema: z.core.$ZodType): PlainCheck {
  const { def } = schema._zod as { readonly def: Def };
  return byHand.get(def) ?? readDef(def) ?? never;
}

const never: PlainCheck = () => false;

function readDef(def: Def): PlainCheck | undefined {
  switch (def.type) {
    case "boolean":
      return and(def.coerce === true ? never : (value) => typeof value === "boolean", def);
    case "string":
      return and(def.coerce === true ? never : (value) => typeof value === "string", def);
    case "number":
      return and(def.coerce === true ? never : Number.isFinite, def);
    case "enum":
      return and(toEnumCheck(Object.values(def.entries)), def);
    case "optional": {
      const inner = toPlainCheck(def.innerType);
      return and((value) => value === undefined || inner(value), def);
    }
    case "nullable": {
      const inner = toPlainCheck(def.innerType);
      return and((value) => value === null || inner(value), def);
    }
    case "array":
      return and(toArrayCheck(toPlainCheck(def.element)), def);
    case "object":
      return and(toObjectCheck(def), def);
    default:
      return undefined;
  }
}

/** `check`, and what `def` asks beside its type. */
function and(check: PlainCheck, def: Def): PlainCheck {
  const own = "check" in def ? [readCheck(def as unknown as ChecksDef)] : [];
  const checks = [check, ...own, ...(def.checks ?? []).map((each) => readCheck(each._zod.def as ChecksDef))];
  return checks.reduce((all, next) => (value) => all(value) && next(value));
}

/** Each is asked of a value whose type is right. */
function readCheck(def: ChecksDef): PlainCheck {
  switch (def.check) {
    case "number_format":
      return def.format === "safeint" ? Number.isSafeInteger : never;
    case "greater_than": {
      const least = Number(def.value);
      return def.inclusive ? (value) => (value as number) >= least : (value) => (value as number) > least;
    }
    case "less_than": {
      const most = Number(def.value);
      return def.inclusive ? (value) => (value as number) <= most : (value) => (value as number) < most;
    }
    case "min_length":
      return (value) => (value as string).length >= def.minimum;
    case "max_length":
      return (value) => (value as string).length <= def.maximum;
    case "string_format": {
      const { format, pattern } = def;
      // One that remembers where it was would have to be set back.
      if (format !== "regex" || pattern === undefined || pattern.global || pattern.sticky) return never;
      return (value) => pattern.test(value as string);
    }
    default:
      return never;
  }
}

function toEnumCheck(words: readonly unknown[]): PlainCheck {
  const known = new Set(words);
  return (value) => known.has(value);
}

function toArrayCheck(element: PlainCheck): PlainCheck {
  return (value) => {
    if (!Array.isArray(value)) return false;
    for (let at = 0; at < value.length; at++) if (!element(value[at])) return false;
    return true;
  };
}

/** Of a strict object. Any other makes a copy without what it does not know. */
function toObjectCheck({ shape, catchall }: z.core.$ZodObjectDef): PlainCheck {
  if (catchall?._zod.def.type !== "never") return never;
  const members = new Map(Object.entries(shape).map(([key, schema]) => [key, toPlainCheck(schema)]));
  const needed = new Set(Object.keys(shape).filter((key) => shape[key]?._zod.def.type !== "optional"));
  return (value) => {
    if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) return false;
    let found = 0;
    for (const key in value) {
      const check = members.get(key);
      if (check === undefined || !check((value as Record<string, unknown>)[key])) return false;
      if (needed.has(key)) found += 1;
    }
    return found === needed.size;
  };
}
