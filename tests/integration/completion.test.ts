/** `tensord completion`: what real shells offer once they have read its script, and that it is what the command line has. */

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createProgram } from "../../src/server/cli/program.ts";
import { testWith } from "../harness/instance-needs.ts";
import { runTensord } from "../harness/server-command.ts";
import { within } from "../harness/server-wait.ts";

const folder = mkdtempSync(join(tmpdir(), "tensord-completion-"));
afterAll(() => rmSync(folder, { recursive: true }));

const needsShell = (name: string) => (Bun.which(name) === null ? `needs ${name}` : undefined);

const paths = new Map<string, Promise<string>>();

/** The script as the command prints it, in a file. */
function scriptFor(shell: string): Promise<string> {
  const path = paths.get(shell) ?? writeScript(shell);
  paths.set(shell, path);
  return path;
}

async function writeScript(shell: string): Promise<string> {
  const { status, stdout, stderr } = await runTensord(["completion", shell], {});
  expect([status, stderr]).toEqual([0, ""]);
  const path = join(folder, `tensord.${shell}`);
  writeFileSync(path, stdout);
  return path;
}

async function ask(command: readonly string[]): Promise<string[]> {
  const child = Bun.spawn([...command], { cwd: folder, env: { ...process.env, HOME: folder }, stderr: "pipe" });
  try {
    const [stdout, stderr, status] = await within(
      `${command[0]} ends`,
      Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]),
    );
    expect([status, stderr]).toEqual([0, ""]);
    return stdout.split("\n").filter((line) => line !== "");
  } finally {
    child.kill("SIGKILL");
  }
}

/** What bash offers at the end of `line`, in words as readline splits it. */
async function inBash(words: readonly string[]): Promise<string[]> {
  const path = await scriptFor("bash");
  // Outside of a completion there is no compopt.
  const program = `source "$1"; shift; compopt() { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tensord
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  return await ask(["bash", "--norc", "-c", program, "bash", path, ...words]);
}

async function inFish(line: string): Promise<string[]> {
  const path = await scriptFor("fish");
  const offers = await ask(["fish", "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", path, line]);
  return offers.map((offer) => offer.split("\t")[0] ?? "");
}

const program = createProgram();
const help = program.createHelp();
const commands = help.visibleCommands(program);
const flagsOf = (command: (typeof commands)[number]) =>
  help.visibleOptions(command).flatMap(({ short, long }) => [short, long].filter((flag) => flag !== undefined));

describe("bash", () => {
  testWith(needsShell("bash"))("offers every command, and each its own options", async () => {
    const first = await inBash(["tensord", ""]);
    expect(first).toEqual(expect.arrayContaining(commands.map((command) => command.name())));
    expect(await inBash(["tensord", "he"])).toEqual(["healthcheck", "help"]);
    for (const command of commands) {
      const offered = await inBash(["tensord", command.name(), "-"]);
      expect({ command: command.name(), offered }).toEqual({ command: command.name(), offered: flagsOf(command) });
    }
  });

  testWith(needsShell("bash"))("offers an option's choices, with a space and with =, and no flag instead", async () => {
    expect(await inBash(["tensord", "ls", "--sort", ""])).toEqual(["size", "age", "used", "name"]);
    expect(await inBash(["tensord", "ls", "--sort", "=", "s"])).toEqual(["size"]);
    expect(await inBash(["tensord", "ls", "--sort", "="])).toEqual(["size", "age", "used", "name"]);
    expect(await inBash(["tensord", "ls", "--model", "-"])).toEqual([]);
    expect(await inBash(["tensord", "completion", ""])).toEqual(["bash", "zsh", "fish"]);
  });

  testWith(needsShell("bash"))(
    "offers files where a path is wanted, those with spaces too, and nowhere else",
    async () => {
      writeFileSync(join(folder, "my settings.yaml"), "");
      expect(await inBash(["tensord", "serve", "--config", "my"])).toEqual(["my settings.yaml"]);
      expect(await inBash(["tensord", "ls", "my"])).toEqual([]);
    },
  );
});

describe("fish", () => {
  testWith(needsShell("fish"))("offers commands, options, choices, and files where a path is wanted", async () => {
    expect(await inFish("tensord he")).toEqual(["healthcheck", "help"]);
    for (const command of commands) {
      const long = flagsOf(command).filter((flag) => flag.startsWith("--"));
      expect((await inFish(`tensord ${command.name()} --`)).toSorted()).toEqual(long.toSorted());
    }
    expect((await inFish("tensord ls --sort ")).toSorted()).toEqual(["age", "name", "size", "used"]);
    writeFileSync(join(folder, "settings.yaml"), "");
    expect(await inFish("tensord serve --config sett")).toEqual(["settings.yaml"]);
    expect(await inFish("tensord ls sett")).toEqual([]);
  });
});

describe("zsh", () => {
  /** Types the line into a zsh at a terminal of its own, with a tab behind it, and waits for what has to come. */
  const driver = `zmodload zsh/zpty
    zpty shell zsh -f -i
    zpty -w shell "autoload -Uz compinit; compinit -D -u; source $1; unsetopt beep; PS1='ready '; echo a''wake"
    zpty -r shell out '*awake*ready '
    zpty -w -n shell "$2"$'\\t'
    zpty -r shell out "*$3*"
    print -r -- "$3"
    zpty -d shell`;

  for (const [line, offer] of [
    ["tensord hea", "healthcheck"],
    ["tensord alloc --sto", "--storage"],
    ["tensord ls --sort=n", "--sort=name"],
    ["tensord completion f", "fish"],
  ] as const) {
    testWith(needsShell("zsh"))(`makes ${offer} of ${JSON.stringify(line)}`, async () => {
      const path = await scriptFor("zsh");
      expect(
        await ask(["zsh", "-f", "-c", driver, "zsh", path, line, offer.slice(line.split(" ").at(-1)?.length)]),
      ).not.toBeEmpty();
    });
  }
});

test("the command refuses another shell, and names those that it knows", async () => {
  const { status, stdout, stderr } = await runTensord(["completion", "tcsh"], {});
  expect([status, stdout]).toEqual([1, ""]);
  expect(stderr).toContain("bash, zsh, fish");
});
