/**
 * Writes the hostile safetensors headers beside it and the README that says what each one tries. Run it with
 * `bun tests/hostile/generate-headers.ts` after a change; the files are committed, so that other clients can use them.
 */

import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** File name, what it tries, words that its refusal must contain, and the bytes of the whole file. */
type Row = readonly [name: string, tries: string, words: string, bytes: Uint8Array];

const encode = (text: string) => new TextEncoder().encode(text);

/** A file of a header's text and `dataBytes` zeros, with the right length unless told otherwise. */
function file(header: string | Uint8Array, dataBytes = 0, length?: bigint): Uint8Array {
  const text = typeof header === "string" ? encode(header) : header;
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

/** One member of the header; the defaults are a good one of 4 bytes. */
function member(name: string, shape = "[4]", offsets = "[0,4]", dtype = '"U8"'): string {
  return `${JSON.stringify(name)}:{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}`;
}

const good = member("w");
const named = (json: string) => good.replace('"w"', json);

const rows: readonly Row[] = [
  ["empty", "An empty file.", "there are 0 bytes", new Uint8Array(0)],
  ["seven-bytes", "A file too short for the length.", "there are 7 bytes", new Uint8Array(7)],
  ["length-zero", "No header at all.", "its length is 0", file("", 4)],
  ["length-one", "A header shorter than `{}`.", "its length is 1", file("{", 4)],
  ["length-past-end", "A length that passes the end by one byte.", "its length is 54", file(`{${good}}`, 0, 54n)],
  [
    "length-negative",
    "A length that a signed reader takes for -8, so that the header begins at byte 0.",
    "its length is 18446744073709551608",
    file(`{${good}}`, 4, 2n ** 64n - 8n),
  ],
  [
    "length-wraps",
    "A length that wraps to 7 when 8 is added in 64 bits.",
    "its length is 18446744073709551615",
    file(`{${good}}`, 4, 2n ** 64n - 1n),
  ],
  [
    "length-past-float",
    "A length that a double cannot tell from 2 ** 53.",
    "its length is 9007199254740993",
    file(`{${good}}`, 4, 2n ** 53n + 1n),
  ],
  ["length-into-json", "A length that ends inside the JSON.", "a string is broken off", file(`{${good}}`, 4, 40n)],
  ["not-an-object", "An array for a header.", "does not begin with {", file(`[${good.slice(4)}]`, 4)],
  [
    "leading-space",
    "A space before the `{`, which the format forbids.",
    "does not begin with {",
    file(` {${good}}`, 4),
  ],
  [
    "byte-order-mark",
    "A byte order mark that a lenient decoder drops.",
    "does not begin with {",
    file(`\ufeff{${good}}`, 4),
  ],
  [
    "not-utf8",
    "A name that is no UTF-8.",
    "not UTF-8",
    file(new Uint8Array([...encode("{"), 0x22, 0xff, 0x22, ...encode(named("")), 0x7d]), 4),
  ],
  [
    "utf8-surrogate",
    "Half a surrogate pair, encoded as if it were a character (CESU-8).",
    "not UTF-8",
    file(new Uint8Array([...encode("{"), 0x22, 0xed, 0xa0, 0x80, 0x22, ...encode(named("")), 0x7d]), 4),
  ],
  ["half-surrogate", "The same by an escape.", "half a surrogate pair", file(`{${named('"\\ud800"')}}`, 4)],
  ["name-nul", "A name that ends early in C.", "it has a NUL", file(`{${named('"w\\u0000x"')}}`, 4)],
  ["name-empty", "A name that no query can ask for.", "it is empty", file(`{${named('""')}}`, 4)],
  ["name-too-long", "A name of 513 bytes.", "it is too long", file(`{${member("w".repeat(513))}}`, 4)],
  [
    "name-too-many-bytes",
    "A name of 171 characters and 513 bytes.",
    "it is too long",
    file(`{${member("€".repeat(171))}}`, 4),
  ],
  [
    "duplicate-name",
    "Two tensors of one name; `JSON.parse` keeps the second and sees no hole.",
    "occurs again",
    file(`{${member("w", "[0]", "[0,0]")},${good}}`, 4),
  ],
  [
    "duplicate-name-escaped",
    "The same, with one of the names spelled by an escape.",
    "occurs again",
    file(`{${member("w", "[0]", "[0,0]")},${named('"\\u0077"')}}`, 4),
  ],
  [
    "duplicate-field",
    "Two shapes; which one counts?",
    "occurs again",
    file(`{${good.replace('"shape"', '"shape":[2],"shape"')}}`, 4),
  ],
  [
    "duplicate-metadata",
    "Two `__metadata__`.",
    "occurs again",
    file(`{"__metadata__":{"a":"b"},"__metadata__":{},${good}}`, 4),
  ],
  [
    "duplicate-metadata-key",
    "One key of `__metadata__` twice.",
    "occurs again",
    file(`{"__metadata__":{"a":"b","a":"c"},${good}}`, 4),
  ],
  [
    "unknown-field",
    "A field that the format does not have.",
    'the field "strides"',
    file(`{${good.replace('"shape"', '"strides":[1],"shape"')}}`, 4),
  ],
  [
    "prototype-field",
    "A field `__proto__` with what is missing.",
    'the field "__proto__"',
    file('{"w":{"__proto__":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}}', 4),
  ],
  ["no-dtype", "A tensor without a dtype.", "is incomplete", file('{"w":{"shape":[4],"data_offsets":[0,4]}}', 4)],
  ["no-shape", "A tensor without a shape.", "is incomplete", file('{"w":{"dtype":"U8","data_offsets":[0,4]}}', 4)],
  ["no-offsets", "A tensor without a place.", "is incomplete", file('{"w":{"dtype":"U8","shape":[4]}}', 4)],
  ["one-offset", "A place without an end.", "is incomplete", file(`{${member("w", "[4]", "[0]")}}`, 4)],
  [
    "three-offsets",
    "A place with two ends.",
    "one number more than allowed",
    file(`{${member("w", "[4]", "[0,4,8]")}}`, 4),
  ],
  ["tensor-null", "null for a tensor.", "not what it should be, want {", file(`{${good},"x":null}`, 4)],
  [
    "dtype-unknown",
    "A dtype of the wrong case.",
    'has dtype "u8"',
    file(`{${member("w", "[4]", "[0,4]", '"u8"')}}`, 4),
  ],
  [
    "dtype-inherited",
    "A dtype that every JavaScript object has.",
    'has dtype "toString"',
    file(`{${member("w", "[4]", "[0,4]", '"toString"')}}`, 4),
  ],
  [
    "dtype-number",
    "A number for a dtype.",
    'not what it should be, want "',
    file(`{${member("w", "[4]", "[0,4]", "8")}}`, 4),
  ],
  ["overlap", "Two tensors on the same bytes.", "begins at 0, want 4", file(`{${good},${member("x")}}`, 4)],
  [
    "overlap-by-one",
    "Two tensors that share a byte.",
    "begins at 3, want 4",
    file(`{${good},${member("x", "[4]", "[3,7]")}}`, 7),
  ],
  [
    "hole-first",
    "Bytes before the first tensor that nobody describes.",
    "begins at 4, want 0",
    file(`{${member("w", "[4]", "[4,8]")}}`, 8),
  ],
  [
    "hole-between",
    "Bytes between two tensors that nobody describes.",
    "begins at 5, want 4",
    file(`{${good},${member("x", "[4]", "[5,9]")}}`, 9),
  ],
  [
    "hole-empty",
    "A tensor of no bytes in the middle of another one.",
    "begins at 2, want 4",
    file(`{${good},${member("x", "[0]", "[2,2]")}}`, 4),
  ],
  ["trailing-byte", "One byte after the last tensor.", "the data ends at byte 67, want 68", file(`{${good}}  `, 5)],
  [
    "data-past-end",
    "A tensor that ends one byte past the file.",
    "the data ends at byte 67, want 66",
    file(`{${good}}  `, 3),
  ],
  [
    "data-far-past-end",
    "A tensor of 2 ** 50 bytes in a file of a few.",
    "the data ends at byte",
    file(`{${member("w", "[1125899906842624]", "[0,1125899906842624]")}}`, 4),
  ],
  ["offsets-reversed", "An end before its begin.", "begins at 4, want 0", file(`{${member("w", "[4]", "[4,0]")}}`, 4)],
  [
    "offsets-cancel",
    "A second tensor of negative size, so that the sum fits.",
    "occupies -4 bytes",
    file(`{${good},${member("x", "[4]", "[4,0]")}}`, 4),
  ],
  [
    "offset-negative",
    "A begin before the data, in the header.",
    "no plain number",
    file(`{${member("w", "[8]", "[-4,4]")}}`, 4),
  ],
  [
    "offset-minus-zero",
    "-0, which equals 0 and prints as another number.",
    "no plain number",
    file(`{${member("w", "[4]", "[-0,4]")}}`, 4),
  ],
  [
    "offset-fraction",
    "4.0, which JavaScript takes for 4 and stock readers refuse.",
    "no plain number",
    file(`{${member("w", "[4]", "[0,4.0]")}}`, 4),
  ],
  ["offset-exponent", "4e0, the same.", "no plain number", file(`{${member("w", "[4]", "[0,4e0]")}}`, 4)],
  ["offset-leading-zero", "04, octal for some.", "no plain number", file(`{${member("w", "[4]", "[0,04]")}}`, 4)],
  [
    "offset-rounds",
    "2 ** 53 + 1, which a double rounds.",
    "no plain number",
    file(`{${member("w", "[9007199254740993]", "[0,9007199254740993]")}}`, 4),
  ],
  [
    "offset-wraps",
    "2 ** 64 + 4, which is 4 in 64 bits.",
    "no plain number",
    file(`{${member("w", "[4]", "[0,18446744073709551620]")}}`, 4),
  ],
  ["offset-string", "A number in quotes.", "no plain number", file(`{${member("w", "[4]", '[0,"4"]')}}`, 4)],
  ["offset-null", "null for a number.", "no plain number", file(`{${member("w", "[4]", "[0,null]")}}`, 4)],
  [
    "shape-wraps",
    "A product of 2 ** 64, which is 0 in 64 bits.",
    "overflows",
    file(`{${member("w", "[4294967296,4294967296]", "[0,0]")}}`),
  ],
  [
    "shape-bits-wrap",
    "A product that wraps only when it is counted in bits.",
    "overflows",
    file(`{${member("w", "[2305843009213,1000000]", "[0,0]")}}`),
  ],
  [
    "shape-hides-overflow",
    "A product that wraps before the last dimension makes it 0.",
    "overflows",
    file(`{${member("w", "[1099511627776,1099511627776,0]", "[0,0]")}}`),
  ],
  [
    "shape-negative",
    "Two negative dimensions whose product is right.",
    "no plain number",
    file(`{${member("w", "[-2,-2]", "[0,4]")}}`, 4),
  ],
  [
    "shape-too-deep",
    "65 dimensions.",
    "one number more than allowed",
    file(`{${member("w", `[${Array(65).fill(1).join(",")}]`, "[0,1]")}}`, 1),
  ],
  ["shape-nested", "An array in the shape.", "no plain number", file(`{${member("w", "[[4]]")}}`, 4)],
  ["shape-number", "A number for a shape.", "not what it should be, want [", file(`{${member("w", "4")}}`, 4)],
  [
    "size-too-small",
    "A shape of 8 bytes in a place of 4.",
    "occupies 4 bytes, want 8",
    file(`{${member("w", "[2]", "[0,4]", '"F32"')}}`, 4),
  ],
  [
    "size-too-large",
    "A shape of 2 bytes in a place of 4.",
    "occupies 4 bytes, want 2",
    file(`{${member("w", "[2]")}}`, 4),
  ],
  [
    "scalar-of-nothing",
    "A scalar without a byte.",
    "occupies 0 bytes, want 4",
    file(`{${member("w", "[]", "[0,0]", '"F32"')}}`),
  ],
  ["half-a-byte", "Three elements of 4 bits.", "has 12 bits", file(`{${member("w", "[3]", "[0,2]", '"F4"')}}`, 2)],
  [
    "three-quarters-of-a-byte",
    "Two elements of 6 bits.",
    "has 12 bits",
    file(`{${member("w", "[2]", "[0,2]", '"F6_E2M3"')}}`, 2),
  ],
  [
    "metadata-number",
    "A number in `__metadata__`.",
    'not what it should be, want "',
    file(`{"__metadata__":{"a":1},${good}}`, 4),
  ],
  [
    "metadata-null",
    "null for `__metadata__`.",
    "not what it should be, want {",
    file(`{"__metadata__":null,${good}}`, 4),
  ],
  [
    "metadata-half-surrogate",
    "Half a surrogate pair in `__metadata__`.",
    "half a surrogate pair",
    file(`{"__metadata__":{"a":"\\udc00"},${good}}`, 4),
  ],
  [
    "metadata-tensor",
    "A tensor of the name `__metadata__`.",
    'not what it should be, want "',
    file(`{${member("__metadata__")}}`, 4),
  ],
  ["no-tensors", "A header without tensors.", "it has 0 tensors", file("{}")],
  ["metadata-only", "A header with nothing but metadata.", "it has 0 tensors", file('{"__metadata__":{"a":"b"}}')],
  ["second-object", "A second header after the first.", "there is more text", file(`{${good}}{${good}}`, 4)],
  ["padded-with-nul", "NULs for spaces at the end.", "there is more text", file(`{${good}}\0\0`, 4)],
  ["not-closed", "A header that is broken off.", "want }", file(`{${good}`, 4)],
  ["string-not-closed", "A name that never ends.", "a string is broken off", file('{"w    ', 4)],
  ["escape-not-closed", "A name that ends in a backslash.", "a string is broken off", file('{"w\\', 4)],
  ["escape-unknown", "An escape that JSON does not have.", "a broken escape", file(`{${named('"\\x77"')}}`, 4)],
  ["escape-short", "An escape of three digits.", "a broken escape", file(`{${named('"\\u077"')}}`, 4)],
  ["raw-newline", "A line break in a name.", "a string is broken off", file(`{${named('"w\nx"')}}`, 4)],
  ["single-quotes", "JavaScript for JSON.", 'not what it should be, want "', file(`{${named("'w'")}}`, 4)],
  ["trailing-comma", "JavaScript for JSON.", 'not what it should be, want "', file(`{${good},}`, 4)],
  ["comment", "JavaScript for JSON.", 'not what it should be, want "', file(`{/**/${good}}`, 4)],
  [
    "nested-deep",
    "5,000 opening brackets for a reader that recurses.",
    "no plain number",
    file(`{"w":{"shape":${"[".repeat(5_000)}`, 4),
  ],
  [
    "nested-deep-objects",
    "2,000 opening braces for a reader that recurses.",
    'the field "a"',
    file(`{"w":${'{"a":'.repeat(2_000)}`, 4),
  ],
];

const here = import.meta.dirname;
for (const name of readdirSync(join(here, "headers"))) rmSync(join(here, "headers", name));
for (const [name, , , bytes] of rows) writeFileSync(join(here, "headers", `${name}.bin`), bytes);
const lines = rows.map(([name, tries, words]) => `| \`${name}.bin\` | ${tries} | \`${words}\` |`);
const readme = `# Hostile files

Each file in \`headers/\` is a whole file that is no safetensors file, or one that breaks a limit of ours. \`parseHeader\` refuses all
with \`validation-failed\`, and for the reason that the file was made for: its sentence contains the words on the right
(\`tests/unit/hostile-headers.test.ts\`). Written by \`generate-headers.ts\`, this section included.

| file | what it tries | words of the refusal |
|---|---|---|
${lines.join("\n")}
`;
const [, bodies = ""] = readFileSync(join(here, "README.md"), "utf8").split(/(?=^# Hostile bodies$)/m);
writeFileSync(join(here, "README.md"), `${readme}\n${bodies}`);
