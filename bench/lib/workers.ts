/** The table of what workers take that use one model of an engine: its rows come from Python, what is said of them from here. */

/** Of the weights, what a worker of ours may have for itself. */
export const privateMost = 0.15;
/** Of what the others take, what is no gain. */
const noGain = 0.9;

/** What `lib/workers.py` prints of one way of an engine, in bytes. */
export interface Row {
  readonly engine: string;
  readonly way: string;
  /** The way of the same engine that it is held against, where it is one of ours. */
  readonly beside: string | null;
  /** Whether its workers are to have no more than `privateMost` of the weights. */
  readonly has_target: boolean;
  readonly weights: number;
  /** Of the worker that built, and the most of those that came later. */
  readonly private_first: number;
  readonly private: number;
  /** Of these the weights. */
  readonly private_weights: number;
  /** Of four workers together, what they share counted once. */
  readonly proportional: number;
  readonly regions: number;
  readonly fifth_made_seconds: number;
  readonly fifth_seconds: number;
  readonly answers: readonly string[];
}

const asMiB = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

export const heading = [
  "| each worker | weights | private: first, later | of the later one's the weights | four together | in regions | first answer of the fifth | |",
  "|---|---|---|---|---|---|---|---|",
];

/** A line of the table. Throws where answers are not equal: there is nothing to compare then. */
export function toLine(row: Row, rows: readonly Row[]): string {
  const beside = rows.find(({ engine, way }) => engine === row.engine && way === row.beside);
  const wanted = beside ?? row;
  if (row.answers.length !== 1 || row.answers[0] !== wanted.answers[0])
    throw new Error(`${row.engine}, ${row.way}: answers are ${row.answers}, want ${wanted.answers}`);
  const cells = [
    `${row.engine}: ${row.way}`,
    asMiB(row.weights),
    `${asMiB(row.private_first)}, ${asMiB(row.private)}`,
    asMiB(row.private_weights),
    asMiB(row.proportional),
    asMiB(row.regions),
    `${row.fifth_seconds.toFixed(2)} s`,
    beside === undefined ? "" : judge(row, beside),
  ];
  return `| ${cells.join(" | ")} |`;
}

function judge(row: Row, beside: Row): string {
  if (row.proportional > noGain * beside.proportional) return "**nothing gained**";
  const gained = `${asMiB(beside.proportional - row.proportional)} less`;
  if (!row.has_target) return gained;
  const verdict = row.private_weights <= privateMost * row.weights ? "met" : "MISSED";
  return `${gained}; the regions and ≤ ${privateMost * 100} % a worker: ${verdict}`;
}
