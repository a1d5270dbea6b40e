/** The command line: which commands and options there are. What they do stands beside it. */

import { Command, Option } from "commander";
import packageJson from "../../../package.json" with { type: "json" };
import { type Config, parseConfig, type SettingName, settings } from "../config.ts";
import { startServer } from "../serve.ts";
import { Api } from "./api.ts";
import { list, remove, status } from "./commands.ts";
import { purge } from "./purge.ts";

const locating: readonly SettingName[] = ["instance", "shmDirectory", "socket"];

/** @returns the program, to be given the arguments. Its actions write to standard output. */
export function createProgram(): Command {
  const program = new Command("tensord")
    .description("One copy of every tensor per machine.")
    .version(packageJson.version)
    .showHelpAfterError("(add --help for the options)");

  withSettings(program.command("serve"), Object.keys(settings) as SettingName[])
    .description("run the server until it is told to stop (SIGTERM, SIGINT)")
    .action(async (flags) => serve(toConfig(flags)));

  withApi(program.command("status"))
    .description("memory, regions and models of a running server")
    .action(async (flags) => await print(await status(toApi(flags), flags.json === true)));

  withApi(program.command("ls"))
    .description("list regions")
    .option("--model <name>", "only this model's")
    .option("--state <state>", "only those open, sealed, draining, …")
    .option("--label <key=value>", "only those with this label")
    .action(async (flags) => {
      const { model, state, label } = flags;
      const options = { ...(model && { model }), ...(state && { state }), ...(label && { label }) };
      await print(await list(toApi(flags), options, flags.json === true));
    });

  withApi(program.command("rm"))
    .description("delete regions: their names at once, their bytes when nobody maps them")
    .argument("<regions...>", "id, name (of the model default) or model/name")
    .action(async (targets: string[], flags) => await print(await remove(toApi(flags), targets, flags.json === true)));

  withSettings(program.command("purge"), ["instance", "shmDirectory"])
    .description("remove everything of an instance whose server is not running")
    .option("--dry-run", "say what would go, and keep it")
    .option("--json", "print JSON")
    .action(async (flags) => await print(purge(toConfig(flags), flags.dryRun === true, flags.json === true)));

  return program;
}

function withSettings(command: Command, names: readonly SettingName[]): Command {
  for (const name of names) {
    const { flag, placeholder, meaning, variable, fallback } = settings[name];
    const description = `${meaning} (${variable}${fallback === "" ? "" : `, default ${fallback}`})`;
    command.addOption(new Option(`${flag} <${placeholder}>`, description.replaceAll("`", "")));
  }
  return command;
}

function withApi(command: Command): Command {
  return withSettings(command, locating)
    .option("--url <url>", "the server: unix:///path or http://host:port (TENSORD_URL)")
    .option("--json", "print JSON");
}

type Flags = Readonly<Record<string, string | boolean | undefined>>;

function toConfig(flags: Flags): Config {
  const texts = Object.entries(settings).map(([name, { flag }]) => [name, flags[toAttribute(flag)]]);
  return parseConfig(process.env, Object.fromEntries(texts));
}

/** How commander calls a flag's value: `--shm-dir` is `shmDir`. */
function toAttribute(flag: string): string {
  return flag.slice(2).replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function toApi(flags: Flags): Api {
  const url = flags.url ?? (process.env.TENSORD_URL || undefined);
  return new Api(toConfig(flags), typeof url === "string" ? url : undefined);
}

/** Resolves once it is written: the process exits right after, and a pipe may be slow. */
async function print(text: string): Promise<void> {
  await Bun.write(Bun.stdout, `${text}\n`);
}

async function serve(config: Config): Promise<void> {
  const server = await startServer(config);
  const { promise, resolve } = Promise.withResolvers<void>();
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.once(signal, () => resolve());
  await promise;
  await server.stop();
}
