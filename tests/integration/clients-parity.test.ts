/** docs/clients-parity.md and what the clients have: each name of both is there once, and nothing else is. */

import { expect } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { needsStockPython, root, stockPython, testWith } from "../harness/instance-needs.ts";
import { needsNodeClient } from "../harness/node-program.ts";

interface Row {
  readonly what: string;
  readonly python: readonly string[];
  readonly node: readonly string[];
  readonly where: string;
  readonly why: string;
}

const namesIn = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name ?? "");

function readTables(): Row[] {
  const lines = readFileSync(join(root, "docs/clients-parity.md"), "utf8").split("\n");
  const rows = lines.filter((line) => /^\|(?! what \| Python|-)/.test(line));
  return rows.map((row) => {
    const cells = row.split("|").map((cell) => cell.trim());
    expect({ row, cells: cells.length }).toEqual({ row, cells: 7 });
    const [, what = "", python = "", node = "", where = "", why = ""] = cells;
    return { what, python: namesIn(python), node: namesIn(node), where, why };
  });
}

/**
 * Python's, read from the package as a program imports it: what `__all__` names, and of each class the public methods,
 * properties, and attributes that its `__init__` sets. Fields of dataclasses are the document's; an exception for a code has
 * nothing of its own.
 */
const pythonSurface = `
import ast, dataclasses, inspect, json, textwrap
import tensord, tensord.cuda, tensord.onnx, tensord.torch

def attributes(kind):
    init = vars(kind).get("__init__")
    if not inspect.isfunction(init) or dataclasses.is_dataclass(kind):
        return set()
    return {
        node.attr
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(init))))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self"
    }

def members(kind):
    if issubclass(kind, tensord.TensordError) and kind is not tensord.TensordError:
        return set()
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    return {name for name in {*vars(kind), *attributes(kind)} - fields if not name.startswith("_")}

names = []
for module in (tensord, tensord.cuda, tensord.onnx, tensord.torch):
    for name in module.__all__:
        exported = getattr(module, name)
        shown = name if module is tensord else f"{module.__name__.removeprefix('tensord.')}.{name}"
        names.append(shown)
        if inspect.isclass(exported):
            names += [f"{shown}.{member}" for member in members(exported)]
print(json.dumps(names))
`;

function readPython(): string[] {
  const { stdout, stderr, success } = Bun.spawnSync([stockPython, "-c", pythonSurface], { cwd: root });
  if (!success) throw new Error(`Cannot read the Python client: ${stderr}`);
  return JSON.parse(stdout.toString());
}

/** Of these the fields are the document's, as of Python's dataclasses. */
const records = ["TensorReference"];

/** Node's, read from the declarations that its users compile against, in the compiler's own layout. */
function readNode(): string[] {
  const entry = join(root, "clients/node/dist/index.d.ts");
  const exports = readFileSync(entry, "utf8").matchAll(/^export (?:type )?\{([^}]*)\} from "([^"]+)\.ts";$/gm);
  return [...exports].flatMap(([, list = "", path = ""]) => {
    const file = join(dirname(entry), `${path}.d.ts`);
    expect(existsSync(file)).toBe(true);
    const declarations = readFileSync(file, "utf8");
    const names = [...list.matchAll(/(\w+),?\s*(?=type\b|\w|$)/g)].map(([, name]) => name ?? "");
    return names
      .filter((name) => name !== "type")
      .flatMap((name) => [name, ...membersOf(name, declarations).map((member) => `${name}.${member}`)]);
  });
}

function membersOf(name: string, declarations: string): string[] {
  const body =
    new RegExp(`^export declare class ${name}[ <][^\\n]*\\{\\n(.*?)^\\}`, "ms").exec(declarations)?.[1] ?? "";
  const pattern = /^ {4}((?:static |readonly |override |get )*)(?!constructor\b|private\b)(\w+)[(<:]/gm;
  const found = [...body.matchAll(pattern)].filter(
    ([, modifiers]) => !(modifiers?.includes("readonly") && records.includes(name)),
  );
  return [...new Set(found.map(([, , member]) => member ?? ""))];
}

/** What the code has and the tables have not, and the other way round. */
function compare(code: readonly string[], tables: readonly string[]) {
  return {
    withoutLine: code.filter((name) => !tables.includes(name)).toSorted(),
    notInTheClient: tables.filter((name) => !code.includes(name)).toSorted(),
    twice: tables.filter((name, index) => tables.indexOf(name) !== index).toSorted(),
  };
}

const alike = { withoutLine: [], notInTheClient: [], twice: [] };

testWith(needsStockPython)("docs/clients-parity.md has every name of the Python client, and no other", async () => {
  const code = readPython();
  expect(code).toContainValues([
    "connect",
    "Client.create",
    "Region.seal",
    "Ring.slots",
    "TensordError.hint",
    "StaleRef",
  ]);
  expect(
    compare(
      code,
      readTables().flatMap(({ python }) => python),
    ),
  ).toEqual(alike);
});

testWith(needsNodeClient)("docs/clients-parity.md has every name of the Node client, and no other", async () => {
  const code = readNode();
  expect(code).toContainValues(["connect", "Client.create", "Region.tensors", "TensorReference.parse", "WaitOptions"]);
  expect(
    compare(
      code,
      readTables().flatMap(({ node }) => node),
    ),
  ).toEqual(alike);
});

testWith()("each line of docs/clients-parity.md says where it is, and why where it is in one client only", async () => {
  const rows = readTables();
  expect(rows.length).toBeGreaterThan(40);
  const wrong = rows.filter(({ python, node, where, why }) => {
    if (where === "both") return (python.length === 0) !== (node.length === 0);
    return !["not yet", "not here"].includes(where) || why === "" || (python.length > 0 && node.length > 0);
  });
  expect(wrong).toEqual([]);
});
