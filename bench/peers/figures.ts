/** Plots and tables of what the benchmark `peers` measured: pure functions from its JSON to SVG and Markdown. */

import { type Figure, type Measured, type Part, type PartName, partNames, type Work } from "./measured.ts";

const left = 190;
const width = 720;
const bar = 15;
const gap = 26;
const colours = { ours: "#1668a8", others: "#9aa7b1", reference: "#d5dade" } as const;

const titles: Readonly<Record<PartName, string>> = {
  "create-write": "Create and write, over one memcpy into warm pages",
  attach: "Attach, over open and mmap",
  "hand-off": "Hand off with an answer, over one mapping shared by hand",
  model: "Open a model in a second worker, over stock load_file",
};

export const isOurs = ({ system }: Figure): boolean => system.startsWith("tensord");

const bySpeed = (a: Figure, b: Figure): number => a.ratio - b.ratio;

/** One plot: a bar for each system, its length the logarithm of the ratio. Shorter is faster. */
export function toPlot({ name, works }: Part): string {
  const all = works.flatMap(({ figures }) => figures.flatMap(({ low, high }) => [low, high]));
  const [least, most] = [Math.min(...all, 1) / 1.3, Math.max(...all, 1) * 1.3];
  const x = (ratio: number) => left + ((width - left - 120) * Math.log(ratio / least)) / Math.log(most / least);
  const lines: string[] = [];
  let y = 34;
  for (const work of works) {
    lines.push(text(8, y + 12, work.what, true));
    y += 20;
    for (const figure of work.figures.toSorted(bySpeed)) {
      lines.push(...toBar(figure, work, x, y));
      y += bar + 3;
    }
    y += gap - bar;
  }
  const one = x(1).toFixed(1);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y}" width="${width}" height="${y}" font-family="sans-serif" font-size="12">`,
    `<title>${toMarkup(titles[name])}</title>`,
    `<rect width="${width}" height="${y}" fill="white"/>`,
    text(8, 18, `${titles[name]}: shorter is faster, logarithmic`, true),
    `<line x1="${one}" y1="28" x2="${one}" y2="${y - 6}" stroke="#999" stroke-dasharray="3 3"/>`,
    ...lines,
    "</svg>\n",
  ].join("\n");
}

function toBar(figure: Figure, { reference, unit }: Work, x: (ratio: number) => number, y: number): string[] {
  const { system, ratio, low, high, time } = figure;
  const colour = isOurs(figure) ? colours.ours : system === reference ? colours.reference : colours.others;
  const middle = y + bar / 2;
  return [
    `<text x="${left - 8}" y="${y + 12}" text-anchor="end">${toMarkup(system)}</text>`,
    `<rect x="${left}" y="${y}" width="${(x(ratio) - left).toFixed(1)}" height="${bar}" fill="${colour}"/>`,
    `<line x1="${x(low).toFixed(1)}" y1="${middle}" x2="${x(high).toFixed(1)}" y2="${middle}" stroke="black"/>`,
    text(x(high) + 6, y + 12, `${show(ratio)}  (${show(time)} ${unit})`),
  ];
}

function text(x: number, y: number, words: string, bold = false): string {
  return `<text x="${x.toFixed(1)}" y="${y}"${bold ? ' font-weight="bold"' : ""}>${toMarkup(words)}</text>`;
}

function toMarkup(words: string): string {
  return words.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function show(value: number): string {
  return String(Number(value.toPrecision(value < 10 ? 2 : 3)));
}

/** All tables, and what the run says of them. */
export function toTables({ at, machine, details: { parts, isQuiet } }: Measured): string {
  const sections = partNames.flatMap((name) => parts.filter((part) => part.name === name)).map(toTable);
  const { processor, cores, memoryGiB, kernel, bun, python, shm, shmemHugePages, commit } = machine;
  return [
    `Measured on ${at.slice(0, 10)} at ${commit}: ${cores} cores (${processor}), ${memoryGiB} GiB, Linux ${kernel}, Bun ${bun}, Python ${python}; ` +
      `\`/dev/shm\` is ${shm}, \`shmem_enabled\` ${shmemHugePages}.`,
    "",
    ...sections,
    toVerdict(parts, isQuiet),
  ].join("\n");
}

function toTable({ name, works, absent, othersBefore, othersAfter }: Part): string {
  const systems = [...new Set(works.flatMap(({ figures }) => figures.map(({ system }) => system)))];
  const cell = (work: Work, system: string) => {
    const figure = work.figures.find((each) => each.system === system);
    if (figure === undefined) return "";
    return `${show(figure.ratio)} (${show(figure.low)}–${show(figure.high)}), ${show(figure.time)} ${work.unit}`;
  };
  const rows = works.map((work) => `| ${work.what} | ${systems.map((system) => cell(work, system)).join(" | ")} |`);
  const missing = Object.entries(absent).map(([system, why]) => `${system} was not there (${why}).`);
  return [
    `### ${titles[name]}`,
    "",
    `![${titles[name]}](performance/${name}.svg)`,
    "",
    `| | ${systems.join(" | ")} |`,
    `|---|${systems.map(() => "---").join("|")}|`,
    ...rows,
    "",
    `${[`Others used ${othersBefore} cores before, ${othersAfter} after.`, ...missing].join(" ")}`,
    "",
  ].join("\n");
}

/** Where ours was slower than another, beyond both spreads: nothing else is lost, and nothing at all is said of a busy machine. */
export function toVerdict(parts: readonly Part[], isQuiet: boolean): string {
  if (!isQuiet) return "**No verdict: the machine was not quiet.** Others were at work, so these figures are rough.";
  const lost = parts.flatMap(({ works }) =>
    works.flatMap((work) => {
      const ours = work.figures.find(isOurs);
      if (ours === undefined) return [];
      const faster = work.figures.filter(
        (figure) => !isOurs(figure) && figure.system !== work.reference && figure.high < ours.low,
      );
      const names = faster.toSorted(bySpeed).map(({ system, ratio }) => `${system} (${show(ratio)})`);
      return names.length === 0 ? [] : [`- ${work.what}: ${show(ours.ratio)}; faster: ${names.join(", ")}.`];
    }),
  );
  return lost.length === 0 ? "**Lost: nothing.**" : ["**Lost**, beyond the spread of both:", "", ...lost].join("\n");
}
