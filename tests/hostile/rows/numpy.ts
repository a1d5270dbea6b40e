/** Hostile `.npy` and `.npz` files. */

import { npyFile, npyHeader, u32, zipFile } from "../../harness/model-files.ts";
import type { Row } from "./row.ts";

const good = npyFile(npyHeader("'<f4'", "(2, 2)"), 16);
const withHeader = (header: string, data = 16) => npyFile(`${header}\n`, data);
const withType = (descr: string, data = 16) => npyFile(npyHeader(descr, "(2, 2)"), data);
const withShape = (shape: string, data = 16) => npyFile(npyHeader("'<f4'", shape), data);
const fields = (shape: string) => `'descr': '<f4', 'fortran_order': False, 'shape': ${shape}`;

export const npyRows: readonly Row[] = [
  ["empty.npy", "No byte.", "its header is broken off", Buffer.alloc(0)],
  ["magic-wrong.npy", "Another magic.", 'want "\\u0093NUMPY"', Buffer.from(good).fill("X", 5, 6)],
  ["magic-only.npy", "Nothing after the magic.", "its header is broken off", good.subarray(0, 6)],
  ["version-0.npy", "A version that never was.", "its version is 0", npyFile(npyHeader("'<f4'", "(2, 2)"), 16, 0)],
  [
    "version-next.npy",
    "A version that nobody knows.",
    "its version is 4",
    npyFile(npyHeader("'<f4'", "(2, 2)"), 16, 4),
  ],
  [
    "header-past-end.npy",
    "A header that is longer than the file.",
    "its header is broken off",
    npyFile("{", 16, 1, 5000),
  ],
  ["header-4-gib.npy", "A header of 4 GiB.", "its header has 4294967295 bytes", npyFile("{", 16, 2, 0xffff_ffff)],
  [
    "header-too-long.npy",
    "A header that NumPy refuses as well.",
    "its header has 10001 bytes",
    npyFile(`{${" ".repeat(10_000)}`, 16, 2),
  ],
  ["header-empty.npy", "No header.", "there is no {", npyFile("", 16)],
  [
    "header-code.npy",
    "Python that is run by a reader that evaluates.",
    "there is no {",
    withHeader("__import__('os').system('true')"),
  ],
  [
    "header-code-in-value.npy",
    "The same, as a shape.",
    "there is no whole number",
    withHeader(`{${fields("__import__('os').getcwd()")}}`),
  ],
  ["header-sum.npy", "A sum for a dimension.", "there is no )", withHeader(`{${fields("(1+1, 2)")}}`)],
  ["header-list.npy", "A list for a dict.", "there is no {", withHeader("[1, 2]")],
  ["header-more.npy", "A second dict after the first.", "there is more text", withHeader(`{${fields("(2, 2)")}} {}`)],
  ["header-not-closed.npy", "A dict that is broken off.", "there is no }", withHeader(`{${fields("(2, 2)")}`)],
  ["header-text-not-closed.npy", "A text that never ends.", "no text in quotes", withHeader("{'descr: 1}")],
  [
    "key-twice.npy",
    "Two shapes; which one counts?",
    "occurs again",
    withHeader(`{${fields("(2, 2)")}, 'shape': (4,)}`),
  ],
  [
    "key-unknown.npy",
    "A key that the format does not have.",
    'the key "strides"',
    withHeader(`{${fields("(2, 2)")}, 'strides': (4,)}`),
  ],
  [
    "key-prototype.npy",
    "A key that every JavaScript object has.",
    'the key "__proto__"',
    withHeader(`{${fields("(2, 2)")}, '__proto__': (4,)}`),
  ],
  ["key-missing.npy", "No shape.", "its header is incomplete", withHeader("{'descr': '<f4', 'fortran_order': False}")],
  [
    "order-number.npy",
    "1 for True.",
    "its header is incomplete",
    withHeader("{'descr': '<f4', 'fortran_order': 1, 'shape': (2, 2)}"),
  ],
  ["objects.npy", "Python objects: a pickle.", "are a pickle", withType("'|O'")],
  [
    "objects-in-fields.npy",
    "Python objects in one field of many.",
    "are a pickle",
    withType("[('a', '<f4'), ('b', '|O')]"),
  ],
  ["fields.npy", "Records.", "its elements are of type", withType("[('a', '<i2'), ('b', '<i2')]")],
  ["texts.npy", "Texts.", 'of type "<U1"', withType("'<U1'")],
  ["dates.npy", "Dates.", 'of type "<M8[ns]"', withType("'<M8[ns]'", 32)],
  [
    "void.npy",
    "Elements that NumPy has no name for, as ml_dtypes writes bfloat16.",
    'of type "|V2"',
    withType("'|V2'", 8),
  ],
  ["big-endian.npy", "The numbers of another machine.", "big-endian", withType("'>f4'")],
  ["complex-double.npy", "A type that safetensors does not have.", 'of type "<c16"', withType("'<c16'", 64)],
  [
    "type-inherited.npy",
    "A type that every JavaScript object has.",
    'of type "<constructor"',
    withType("'<constructor'"),
  ],
  ["type-number.npy", "A number for a type.", 'of type "4"', withType("4")],
  ["shape-negative.npy", "A negative dimension.", "there is no whole number", withShape("(-2, -2)")],
  ["shape-fraction.npy", "2.0, which Python refuses as well.", "there is no whole number", withShape("(2.0, 2)")],
  [
    "shape-rounds.npy",
    "2 ** 53 + 1, which a double rounds.",
    "there is no whole number",
    withShape("(9007199254740993,)"),
  ],
  [
    "shape-wraps.npy",
    "A product of 2 ** 64, which is 0 in 64 bits.",
    "overflows",
    withShape("(4294967296, 4294967296)", 0),
  ],
  [
    "shape-hides-overflow.npy",
    "A product that wraps before the last dimension makes it 0.",
    "overflows",
    withShape("(4503599627370496, 4503599627370496, 0)", 0),
  ],
  ["shape-too-deep.npy", "65 dimensions.", "has 65 dimensions", withShape(`(${"1, ".repeat(65)})`, 4)],
  ["shape-nested.npy", "1,000 brackets for a reader that recurses.", "nests deeper", withShape("(".repeat(1000))],
  ["shape-number.npy", "A number for a shape.", "its header is incomplete", withShape("4")],
  ["shape-texts.npy", "Texts for dimensions.", "its header is incomplete", withShape("('2', '2')")],
  [
    "fortran.npy",
    "The first dimension innermost.",
    "is in Fortran's order",
    npyFile(npyHeader("'<f4'", "(2, 2)", true), 16),
  ],
  ["truncated.npy", "A last element that is not all there.", "by its header", withShape("(2, 2)", 15)],
  [
    "two-arrays.npy",
    "A second array after the first, which numpy.load reads as another call.",
    "by its header",
    Buffer.concat([good, good]),
  ],
];

