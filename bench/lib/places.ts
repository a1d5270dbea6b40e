/** Where things are: this repository, the server that is measured, and the interpreters. */

import { join, resolve } from "node:path";

export const repository = resolve(import.meta.dirname, "../..");

/** The tree whose server is measured; `BENCH_TREE=<path>` measures another checkout with these benchmarks. */
export const serverTree = resolve(process.env.BENCH_TREE ?? repository);

export const bun = join(repository, "node_modules/.bin/bun");

export const node = process.env.npm_node_execpath ?? Bun.which("node") ?? "node";

/** The environment of the Python client, or another interpreter that has its packages. */
export const python = process.env.BENCH_PYTHON ?? join(repository, ".venv/bin/python");

export const resultsDirectory = join(repository, "bench/results");
