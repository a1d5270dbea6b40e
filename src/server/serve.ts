/** The composition root: store, app and transports, put together from a config and taken apart in order. */

import packageJson from "../../package.json" with { type: "json" };
import { DeviceHost, type DeviceOptions } from "../cuda/device-host.ts";
import { FileLane } from "../loaders/file-lane.ts";
import { foldersOf } from "../loaders/source/model-roots.ts";
import { S3Lane } from "../loaders/source/s3-lane.ts";
import { limits } from "../memory/limits.ts";
import { dropProgramPages } from "../memory/os/libc-program.ts";
import { stopCreations } from "../memory/regions/create.ts";
import type { ReserveOptions } from "../memory/start/open-reserve.ts";
import { openStore } from "../memory/start/open-store.ts";
import { warnOfFileSystem } from "../memory/start/warn-of-file-system.ts";
import type { OnStep } from "../memory/state/steps.ts";
import { createApp } from "../routes/app.ts";
import { toEventText } from "../routes/to-event.ts";
import { Authority } from "./access/authority.ts";
import { Broker } from "./broker/broker.ts";
import { toBrokerPath } from "./broker/broker-socket.ts";
import type { Config } from "./config.ts";
import { Connections, type DistressWatcher, type Room } from "./connections.ts";
import { HealthListener } from "./health.ts";
import { createHost } from "./host.ts";
import { createLog, logEvent, type ServerLog } from "./log.ts";
import { Metrics } from "./metrics.ts";
import { readPreload } from "./preload/preload-file.ts";
import { Preloader } from "./preload/preloader.ts";
import { Rest } from "./rest.ts";
import { readS3Environment } from "./s3-environment.ts";
import { Transport } from "./transport.ts";

export interface RunningServer {
  /** Where it listens: `unix://…`, and `http://…` unless TCP is off. */
  readonly urls: readonly string[];
  /** Stops in order; regions stay for the next start. */
  stop(): Promise<void>;
}

/**
 * Starts a server.
 * @param onStep told after each step that changes the books; for fault tests, as what follows is.
 * @throws TensordError with what to do, and everything taken back.
 */
