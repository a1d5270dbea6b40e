/** A real broker, with its Worker, over a real store in this process. */

import { Broker, type BrokerParts } from "../../../src/server/broker/broker.ts";
import { type AppOptions, type TestApp, toMistake, withApp } from "../../harness/app.ts";
import { BrokerClient } from "../../harness/broker-client.ts";

export interface OpenBroker {
  readonly app: TestApp;
  readonly broker: Broker;
  readonly path: string;
  /** Connections' descriptors on the server's side, which are in this process too. */
  readonly open: ReadonlySet<number>;
  /** A client that has said hello; closed with the test. */
  connect(members?: Readonly<Record<string, unknown>>): Promise<BrokerClient>;
}

/** A test's body with a broker of its own. */
export function withBroker(
  use: (server: OpenBroker) => Promise<void>,
  parts: Partial<BrokerParts> = {},
  options?: AppOptions,
): () => Promise<void> {
  return withApp(async (app) => {
    const open = new Set<number>();
    const broker = await Broker.start({
      store: app.store,
      onUnexpected: (error) => app.mistakes.push(toMistake(error)),
      onWarning: (message, error) => app.mistakes.push(`${message}: ${error}`),
      onOpen: (fd) => open.add(fd),
      onClose: (fd) => open.delete(fd),
      access: app.tokensFile?.authority,
      ...parts,
    });
    using clients = new DisposableStack();
    try {
      const path = `${app.shmDirectory}/tensord.${app.instance}/broker.sock`;
      broker.listen(path);
      const connect = async (members?: Readonly<Record<string, unknown>>) =>
        clients.use(await BrokerClient.open(path, members));
      await use({ app, broker, path, open, connect });
    } finally {
      app.store.stop();
      await broker.stop();
    }
  }, options);
}
