/** Mistakes at the door: what a request may be, who may ask, how the server comes and goes. */

const routes = "src/routes";
const transport = "src/server/transport.ts";

export const doorMutations = [
  {
    name: "a body may have any size",
    file: `${routes}/read-body.ts`,
    find: "  if (byteSize <= limits.requestBodyBytes) return;",
    replace: "  if (byteSize <= Number.MAX_SAFE_INTEGER) return;",
    test: ["tests/contract/large-bodies.test.ts", "is read, and one byte more is not"],
  },
  {
    name: "a body may nest as deep as it likes",
    file: `${routes}/read-body.ts`,
    find: "    checkJsonBounds(text);\n",
    replace: "",
    test: ["tests/contract/large-bodies.test.ts", "a hostile body of megabytes"],
  },
  {
    name: "a body of another content type is ignored where none is taken",
    file: `${routes}/read-body.ts`,
    find: `if (text !== "" && !isJson(c.req.header("content-type"))) throw unsupportedMediaType();`,
    replace: "",
    test: ["tests/contract/failures.test.ts", "deleteRegion answers unsupported-media-type"],
  },
  {
    name: "a query parameter that no route takes is ignored",
    file: `${routes}/refuse-unknown-query.ts`,
    find: "    if (unknown.length > 0) throw toValidationFailure(",
    replace: "    if (unknown.length < 0) throw toValidationFailure(",
    test: ["tests/contract/queries.test.ts", "is refused whatever its value"],
  },
  {
    name: "a field that a creation does not take is ignored",
    file: `${routes}/schemas/requests.ts`,
    find: "export const CreateRegion = z\n  .strictObject({",
    replace: "export const CreateRegion = z\n  .object({",
    test: ["tests/contract/failures.test.ts", "createRegion"],
  },
  {
    name: "a mistake of ours is told with what it says inside",
    file: `${routes}/problem.ts`,
    find: `"internal", "Cannot answer the request: the server made a mistake"`,
    replace: `"internal", String(error)`,
    test: ["tests/contract/failures.test.ts", "a mistake of ours"],
  },
  {
    name: "a part that ends behind the data is written",
    file: `${routes}/byte-range.ts`,
    find: "  if (last >= size ||",
    replace: "  if (last > size ||",
    test: ["tests/unit/byte-range.test.ts"],
  },
  {
    name: "a web page of another origin may ask over TCP",
    file: "src/server/guard.ts",
    find: `    throw refused("Origin",`,
    replace: `    if (origin === "") throw refused("Origin",`,
    test: ["tests/unit/guard.test.ts", "though the Host is ours"],
  },
  {
    name: "a web page may ask whose name leads to this machine",
    file: "src/server/guard.ts",
    find: `    if (asked !== undefined && !names.has(`,
    replace: `    if (asked === "" && !names.has(`,
    test: ["tests/unit/guard.test.ts", 'keeps the Host "evil.example" out'],
  },
  {
    name: "TCP lets everybody in",
    file: transport,
    find: "      guard(asked.headers);\n",
    replace: "",
    test: ["tests/contract/socket.test.ts", "TCP keeps out"],
  },
  {
    name: "a server hangs up on whoever is still sending what it refused",
    file: transport,
    find: "await drain(asked.body, this.#stopping.signal);",
    replace: "await drain(null, this.#stopping.signal);",
    test: ["tests/contract/refused-uploads.test.ts", "is heard of"],
  },
  {
    name: "everybody on the machine may connect to the socket",
    file: transport,
    find: "    chmodSync(path, 0o660);\n",
    replace: "    chmodSync(path, 0o666);\n",
    test: ["tests/contract/socket.test.ts", "belongs to owner and group alone"],
  },
  {
    name: "a server takes the socket from another one that listens there",
    file: transport,
    find: "  if (await isListening(path)) {",
    replace: "  if (await isListening('/none')) {",
    test: ["tests/contract/socket.test.ts", "is not taken from a server that listens there"],
  },
  {
    name: "a server that stops removes the socket that its successor made",
    file: transport,
    find: "if (lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino === ino) unlinkSync(path);",
    replace: "if (ino !== undefined && lstatSync(path, { throwIfNoEntry: false })) unlinkSync(path);",
    test: ["tests/contract/socket.test.ts", "of a successor is left alone"],
  },
  {
    name: "a stop leaves those waiting who wait",
    file: "src/server/serve.ts",
    find: "      store.stop();\n",
    replace: "",
    test: ["tests/integration/life.test.ts", "SIGTERM lets a request that waits answer"],
  },
];
