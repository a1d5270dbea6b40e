/** The command line: which commands and options there are. What they do stands beside it. */

import { Argument, Command, Option } from "commander";
import { offeredKinds } from "../../memory/storage/storages.ts";
import { type Config, parseConfig, type SettingName, settings } from "../config.ts";
import { readSettingsFile } from "../config-file.ts";
import { alloc } from "./alloc.ts";
import { Api } from "./api.ts";
import { completion, type Shell, shells } from "./completion/completion.ts";
import { copy, operations } from "./copy.ts";
import { devices } from "./devices.ts";
import { doctor } from "./doctor.ts";
import { type PoolAction, pool, poolActions, pools } from "./elastic.ts";
import { events } from "./events.ts";
import { free } from "./free.ts";
import { healthcheck } from "./healthcheck.ts";
import { hold } from "./hold.ts";
import { leases } from "./leases.ts";
import { list, listOffline } from "./list.ts";
import { listModels } from "./list-models.ts";
import { load } from "./load.ts";
import { print, tell } from "./output.ts";
import { purge } from "./purge.ts";
import { remove } from "./remove.ts";
import { tellServiceManager } from "./service-manager.ts";
import { status, statusOffline } from "./status.ts";
import { findToken } from "./token.ts";
import { top } from "./top.ts";
import { untilStopped } from "./until-stopped.ts";
import { versionText } from "./version.ts";

const locating: readonly SettingName[] = ["instance", "shmDirectory", "socket"];
const sorts = ["size", "age", "used", "name"];
const offlineMeaning = "read the journal and the keeper of an instance whose server is not running; changes neither";
const tokenMeaning = "the token, where the server asks for one (TENSORD_TOKEN, or TENSORD_TOKEN_FILE)";
const urlMeaning = "the server: unix:///path or http://host:port (TENSORD_URL)";

