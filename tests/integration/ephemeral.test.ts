/** `serve --ephemeral`: a server that ends with whoever started it, and leaves nothing. What `tensord.testing` is made of. */

import { afterAll, expect } from "bun:test";
import { assertNothingLeft, createInstance, listNames } from "../harness/instance.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { ServerApi } from "../harness/server-api.ts";
import { tensord } from "../harness/server-program.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

function start(stdin: "pipe" | "ignore") {
  const instance = createInstance();
  const api = new ServerApi(instance.socket);
  const env = { PATH: process.env.PATH ?? "", TENSORD_PORT: "", TENSORD_INSTANCE: instance.name };
  const server = Bun.spawn([...tensord, "serve", "--ephemeral"], {
    cwd: root,
    env,
    stdin,
    stdout: "pipe",
    stderr: "pipe",
  });
  return { instance, api, server };
}

const isReady = (api: ServerApi) => () =>
  api.request("GET", "/readyz").then(
    ({ status }) => status === 200,
    () => false,
  );

for (const ending of ["its input ends", "it is told to stop"] as const) {
  testWith()(`an ephemeral server purges its instance when ${ending}, what has no name included`, async () => {
    const { instance, api, server } = start("pipe");
    await until("the server is ready", isReady(api));
    await api.create({ name: "kept", byte_size: 100_000, persist: true });
    await api.create({ name: "nameless", storage: "memfd", byte_size: 100_000, persist: true });
    expect(listNames(instance)).toHaveLength(2);
    const { reserve } = await api.call<{ reserve: { bytes: number } }>("GET", "/v1/capabilities");
    expect(reserve.bytes, "nothing lies ready in it").toBe(0);
    if (ending === "its input ends") await server.stdin?.end();
    else server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
    expect(await server.stderr.text()).toBe("");
    expect(listNames(instance)).toEqual([]);
  });
}

testWith()("an ephemeral server that is given no input ends at once", async () => {
  const { instance, server } = start("ignore");
  expect(await server.exited).toBe(0);
  expect(listNames(instance)).toEqual([]);
});
