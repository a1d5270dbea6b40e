/** The second act: the weights at work. The real model runs on them in several processes, and Node reads them as well. */

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { until } from "./cast.mjs";
import { claim, line, megabytes, milliseconds, step, table } from "./telling.mjs";

const wordEmbeddings = "embeddings.word_embeddings.weight";
const word = "memory";
/** Two embeddings are the same if no number differs by more than F32 can be wrong in a sum. They have unit length. */
const toleranceOfEqual = 1e-6;

export async function tellSecondAct(cast, listener, published) {
  const { embedders, expected } = await runModel(cast, published);
  const reader = await readFromNode(cast, published, embedders[0]);
  await deleteWhileUsed(cast, listener, published, embedders, expected, reader);
}

async function runModel(cast, published) {
  step("Two processes run the real model on these weights, and the library it is made for runs it from the file");
  const stock = cast.python("stock.py");
  const embedders = ["E", "F"].map((label) => ({
    label,
    process: cast.python("embedder.py", published.region.name),
  }));
  line("first each of them imports torch and transformers, which takes most of the demo's time");
  const { embeddings: expected } = await stock.hear();
  await stock.end();
  for (const embedder of embedders) Object.assign(embedder, await embedder.process.hear());
  for (const embedder of embedders) Object.assign(embedder, await embedder.process.ask("embed"));
  // Only when all have touched what they need: the kernel calls a page private that one process has mapped so far.
  for (const embedder of embedders) Object.assign(embedder, await embedder.process.ask("measure"));
  const copy = await embedders[0].process.ask("copy");
  const toRow = (who, { ready_ms, grown, embeddings }) => [
    who,
    ready_ms === undefined ? "" : milliseconds(ready_ms),
    grown === undefined ? "" : megabytes(grown),
    toStart(embeddings[0]),
  ];
  table(
    ["", "weights in place in", "private memory grown by", "its first embedding begins"],
    [
      ...embedders.map((embedder) => toRow(`worker ${embedder.label}, pid ${embedder.process.pid}`, embedder)),
      toRow("worker E, with a copy beside it", copy),
      toRow("sentence-transformers", { embeddings: expected }),
    ],
  );
  const { tensors } = embedders[0];
  claim(
    `all ${tensors} parameters and buffers are there, and all but one (token_type_ids: zeros) are the shared memory itself`,
    embedders.every(({ shared, on_meta }) => shared === tensors - 1 && on_meta === 0),
  );
  claimEqual("every worker's embeddings are sentence-transformers' own", [...embedders, copy], expected);
  const most = Math.max(...embedders.map(({ grown }) => grown));
  claim(
    `each worker more costs less than a tenth of the weights: at most ${megabytes(most)} of ${megabytes(published.byte_size)}`,
    most < 0.1 * published.byte_size,
  );
  claim(`a copy of the weights would cost it ${megabytes(copy.grown)} more`, copy.grown > 0.9 * published.byte_size);
  line(
    "(sentence-transformers maps its file, and copies once something is derived from the weights: see demo/README.md)",
  );
  return { embedders, expected };
}

async function readFromNode(cast, published, embedder) {
  step("A Node process reads the same tensor");
  const reader = cast.node("look.mjs", published.region.name);
  const { tensors } = await reader.hear();
  const words = readFileSync(join(dirname(published.file), "vocab.txt"), "utf8").split("\n");
  const question = `look ${wordEmbeddings} ${words.indexOf(word)}`;
  const inPython = await embedder.process.ask(question);
  const inNode = await reader.ask(question);
  line(
    `pid ${reader.pid}, Node ${process.version}: ${tensors} tensors; the vector of the word "${word}" begins ${toStart(inNode.row)}`,
  );
  claim(
    `all ${inNode.row.length} numbers of this vector are those that Python sees`,
    inNode.row.length > 0 && inNode.row.every((number, index) => number === inPython.row[index]),
  );
  claim(`so is the whole tensor: sha256 ${inNode.sha256.slice(0, 16)}…`, inNode.sha256 === inPython.sha256);
  return reader;
}

async function deleteWhileUsed(cast, listener, published, embedders, expected, reader) {
  step("The region is deleted while these three processes use it");
  const { id, storage } = published.region;
  const { body: deletion } = await cast.call("DELETE", `/v1/regions/${id}`);
  await listener.heard("tensord.region.draining");
  claim(
    `the server answers "${deletion.state}": its name is free at once, its bytes go with the last process`,
    deletion.state === "draining",
  );
  const again = [];
  for (const { process } of embedders) again.push(await process.ask("embed"));
  claimEqual("the workers embed as before", again, expected);
  const actors = [...embedders.map(({ process }) => process), reader];
  for (const actor of actors) await actor.ask("stop");
  for (const actor of actors) await actor.end();
  const begin = performance.now();
  claim(
    "all three end by themselves, with status 0",
    actors.every(({ outcome }) => outcome === 0),
  );
  await until("the region was freed", async () => (await cast.call("GET", `/v1/regions/${id}`)).status === 404);
  const { body: stats } = await cast.call("GET", "/v1/stats");
  claim(
    `${milliseconds(performance.now() - begin)} after the last one, its ${megabytes(storage.byte_size)} are free`,
    stats.pools.every(({ used_bytes, draining_bytes }) => used_bytes + draining_bytes === 0),
  );
  await listener.heard("tensord.region.deleted");
}

function claimEqual(text, said, expected) {
  const differences = said.flatMap(({ embeddings }) =>
    expected.flatMap((embedding, row) => embedding.map((number, column) => Math.abs(number - embeddings[row][column]))),
  );
  const largest = Math.max(...differences);
  const how = largest === 0 ? "bit for bit" : `the largest difference is ${largest.toExponential(1)}`;
  claim(
    `${text}: ${how}, in ${expected.length} sentences of ${expected[0].length} numbers`,
    largest <= toleranceOfEqual,
  );
}

const toStart = (numbers) =>
  `${numbers
    .slice(0, 4)
    .map((number) => number.toFixed(4))
    .join("  ")} …`;
