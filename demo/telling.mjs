/** How the demo speaks: numbered steps, aligned facts, and claims that are checked and counted. */

const isPlain = !process.stdout.isTTY || process.env.NO_COLOR !== undefined;
const paint = (code) => (text) => (isPlain ? text : `\x1b[${code}m${text}\x1b[0m`);
const bold = paint(1);
const dim = paint(2);
const red = paint(31);
const green = paint(32);

let steps = 0;
let held = 0;
const broken = [];

export function title(text) {
  console.log(`\n${bold(text)}`);
}

export function step(text) {
  steps += 1;
  console.log(`\n${bold(`${steps}. ${text}`)}`);
}

export function line(text) {
  console.log(`   ${text}`);
}

/** What happens beside the story, as it happens. */
export function aside(text) {
  console.log(dim(`   ~ ${text}`));
}

/** A claim of ours, and whether what was seen agrees. */
export function claim(text, isTrue) {
  if (isTrue) held += 1;
  else broken.push(text);
  console.log(`   ${isTrue ? green("✓") : red("✗ NOT TRUE:")} ${text}`);
}

/** Columns, the first aligned left and the others right. */
export function table(heads, rows) {
  const widths = heads.map((_, index) => Math.max(...[heads, ...rows].map((row) => row[index].length)));
  const toLine = (row) =>
    row.map((cell, index) => (index === 0 ? cell.padEnd(widths[index]) : cell.padStart(widths[index]))).join("   ");
  line(dim(toLine(heads)));
  for (const row of rows) line(toLine(row));
}

/** The last word. @returns the status to exit with. */
export function conclude(seconds) {
  const counts =
    broken.length === 0 ? `all ${held} claims held` : `${broken.length} of ${held + broken.length} claims failed`;
  title(`${broken.length === 0 ? green(counts) : red(counts)}${bold(`, in ${seconds}`)}`);
  for (const text of broken) console.log(`   ${red("✗")} ${text}`);
  return broken.length === 0 ? 0 : 1;
}

/** Megabytes as disks and wheels count them: 10^6 bytes. */
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

export const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
