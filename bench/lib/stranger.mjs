/**
 * Makes and unlinks empty files at a steady rate until it is killed: `stranger.mjs <directory> <prefix> <files a second>`.
 * Each file is called by the prefix and 26 letters that no file before it had; says each second how many it has made.
 */

import { closeSync, openSync, unlinkSync } from "node:fs";

const [directory, prefix, perSecond] = process.argv.slice(2);
const letters = "abcdefghijklmnopqrstuvwxyz";
const batch = 100;

function name(number) {
  let text = "";
  for (let rest = number; text.length < 26; rest = Math.floor(rest / 26)) text += letters[rest % 26];
  return text;
}

const begin = performance.now();
let told = 0;
for (let made = 0; ; ) {
  for (let i = 0; i < batch; i++, made++) {
    const path = `${directory}/${prefix}${name(made)}`;
    closeSync(openSync(path, "wx"));
    unlinkSync(path);
  }
  const earlyMs = (made / Number(perSecond)) * 1000 - (performance.now() - begin);
  if (earlyMs > 1) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, earlyMs);
  const second = Math.floor((performance.now() - begin) / 1000);
  if (second > told) process.stdout.write(`${made}\n`);
  told = second;
}