/** @returns the program, to be given the arguments. Its actions write to standard output. */
export function createProgram(): Command {
  const program = new Command("tensord")
    .description("One copy of every tensor per machine.")
    .version(versionText)
    .showHelpAfterError("(add --help for the options)");

  withSettings(program.command("serve"), Object.keys(settings) as SettingName[])
    .description("run the server until it is told to stop (SIGTERM, SIGINT)")
    .option("--ephemeral", "for tests: end when standard input does, and leave nothing of the instance behind")
    .action(async (flags) => {
      const config = toConfig(flags);
      // Many test servers run at once, for a moment each: nothing lies ready in them unless somebody says so.
      if (flags.ephemeral === true) await serve({ ...config, reserveBytes: config.reserveBytes ?? 0 }, true);
      else await serve(config, false);
    });

  withApi(program.command("status"))
    .description("memory, regions, models and sessions")
    .addOption(new Option("--offline", offlineMeaning).conflicts("url"))
    .action(async (flags) => {
      const asJson = flags.json === true;
      await print(await (flags.offline ? statusOffline(toConfig(flags), asJson) : status(toApi(flags), asJson)));
    });

  withApi(program.command("ls"))
    .description("list regions")
    .option("--model <name>", "only this model's")
    .option("--session <id>", "only those that end with this session")
    .option("--state <state>", "only those open, sealed, draining, …")
    .option("--label <key=value>", "only those with this label")
    .addOption(
      new Option("--sort <by>", "largest, oldest, least recently used, or by name; default age").choices(sorts),
    )
    .option("--holders", "also who maps them; the server takes the question for a use")
    .addOption(
      new Option("--models", "each model instead: its files, what they take, and how many workers use it").conflicts([
        "session",
        "state",
        "label",
        "sort",
        "holders",
      ]),
    )
    .addOption(new Option("--offline", offlineMeaning).conflicts(["url", "holders", "models"]))
    .action(async (flags) => {
      const asJson = flags.json === true;
      if (flags.offline) await print(await listOffline(toConfig(flags), flags, asJson));
      else await print(await (flags.models ? listModels : list)(toApi(flags), flags, asJson));
    });

  withApi(program.command("leases"))
    .description("list a region's leases by request; ls --holders shows who maps it")
    .argument("<region>", "id, name (of the model default) or model/name")
    .action(async (target, flags) => await print(await leases(toApi(flags), target, flags.json === true)));

  withApi(program.command("devices"))
    .description("list the GPUs: how much of each is taken, and why one cannot be used")
    .action(async (flags) => await print(await devices(toApi(flags), flags.json === true)));

  withApi(program.command("pools"))
    .description("list the elastic pools: how much of each is mapped, and what it takes of its device")
    .option("--model <name>", "only this model's")
    .action(async (flags) => await print(await pools(toApi(flags), flags, flags.json === true)));

  withPool(withApi(program.command("pool")))
    .description(
      "make an elastic pool, show it, change its limits, map and unmap its pages, trim, compact or delete it",
    )
    .action(
      async (action: PoolAction, model, device, flags) =>
        await print(await pool(toApi(flags), action, { model, device }, flags, flags.json === true)),
    );

  withTarget(withApi(program.command("alloc")))
    .description("allocate a region")
    .argument("<name>", "its name in the model")
    .option("--size <bytes>", "its size, as 1GiB: one tensor of U8 called data")
    .option("--tensor <name:dtype:shape>", "a tensor, as w:F32:1024x1024, or x:F32: for a scalar; repeatable", gather)
    .action(async (name, flags) => await print(await alloc(toApi(flags), name, flags, flags.json === true)));

  withTarget(withApi(program.command("copy")))
    .description("copy a sealed region into a new one, of any storage; Ctrl-C cancels it")
    .argument("<region>", "id, name (of the model default) or model/name")
    .argument("[name]", "the copy's name in its model; without one it is reached by its id")
    .addOption(
      new Option("--device <uuid>", "into the memory of this device").conflicts(["storage", "private", "hugePages"]),
    )
    .option("--no-wait", "begin it, and end")
    .action(
      async (target, name, flags) =>
        await print(await copy(toApi(flags), target, name, flags, flags.json === true, untilStopped())),
    );

  withTarget(withApi(program.command("load")), ["attach", "fail"])
    .description("load model files into regions, each once; Ctrl-C cancels it")
    .argument("<files...>", "paths as the server sees them, or s3:// URIs, below its TENSORD_MODEL_ROOTS")
    .option("--name <name>", "the region's name, of one file (default: as the file)")
    .option("--as <version>", "the region's version (default: one that stands for the file's state)")
    .option("--raw", "take files for bytes, whatever is in them")
    .addOption(
      new Option(
        "--mode <mode>",
        "copy the bytes, map the file where it lies, or let the server decide (default: copy)",
      ).choices(["copy", "map", "auto"]),
    )
    .addOption(
      new Option("--device <uuid>", "into the memory of this device").conflicts(["storage", "private", "hugePages"]),
    )
    .option("--no-wait", "begin it, and end")
    .action(
      async (files: string[], flags) =>
        await print(await load(toApi(flags), files, flags, flags.json === true, untilStopped())),
    );

  withApi(program.command("hold"), { json: false })
    .description("run a command while a region is in use, as one that maps the region's file and takes no lease itself")
    .argument("<region>", "id, name (of the model default) or model/name")
    .argument("<command...>", "after --, with its arguments; in them {} is the file's path, as is TENSORD_PATH")
    .action(async (target, command: string[], flags) => process.exit(await hold(toApi(flags), target, command)));

  withApi(program.command("operations"))
    .description("list the copies and such that run, or ended a while ago")
    .option("--model <name>", "only those whose result is in this model")
    .option("--state <state>", "only those running, succeeded, failed or cancelled")
    .addOption(new Option("--cancel <id>", "cancel this one").conflicts(["model", "state"]))
    .action(async (flags) => await print(await operations(toApi(flags), flags, flags.json === true)));

  withApi(program.command("events"))
    .description("follow what happens to regions, sessions, operations and models, one event a line, until Ctrl-C")
    .option("--after <id>", "begin after this event, instead of now")
    .option("--model <name>", "only this model's")
    .option("--session <id>", "only this session's")
    .option("--types <prefixes>", "only types that begin so, comma separated, as region.sealed,model")
    .option("--count <n>", "end after so many")
    .option("--no-follow", "print the kept events, and end")
    .action(async (flags) => await events(toApi(flags), flags, flags.json === true, untilStopped()));

  withApi(program.command("top"))
    .description("watch memory, models, sessions, the largest regions, what drains, and what happens, until Ctrl-C")
    .option("--interval <seconds>", "how often it looks (default 2)")
    .option("--once", "print one look, and end")
    .action(async (flags) => await top(toApi(flags), flags, flags.json === true, untilStopped()));

  withApi(program.command("rm"))
    .description("delete regions: their names at once, their bytes when nobody maps them")
    .argument("<regions...>", "id, name (of the model default) or model/name")
    .option("--wait", "until the bytes are free, telling who still maps them")
    .addOption(
      new Option("--timeout <duration>", "how long --wait waits, as 30s; seconds without a unit").implies({
        wait: true,
      }),
    )
    .action(
      async (targets: string[], flags) =>
        await print(await remove(toApi(flags), targets, flags, flags.json === true, tell)),
    );

  withApi(program.command("free"))
    .description("make room now: of the evictable regions that nobody maps, the least recently used go first")
    .argument("<size>", "how much is to go, as 4GiB; bytes without a unit")
    .option("--model <name>", "only this model's regions")
    .option("--dry-run", "say what would go, and keep it")
    .action(async (size, flags) => {
      const { text, ok } = await free(toApi(flags), size, flags, flags.json === true);
      await print(text);
      if (!ok) process.exit(1);
    });

  withApi(program.command("doctor"))
    .description("what is wrong with this host, or will be, with the cure; also where no server can start")
    .action(async (flags) => {
      const { text, ok } = await doctor(toApi(flags), toConfig(flags), flags.json === true);
      await print(text);
      if (!ok) process.exit(1);
    });

  withSettings(program.command("healthcheck"), locating)
    .description("end with status 0 if the server is ready, for exec probes")
    .option("--url <url>", urlMeaning)
    .option("--live", "ask only whether it answers")
    .action(async (flags) => await print(await healthcheck(toApi(flags), flags.live === true)));

  withSettings(program.command("purge"), ["instance", "shmDirectory", "holderSocket"])
    .description("remove everything of an instance whose server is not running")
    .option("--dry-run", "say what would go, and keep it")
    .option("--json", "print JSON")
    .action(async (flags) => await print(await purge(toConfig(flags), flags.dryRun === true, flags.json === true)));

  program
    .command("completion")
    .description('print what completes commands and options in a shell, as: eval "$(tensord completion bash)"')
    .addArgument(new Argument("<shell>", "which one").choices([...shells]))
    .action(async (shell: Shell) => await print(completion(program, shell)));

  return program;
}