const member = { name: "a.npy", bytes: good };
const zip = zipFile([member]);
const large = npyFile(npyHeader("'|u1'", "(83886080,)"), 80 << 20);
const twice = (text: string) =>
  zipFile([
    { ...member, name: text },
    { ...member, name: text },
  ]);
/** The end of the archive, changed at a byte of it. */
const withEnd = (at: number, value: Uint8Array) => {
  const bytes = Buffer.from(zip);
  bytes.set(value, bytes.length - 22 + at);
  return bytes;
};
const end64 = Buffer.concat([
  u32(0x0606_4b50),
  Buffer.alloc(20),
  Buffer.alloc(8),
  Buffer.alloc(24, 0xff),
  u32(0x0706_4b50),
  u32(0),
  Buffer.alloc(8),
  u32(1),
]);

export const npzRows: readonly Row[] = [
  ["empty.npz", "No byte.", "its directory at the end is missing", Buffer.alloc(0)],
  ["no-members.npz", "An archive of nothing.", "it is an archive of 0 members", zipFile([])],
  [
    "no-directory.npz",
    "An archive without its end, as a broken download is.",
    "its directory at the end is missing",
    zip.subarray(0, -1),
  ],
  [
    "truncated.npz",
    "An archive without its second half.",
    "its directory at the end is missing",
    zip.subarray(0, zip.length / 2),
  ],
  ["trailing.npz", "A byte after the end.", "its directory at the end is missing", Buffer.concat([zip, Buffer.of(0)])],
  [
    "leading.npz",
    "Bytes before the archive, as one that unpacks itself has them.",
    "its directory ends at byte",
    Buffer.concat([zip.subarray(0, 4), zip]),
  ],
  ["count-one-more.npz", "A member more than there is.", "its directory is broken", zipFile([member], 2)],
  [
    "count-one-less.npz",
    "A member that the count hides.",
    "its directory has",
    zipFile([member, { ...member, name: "b.npy" }], 1),
  ],
  ["directory-past-end.npz", "A directory after the end.", "its directory ends at byte", withEnd(16, u32(0xffff_fff0))],
  ["directory-large.npz", "A directory of 4 GiB.", "its directory ends at byte", withEnd(12, u32(0xffff_ffff))],
  [
    "directory-64-bits.npz",
    "Counts of 2 ** 64 - 1 in an end of 64 bits.",
    "18446744073709551615",
    Buffer.concat([end64, zip.subarray(-22)]),
  ],
  ["parts.npz", "The last of several parts.", "several parts", withEnd(4, Buffer.of(1, 0, 1, 0))],
  ["name-twice.npz", "Two members of one name.", "occurs twice", twice("a.npy")],
  ["name-empty.npz", "A name of nothing but its suffix.", "it is empty", zipFile([{ ...member, name: ".npy" }])],
  [
    "name-differs.npz",
    "A member that calls itself otherwise than the directory.",
    "calls itself",
    zipFile([{ ...member, nameInHeader: "b.npy" }]),
  ],
  [
    "overlap.npz",
    "Two members of the same bytes: a bomb without a deflated byte.",
    "overlaps",
    zipFile([member, { ...member, name: "b.npy", headerOffset: 0 }]),
  ],
  [
    "overlap-nested.npz",
    "A member that begins inside of the one before it.",
    "overlaps",
    zipFile([member, { ...member, name: "b.npy", headerOffset: 40 }]),
  ],
  [
    "member-past-directory.npz",
    "A member that goes on into the directory.",
    "want at most",
    zipFile([{ ...member, storedBytes: 400, byteSize: 400 }]),
  ],
  [
    "member-nowhere.npz",
    "A place where there is no member.",
    "there is no member",
    zipFile([member, { ...member, name: "b.npy", headerOffset: 180 }]),
  ],
  ["encrypted.npz", "A member with a password.", "is encrypted", zipFile([{ ...member, flags: 1 }])],
  ["method-unknown.npz", "A member packed by bzip2.", "is packed by method 12", zipFile([{ ...member, method: 12 }])],
  ["sizes-differ.npz", "A stored member of two sizes.", "is stored in", zipFile([{ ...member, byteSize: 16 }])],
  [
    "size-of-64-bits-missing.npz",
    "A size that says it stands in another field, which is not there.",
    "a member's size of 64 bits is missing",
    zipFile([{ ...member, storedBytes: 0xffff_ffff }]),
  ],
  ["checksum.npz", "A stored member of another checksum.", "has the checksum", zipFile([{ ...member, crc: 1 }])],
  [
    "checksum-deflated.npz",
    "A deflated member of another checksum.",
    "has the checksum",
    zipFile([{ ...member, isDeflated: true, crc: 1 }]),
  ],
  [
    "bomb.npz",
    "80 MiB of zeros, deflated.",
    "want at most",
    zipFile([{ name: "a.npy", bytes: large, isDeflated: true }]),
  ],
  [
    "bomb-hidden.npz",
    "The same, said to be small.",
    "want 83886208 by its header",
    zipFile([{ name: "a.npy", bytes: large, isDeflated: true, byteSize: 144 }]),
  ],
  [
    "inflates-longer.npz",
    "A member that inflates to more than its header says.",
    "goes on after byte",
    zipFile([{ ...member, bytes: Buffer.concat([good, good]), isDeflated: true, byteSize: good.length }]),
  ],
  [
    "inflates-shorter.npz",
    "A member that inflates to less than its header says.",
    "want",
    zipFile([{ ...member, bytes: good.subarray(0, -1), isDeflated: true, byteSize: good.length }]),
  ],
  [
    "deflate-broken.npz",
    "A member that is no deflate.",
    "damaged or broken off",
    zipFile([{ ...member, bytes: Buffer.alloc(144, 0xff), method: 8 }]),
  ],
  [
    "objects.npz",
    "Python objects in one member.",
    'in its member "b.npy"',
    zipFile([member, { name: "b.npy", bytes: withType("'|O'") }]),
  ],
  ["not-npy.npz", "A member that is no .npy file.", "zip archive with", zipFile([{ name: "a.txt", bytes: good }])],
  [
    "not-npy-inside.npz",
    "A member that only calls itself one.",
    'in its member "a.npy"',
    zipFile([{ name: "a.npy", bytes: Buffer.alloc(100, 65) }]),
  ],
];
