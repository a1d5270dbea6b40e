/**
 * Names: which ones are allowed, how they stand in a sentence, how random ones are made, and how a region's token appears in its id, its file's name
 * and its POSIX name. Pure but for the random source. Paths are `instance-directory.ts`'s.
 */

/** Models and regions: what a URL segment and a file name both carry without escapes. `org/name` is written `org--name`. */
export const namePattern = /^(?!\.)[A-Za-z0-9._-]{1,128}$/;
/** Versions of a name; empty unless somebody says so. */
export const versionPattern = /^[A-Za-z0-9._-]{0,128}$/;
export const instancePattern = /^[a-z0-9-]{1,32}$/;
/** 26 characters of RFC 4648's base32 alphabet in lower case: 130 random bits. */
export const tokenPattern = /^[a-z2-7]{26}$/;

const alphabet = Buffer.from("abcdefghijklmnopqrstuvwxyz234567");
/** Where a token's characters are made: text that grows by a character would be 26 strings. */
const tokenBytes = Buffer.alloc(26);

/** The pool of host memory. Others are called by their device. */
export const hostPool = "host";

export type RegionId = `reg_${string}`;
export type SessionId = `ses_${string}`;

/** A fresh token. Not a secret: permissions protect a region, its name only has to be unique. */
export function createToken(): string {
  crypto.getRandomValues(tokenBytes);
  for (let at = 0; at < tokenBytes.length; at++) tokenBytes[at] = alphabet[(tokenBytes[at] ?? 0) & 31] ?? 0;
  return tokenBytes.toString("latin1");
}

export function toRegionId(token: string): RegionId {
  return `reg_${token}`;
}

/** The token in a region id, or undefined if it is not one. */
export function parseRegionId(id: string): string | undefined {
  return parseId("reg_", id);
}

export function toSessionId(token: string): SessionId {
  return `ses_${token}`;
}

/** Text that people are shown, such as what a client is called: no control characters, and whole characters only. */
export function isPlainText(text: string): boolean {
  return !/[\p{Cc}\p{Cs}]/u.test(text);
}

/** What a terminal obeys or what turns a line round: controls, halves of surrogate pairs, marks of direction, separators. */
const unprintable = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;

/** Text as a terminal may have it: what it would obey as JSON's escapes, so that JSON stays JSON. Lines stay lines. */
export function toPrintable(text: string): string {
  return text.replaceAll(unprintable, (character) => (character === "\n" ? character : toEscape(character)));
}

/** As `toPrintable`, on one line: for a cell, or a value in a sentence. */
export function toPrintableLine(text: string): string {
  return text.replaceAll(unprintable, toEscape);
}

function toEscape(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** Printable ASCII in which JSON escapes nothing. */
const unescaped = /^[ !#-[\]-~]*$/;

/** As `JSON.stringify`, of a text that nearly always needs no escapes: then for half of what that takes. */
export function toJsonText(text: string): string {
  return unescaped.test(text) ? `"${text}"` : JSON.stringify(text);
}

/** Text from outside as a sentence shows it: an allowed name whole, anything else cut. */
export function quote(text: string): string {
  return toPrintableLine(JSON.stringify(text.length <= 64 || namePattern.test(text) ? text : `${text.slice(0, 64)}…`));
}

/** The token in an id that begins with `prefix`, or undefined if it is not one. */
export function parseId(prefix: "reg_" | "ses_" | "lea_" | "clm_" | "op_" | "vmm_", id: string): string | undefined {
  const token = id.startsWith(prefix) ? id.slice(prefix.length) : "";
  return tokenPattern.test(token) ? token : undefined;
}

export function toFileName(instance: string, token: string): string {
  return `tensord.${instance}.${token}`;
}

/** The token in a public file name of `instance`, or undefined if it is none. It proves nothing about ownership. */
export function parseFileName(instance: string, fileName: string): string | undefined {
  const prefix = `tensord.${instance}.`;
  const token = fileName.startsWith(prefix) ? fileName.slice(prefix.length) : "";
  return tokenPattern.test(token) ? token : undefined;
}