function withSettings(command: Command, names: readonly SettingName[]): Command {
  for (const name of names) {
    const { flag, placeholder, meaning, variable, fallback } = settings[name];
    const description = `${meaning} (${variable}${fallback === "" ? "" : `, default ${fallback}`})`;
    command.addOption(new Option(`${flag} <${placeholder}>`, description.replaceAll("`", "")));
  }
  return command.option("--config <path>", "a YAML file with settings, as port: 7411 (TENSORD_CONFIG)");
}

function withApi(command: Command, { json = true } = {}): Command {
  const reaching = withSettings(command, locating)
    .option("--url <url>", urlMeaning)
    .option("--token-file <path>", tokenMeaning);
  return json ? reaching.option("--json", "print JSON") : reaching;
}

/** What a new region is to be. */
function withTarget(command: Command, ifExists: readonly string[] = ["fail", "attach", "replace"]): Command {
  return command
    .option("--model <name>", "the model (default default)")
    .addOption(
      new Option("--storage <kind>", "what it is made of (default: the first that the server has)").choices([
        ...offeredKinds,
      ]),
    )
    .option("--private", "it has no public name; in memfd none has one")
    .option("--huge-pages <size>", "with --storage memfd: of reserved pages of this size, as 2MiB")
    .option("--ttl <duration>", "it ends after this time, as 30s, 10min, 12h, 7d")
    .option("--linger <duration>", "it ends when nobody has mapped it for this time; 0s: when its consumer lets go")
    .option("--persist", "it ends only when it is deleted")
    .option("--evictable", "once it is sealed and nobody maps it, it may go to make room")
    .addOption(new Option("--on-full <what>", "without room").choices(["fail", "evict", "wait"]))
    .option("--deadline <duration>", "how long --on-full wait waits (default 30s)")
    .addOption(new Option("--if-exists <what>", "if the name is taken").choices([...ifExists]))
    .option("--label <key=value>", "a label; repeatable", gather);
}

