/** The journal is there and damaged, in its first page, behind it, or in a single row. */

import { Database } from "bun:sqlite";
import { afterAll, expect } from "bun:test";
import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks, checkRows } from "../harness/instance-check.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { checkAdopted, makeRegions } from "./lost-store-regions.ts";

afterAll(assertNothingLeft);

function change(path: string, statement: string): void {
  using database = new Database(path, { readwrite: true });
  database.run(statement);
}

/** Fills the page in which a table or an index begins with zeros. */
function zeroPage(path: string, name: string): void {
  const bytes = readFileSync(path);
  using database = new Database(path, { readonly: true });
  const { page_size: size } = database.query("PRAGMA page_size").get() as { page_size: number };
  const { rootpage } = database.query("SELECT rootpage FROM sqlite_schema WHERE name = ?").get(name) as {
    rootpage: number;
  };
  writeFileSync(path, bytes.fill(0, (rootpage - 1) * size, rootpage * size));
}

const oneRow = "WHERE key = (SELECT min(key) FROM regions)";

for (const [how, damage] of Object.entries<(path: string) => void>({
  "overwritten with text": (path) => writeFileSync(path, "this is no database\n".repeat(1000)),
  "overwritten from within its first page on": (path) => writeFileSync(path, readFileSync(path).fill(0xa5, 100)),
  "overwritten from its second page on": (path) => writeFileSync(path, readFileSync(path).fill(0xa5, 4096)),
  "cut in the middle": (path) => truncateSync(path, Math.floor(readFileSync(path).length / 2)),
  "with a page of zeros in the regions": (path) => zeroPage(path, "regions"),
  "with a page of zeros in the index of names": (path) => zeroPage(path, "region_names"),
  "with a page of zeros in the leases": (path) => zeroPage(path, "leases"),
  "with a record cut in its middle": (path) => change(path, `UPDATE regions SET record = substr(record, 9) ${oneRow}`),
  "with a record that lacks what it must have": (path) =>
    change(path, `UPDATE regions SET record = json_remove(record, '$.byteSize') ${oneRow}`),
  "with a region without tensors": (path) =>
    change(path, "DELETE FROM tensors WHERE region = (SELECT min(key) FROM regions)"),
  "with tensors cut in their middle": (path) => change(path, "UPDATE tensors SET list = substr(list, 1, 9)"),
  "with tensors of another count": (path) => change(path, "UPDATE tensors SET count = count + 1"),
  "with an owner of no kind": (path) => change(path, `UPDATE regions SET owner = '{}' ${oneRow}`),
  "with a state that no region has": (path) => change(path, `UPDATE regions SET state = 'opfn' ${oneRow}`),
  "with a session that is none": (path) => change(path, "INSERT INTO sessions VALUES (1, 'null')"),
  "without one of its tables": (path) => change(path, "DROP TABLE claims"),
})) {
  testWith()(`a database ${how} is set aside, and the regions are adopted`, async () => {
    await using server = await startServer();
    server.log.expect(/^The journal is damaged and was set aside /);
    const made = await makeRegions(server);
    await server.stop();
    damage(join(server.instance.store, "tensord.sqlite"));
    await server.start();
    await checkAdopted(server, made);
    expect(readdirSync(server.instance.store).filter((name) => name.includes("damaged")).length).toBeGreaterThan(0);
    await until("the log says so", () => server.log.find(/^The journal is damaged/));
    await checkBooks(server);
    await server.stop();
    checkRows(server.instance);
  });
}
