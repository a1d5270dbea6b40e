/**
 * A Node process that reads the same memory. It hears `look <tensor> <row>` and `stop`, and answers in JSON lines, as
 * the Python workers do.
 */

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
// biome-ignore lint/correctness/noUndeclaredDependencies: a workspace of this repository.
import { connect } from "@tensord/client";

const say = (facts) => console.log(JSON.stringify(facts));

const client = await connect();
const region = await client.attach(process.argv[2]);
say({ tensors: region.descriptor.tensors.length });
for await (const line of createInterface(process.stdin)) {
  const [word, name, row] = line.split(" ");
  if (word === "stop") break;
  const tensor = region.tensor(name);
  const array = tensor.array();
  const width = tensor.shape[1];
  say({
    row: Array.from(array.subarray(Number(row) * width, (Number(row) + 1) * width)),
    sha256: createHash("sha256").update(array).digest("hex"),
  });
}
region.close();
client.close();
say({});
