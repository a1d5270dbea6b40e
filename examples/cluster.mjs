/** Node's cluster: all workers serve from one copy, which one of them has built. `node cluster.mjs`, and PORT if not 8080. */

import cluster from "node:cluster";
import { createServer } from "node:http";
// biome-ignore lint/correctness/noUndeclaredDependencies: it is a dependency wherever this is copied to.
import { connect } from "@tensord/client";

if (cluster.isPrimary) {
  for (let worker = 0; worker < 2; worker++) cluster.fork();
  process.once("SIGTERM", () => {
    for (const worker of Object.values(cluster.workers)) worker.kill();
  });
} else {
  const client = await connect();
  // What takes long: it runs once on this machine, however many workers ask.
  const build = () => Float32Array.from({ length: 1 << 20 }, (_, index) => index);
  const table = await client.getOrCreate("example-cluster", build);
  const numbers = table.tensor().array("F32");
  const server = createServer((_, response) => {
    const answer = { pid: process.pid, region: table.id, last: numbers.at(-1) };
    response.setHeader("Content-Type", "application/json").setHeader("Connection", "close").end(JSON.stringify(answer));
  });
  server.listen(process.env.PORT ?? 8080);
  process.once("SIGTERM", () => process.exit(0));
}