/** What is done to an elastic pool, and with what: the first argument decides which options count. */
function withPool(command: Command): Command {
  return command
    .addArgument(new Argument("<action>", "what to do").choices([...poolActions]))
    .argument("<model>", "whose it is")
    .argument("<device>", "the device's UUID")
    .option("--capacity <bytes>", "create: the size of its range, as 128GiB")
    .option("--page-size <bytes>", "create: what is mapped at once (default 64MiB)")
    .option("--minimum <bytes>", "create, change: what is charged for it at least")
    .option("--maximum <bytes>", "create, change: what its pages may take; none: no limit of its own")
    .option("--size <bytes>", "map, unmap: how much, in whole pages")
    .option("--offset <bytes>", "map, unmap: where, in whole pages; map without it takes the first hole that fits")
    .option("--session <id>", "map: the pages go with this session")
    .option("--evictable", "map: the pages may go to make room")
    .addOption(new Option("--on-full <what>", "map: without room").choices(["fail", "evict", "wait"]))
    .option("--deadline <duration>", "map: how long --on-full wait waits (default 30s)")
    .option("--no-wait", "unmap: begin it, and end");
}

/** Collects what a repeatable option was given. */
function gather(value: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, value];
}

type Flags = Readonly<Record<string, string | boolean | undefined>>;

function toConfig(flags: Flags): Config {
  const texts = Object.entries(settings).map(([name, { flag }]) => [name, flags[toAttribute(flag)]]);
  const path = flags.config ?? (process.env.TENSORD_CONFIG || undefined);
  const file = typeof path === "string" ? readSettingsFile(path).texts : {};
  return parseConfig(process.env, Object.fromEntries(texts), file);
}

/** How commander calls a flag's value: `--shm-dir` is `shmDir`. */
function toAttribute(flag: string): string {
  return flag.slice(2).replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function toApi(flags: Flags): Api {
  const url = flags.url ?? (process.env.TENSORD_URL || undefined);
  const file = typeof flags.tokenFile === "string" ? flags.tokenFile : undefined;
  return new Api(toConfig(flags), typeof url === "string" ? url : undefined, findToken(file, process.env));
}

async function serve(config: Config, isEphemeral: boolean): Promise<void> {
  // Loaded here alone: what a server needs takes a command twice the time that it needs itself.
  const { startServer } = await import("../serve.ts");
  const server = await startServer(config);
  const { NOTIFY_SOCKET: serviceManager } = process.env;
  tellServiceManager(serviceManager, "READY=1", `STATUS=ready on ${server.urls.join(" and ")}`);
  const { promise, resolve } = Promise.withResolvers<void>();
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.once(signal, () => resolve());
  // Whoever started it has the other end, which the kernel closes however that process ends.
  if (isEphemeral)
    process.stdin
      .once("end", resolve)
      .once("error", () => resolve())
      .resume();
  await promise;
  tellServiceManager(serviceManager, "STOPPING=1");
  await server.stop();
  if (isEphemeral) await purge(config, false, true);
}
