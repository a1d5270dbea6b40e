/** The samples of a soak as an SVG: one small chart for each series, over the same seconds. */

import type { Sample } from "./judge.ts";

const width = 900;
const height = 110;
const left = 90;
const MiB = 2 ** 20;

interface Series {
  readonly label: string;
  readonly of: (sample: Sample) => number;
}

const series: readonly Series[] = [
  { label: "resident, MiB", of: ({ rssBytes }) => rssBytes / MiB },
  { label: "descriptors", of: ({ descriptors }) => descriptors },
  { label: "mappings", of: ({ mappings }) => mappings },
  { label: "sessions", of: ({ sessions }) => sessions },
  { label: "regions", of: ({ regions }) => regions },
  { label: "used, MiB", of: ({ usedBytes }) => usedBytes / MiB },
  { label: "events, 1000s", of: ({ events }) => events / 1000 },
  { label: "an answer, ms", of: ({ answerMs }) => answerMs },
];

export function plot(samples: readonly Sample[]): string {
  const total = series.length * height + 30;
  const last = samples.at(-1)?.second ?? 1;
  const x = (second: number) => left + ((width - left - 10) * second) / last;
  const charts = series.map((one, index) => chart(one, samples, x, index * height));
  const axis = `<text x="${left}" y="${total - 8}">0 s</text><text x="${width - 10}" y="${total - 8}" text-anchor="end">${last} s</text>`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${total}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${total}" fill="white"/>`,
    ...charts,
    axis,
    "</svg>\n",
  ].join("\n");
}

function chart({ label, of }: Series, samples: readonly Sample[], x: (second: number) => number, top: number): string {
  const most = Math.max(1, ...samples.map(of));
  const bottom = top + height - 10;
  const y = (value: number) => bottom - ((height - 25) * value) / most;
  const points = samples.map((sample) => `${x(sample.second).toFixed(1)},${y(of(sample)).toFixed(1)}`).join(" ");
  return [
    `<text x="${left - 8}" y="${bottom}" text-anchor="end">0</text>`,
    `<text x="${left - 8}" y="${top + 20}" text-anchor="end">${Number(most.toPrecision(3))}</text>`,
    `<text x="${left + 6}" y="${top + 14}" font-weight="bold">${label}</text>`,
    `<line x1="${left}" y1="${bottom}" x2="${width - 10}" y2="${bottom}" stroke="#999"/>`,
    `<polyline points="${points}" fill="none" stroke="#1668a8" stroke-width="1.2"/>`,
  ].join("\n");
}
