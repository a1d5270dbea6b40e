/**
 * Tries mutations (`tests/mutations/`): each is one mistake, made in a copy of the checkout, and the test that it names
 * must fail for it. The checkout is never written to, and nothing stays behind.
 */

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mutations } from "../../tests/mutations/all.mjs";
import { withLock } from "./lock.mjs";
import { copy, makeCopy } from "./mutation-copy.mjs";
import { impatient, load, patient, runTest } from "./mutation-test.mjs";
import { setUpNodeClient } from "./node-client.mjs";
import { Failure, root, secondsSince } from "./process.mjs";
import { setUpPython } from "./python-packages.mjs";
import { setUpPackages } from "./server-packages.mjs";

/**
 * @typedef {object} Mutation
 * @property {string} name what is wrong then, as a claim
 * @property {string} file
 * @property {string} find text that occurs in it exactly once
 * @property {string} replace what stands there instead
 * @property {[path: string, named?: string]} test the file whose test must fail, and a part of that test's name, as Bun's
 *   `-t` and pytest's `-k` take it
 */

/** @returns {{ only: string[], list: boolean }} */
function readArguments(args) {
  const only = [];
  let list = false;
  for (let index = 0; index < args.length; index++) {
    if (args[index] === "--list") list = true;
    else if (args[index] === "--only" && args[index + 1] !== undefined) only.push(args[++index]);
    else throw new Failure(`Cannot try mutations: ${args[index]} is no option, want --list or --only NAME.`);
  }
  return { only, list };
}

/** @returns {Mutation[]} */
function choose(only) {
  const unknown = only.find((part) => !mutations.some(({ name }) => name.includes(part)));
  if (unknown !== undefined) throw new Failure(`Cannot choose the mutation ${unknown}: none is called so. See --list.`);
  return only.length === 0 ? mutations : mutations.filter(({ name }) => only.some((part) => name.includes(part)));
}

/** The file's text below `folder` and what the mutation makes of it. @throws {Failure} where the code has moved on */
function mutate({ name, file, find, replace }, folder) {
  const text = readText(join(folder, file));
  const places = text === undefined ? 0 : text.split(find).length - 1;
  if (places === 1) return { text, mutated: text.split(find).join(replace) };
  throw new Failure(
    `The table in tests/mutations/ is stale: what "${name}" wants to break is ` +
      `${text === undefined ? `in no file ${file}` : `${places} times in ${file}`}, want it once: ${find.trim()}`,
  );
}

function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** Names are unique, since they choose; a mistake that changes nothing would be nobody's. */
function checkTable() {
  const names = new Set();
  for (const mutation of mutations) {
    if (names.has(mutation.name))
      throw new Failure(`Two mutations are called "${mutation.name}", want each name once.`);
    names.add(mutation.name);
    mutate(mutation, root);
    if (mutation.find === mutation.replace) throw new Failure(`The mutation "${mutation.name}" changes nothing.`);
  }
}

/**
 * Every test that a mutation names, on the code as it is: red, it could show nothing. Those of one file run at once.
 *
 * @returns {Promise<Map<string, number>>} milliseconds of each file
 */
async function runUnmutated(chosen) {
  const files = new Map();
  for (const { test } of chosen) {
    const [path, named] = test;
    const all = files.get(path) ?? new Set();
    files.set(path, all.add(named));
  }
  console.log(`unmutated, the tests of ${files.size} files must pass`);
  const took = new Map();
  for (const [path, all] of files) {
    const start = performance.now();
    const { status, passed, output } = await runTest([path, ...(all.has(undefined) ? [] : all)], patient);
    took.set(path, performance.now() - start);
    const missing = [...all].map((named = "") => named).find((named) => !passed.some((name) => name.includes(named)));
    if (status === 0 && missing === undefined) continue;
    const what = status === 0 ? `none that is called "${missing}" ran` : `their run ended with status ${status}`;
    throw new Failure(
      `Cannot try mutations: the tests of ${path} do not pass without any: ${what}.\n${lastLines(output)}`,
    );
  }
  return took;
}

const lastLines = (output) => output.trimEnd().split("\n").slice(-40).join("\n");

/** @returns {Promise<"caught" | "lives" | "no verdict">} */
async function tryMutation(mutation, unmutatedMs) {
  const { name, file, test } = mutation;
  const { text, mutated } = mutate(mutation, copy);
  writeFileSync(join(copy, file), mutated);
  try {
    const loaded = await load(file);
    if (loaded.status !== 0) {
      console.log(`${name}: NO VERDICT, ${file} cannot be loaded:\n${lastLines(loaded.output)}`);
      return "no verdict";
    }
    const { status, passed, failed, output } = await runTest(test, impatient(unmutatedMs));
    if (failed.length > 0) {
      console.log(`${name}: caught by ${failed[0]}`);
      return "caught";
    }
    if (status === 0 && passed.length > 0) {
      console.log(`${name}: LIVES, ${test.join(" -t ")} does not mind`);
      return "lives";
    }
    console.log(
      `${name}: NO VERDICT, ${test[0]} ended with status ${status} without a failed test:\n${lastLines(output)}`,
    );
    return "no verdict";
  } finally {
    writeFileSync(join(copy, file), text);
  }
}

async function tryAll(chosen) {
  const outcomes = [];
  try {
    await makeCopy();
    const took = await runUnmutated(chosen);
    for (const mutation of chosen) outcomes.push(await tryMutation(mutation, took.get(mutation.test[0])));
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
  return outcomes;
}

/**
 * Tries the mutations that `args` choose.
 *
 * @param {string[]} args
 * @returns the status to exit with
 */
export async function runMutations(args) {
  const { only, list } = readArguments(args);
  checkTable();
  const chosen = choose(only);
  if (list) {
    for (const { name, file, test } of chosen) console.log(`${name}\n    ${file}; ${test.join(" -t ")}`);
    return 0;
  }
  await setUpPackages();
  await setUpNodeClient();
  await setUpPython();
  const start = performance.now();
  const tellWhoseTurn = (pid) =>
    console.log(`Waiting for process ${pid}, which tries mutations of the same checkout …`);
  const outcomes = await withLock("mutations", tellWhoseTurn, () => tryAll(chosen));
  const count = (wanted) => outcomes.filter((outcome) => outcome === wanted).length;
  const [caught, lives, unclear] = ["caught", "lives", "no verdict"].map(count);
  const others = unclear === 0 ? "" : `, ${unclear} without a verdict`;
  console.log(`\n${chosen.length} mutations in ${secondsSince(start)}: ${caught} caught, ${lives} live${others}`);
  return caught === chosen.length ? 0 : 1;
}