export async function startServer(
  config: Config,
  onStep?: OnStep,
  deviceOptions: DeviceOptions = {},
  reserveOptions: Omit<ReserveOptions, "settingBytes"> = {},
): Promise<RunningServer> {
  const lines = createLog(config.logLevel, config.instance);
  const { log, close } = lines;
  await using started = new AsyncDisposableStack();
  started.defer(close);
  const onUnexpected = (error: unknown, requestId?: string) =>
    log.error({ err: error, request_id: requestId }, "a request met a mistake of ours");
  const metrics = new Metrics(packageJson.version);
  const connections = started.use(new Connections(toDistressLog(log)));
  const health = new HealthListener(metrics, onUnexpected, connections);
  started.defer(() => health.stop());
  if (config.healthAddress !== undefined) log.info(`probes on ${health.start(config.healthAddress)}`);
  // Before anything is made: with a file that cannot be used nothing starts.
  const authority = config.tokensFile === undefined ? undefined : started.use(openTokens(config.tokensFile, log));
  const preloads = config.preload === undefined ? [] : readPreload(config.preload, config.modelRoots);
  const s3 = readS3Environment(process.env, config.modelRoots);
  const onWarning = (message: string, error: unknown) => log.warn({ err: error }, message);
  const kept = { onOpen: (fd: number) => connections.keep(fd), onClose: (fd: number) => connections.forgetKept(fd) };
  const devices = started.use(new DeviceHost(deviceOptions));
  // What is loading ends with the store, and needs it until then.
  const loading = { roots: config.modelRoots, files: started.use(new FileLane(s3 && new S3Lane(s3))) };
  const opened = started.use(
    await openStore({
      shmDirectory: config.shmDirectory,
      instance: config.instance,
      holderSocket: config.holderSocket,
      memoryLimitBytes: config.memoryLimitBytes,
      offered: config.storages,
      modelRoots: foldersOf(config.modelRoots),
      reserve: { ...reserveOptions, settingBytes: config.reserveBytes },
      holder: config.holderTtlMs === undefined ? undefined : { ttlMs: config.holderTtlMs, ...kept },
      onWarning,
      toEventText,
      onEvent: (event) => logEvent(lines, event),
      storages: (parts) => devices.open(parts),
      ...(onStep === undefined ? {} : { onStep }),
    }),
  );
  const { store, limit, directory, spareInodes, holder } = opened;
  metrics.watch(store);
  const traffic = { requests: 0, receivedBytes: 0, sentBytes: 0 };
  const urls: string[] = [];
  const { memoryLimitBytes: settingBytes, allowedHosts } = config;
  const descriptors = () => connections.room;
  const undisturbed = connections.undisturbed.bind(connections);
  const socket = config.socket ?? `${directory.advertisedDirectory}/http.sock`;
  const broker = await Broker.start({
    store,
    onUnexpected,
    onWarning,
    access: authority,
    ...kept,
  });
  started.defer(() => broker.stop());
  const brokerPath = () => broker.path;
  const host = started.use(
    createHost({
      store,
      directory,
      holder,
      settingBytes,
      urls: () => urls,
      brokerPath,
      allowedHosts,
      descriptors,
      undisturbed,
      metrics,
      devices: () => devices.report(),
    }),
  );
  // Before anybody connects: a Worker that starts without a free descriptor takes the process with it.
  await Promise.all([host.start(), opened.start(), loading.roots.length === 0 ? undefined : loading.files.start()]);
  const { http } = metrics;
  const observe = http.observe.bind(http);
  const authenticate = authority && ((header: string | undefined) => authority.authenticateHeader(header));
  if (authority !== undefined) {
    store.listen((event) => event.type === "tensord.session.ended" && authority.revoke(event.session.token));
  }
  const { version } = packageJson;
  const preloader = new Preloader(preloads, {
    store,
    loading,
    onFailure: onWarning,
    onLoaded: (message) => log.info(message),
  });
  started.defer(() => preloader.ended());
  const refuseUnlessReady = () => preloader.refuseUnlessReady();
  const app = createApp({
    store,
    host,
    version,
    loading,
    refuseUnlessReady,
    traffic,
    observe,
    onUnexpected,
    authenticate,
  });
  const transport = new Transport(app, traffic, onUnexpected, connections);
  started.defer(() => transport.stop(0));
  urls.push(await spareInodes.lend(`listen on ${socket}`, () => transport.listenUnix(socket)));
  const brokerSocket = config.brokerSocket ?? toBrokerPath(socket);
  if (brokerSocket === undefined) onWarning(`There is no broker: its path beside ${socket} is too long`, undefined);
  else await spareInodes.lend(`listen on ${brokerSocket}`, async () => broker.listen(brokerSocket));
  if (config.port !== undefined) urls.push(transport.listenTcp(config.host, config.port, config.allowedHosts));
  spareInodes.restore();
  warnOfFileSystem(directory, onWarning);
  connections.start();
  broker.bound(connections.room?.connections);
  preloader.start();
  health.ready(refuseUnlessReady);
  started.use(new Rest({ asked: () => traffic.requests, drop: dropProgramPages, onWarning })).start();
  const { open, sealed, draining } = store.books.counts;
  log.info({ limit_bytes: limit.limitBytes, reason: limit.reason }, "memory limit");
  tellRoom(log, connections.room);
  log.info(
    { urls, broker: broker.path, pid: process.pid, epoch: store.epoch, regions: { open, sealed, draining } },
    `ready on ${urls.join(" and ")}`,
  );
  if (config.port !== undefined && authority === undefined) {
    log.warn(
      `every local user can reach ${urls.at(-1)}: set TENSORD_PORT empty to serve the Unix socket alone, or TENSORD_TOKENS_FILE`,
    );
  }
  const all = started.move();
  return {
    urls,
    async stop() {
      log.info("stopping: requests under way may end, regions stay");
      store.stop();
      connections[Symbol.dispose]();
      await broker.stop();
      setTimeout(() => stopCreations(store), limits.shutdownGraceMs - limits.shutdownUndoMs).unref();
      await transport.stop(limits.shutdownGraceMs);
      await all.disposeAsync();
    },
  };
}

type Log = ServerLog["log"];

function openTokens(path: string, log: Log): Authority {
  return new Authority(path, (message, error) => (error === undefined ? log.info(message) : log.error(message)));
}

function tellRoom(log: Log, room: Room | undefined): void {
  if (room === undefined) return log.info("any number of connections fit: open files have no limit");
  const { limit, spare, connections } = room;
  log.info({ connections, open_files_limit: limit, spare }, `${connections} connections fit at once`);
}

function toDistressLog(log: Log): DistressWatcher {
  return {
    begins: () =>
      log.warn(
        "no file descriptor is free: connections on which nobody asks are closed. `tensord doctor` says how many fit; raise the " +
          "limit of open files (LimitNOFILE=, --ulimit nofile=, ulimit -n)",
      ),
    ends: (ended) => log.info({ ended }, "connections fit again"),
  };
}
