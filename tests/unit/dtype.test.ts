import { describe, expect, test } from "bun:test";
import { dtypeBits, dtypes, isDtype } from "../../src/memory/layout/dtype.ts";

describe("dtypes", () => {
  test("are those of safetensors 0.8.0, in bits", () => {
    // The names and order in its `Dtype` enum, the widths of its `bitsize`; each was also tried against its reader.
    const stock =
      "BOOL 8 F4 4 F6_E2M3 6 F6_E3M2 6 U8 8 I8 8 F8_E5M2 8 F8_E4M3 8 F8_E8M0 8 F8_E4M3FNUZ 8 F8_E5M2FNUZ 8 " +
      "I16 16 U16 16 F16 16 BF16 16 I32 32 U32 32 F32 32 C64 64 F64 64 I64 64 U64 64";
    expect(Object.entries(dtypeBits).flat().join(" ")).toBe(stock);
    expect(dtypes.join(" ")).toBe(stock.replace(/ \d+\b/g, ""));
  });

  test("isDtype knows the table's words and no other", () => {
    expect(dtypes.every(isDtype)).toBe(true);
    for (const word of ["", "f32", "F32 ", "toString", "__proto__", "constructor"]) expect(isDtype(word)).toBe(false);
  });
});
