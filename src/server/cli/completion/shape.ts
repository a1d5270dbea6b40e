/** What there is to complete, as plain data: read from commander, which therefore stays the only list of commands and options. */

import type { Command, Option } from "commander";

/** What may follow: `path` is a file's, `text` nothing that a shell could know, a list these words alone. */
export type Value = "path" | "text" | readonly string[];

export interface OptionShape {
  /** As they are typed, the short one first: `-h`, `--help`. */
  readonly flags: readonly string[];
  readonly meaning: string;
  /** Undefined where the option stands by itself. */
  readonly value: Value | undefined;
  readonly isRepeatable: boolean;
}

export interface CommandShape {
  readonly name: string;
  readonly meaning: string;
  readonly options: readonly OptionShape[];
  /** The words that its first argument may be; none where they are not known. */
  readonly words: readonly string[];
}

export interface ProgramShape extends CommandShape {
  readonly commands: readonly CommandShape[];
}

/** @param program what `createProgram` makes; what its help does not show is not completed. */
export function readShape(program: Command): ProgramShape {
  const commands = program.createHelp().visibleCommands(program);
  return { ...readCommand(program), commands: commands.map(readCommand) };
}

function readCommand(command: Command): CommandShape {
  const help = command.createHelp();
  return {
    name: command.name(),
    meaning: command.description(),
    options: help.visibleOptions(command).map(readOption),
    words: help.visibleArguments(command)[0]?.argChoices ?? [],
  };
}

function readOption(option: Option): OptionShape {
  return {
    flags: [option.short, option.long].filter((flag) => typeof flag === "string"),
    meaning: option.description,
    value: option.required || option.optional ? readValue(option) : undefined,
    // What is made of a value's text is what collects several of them; choices are commander's own check of one.
    isRepeatable: option.parseArg !== undefined && option.argChoices === undefined,
  };
}

function readValue({ argChoices, flags }: Option): Value {
  return argChoices ?? (/<path>/.test(flags) ? "path" : "text");
}

/** As one word of a POSIX shell, which zsh reads in the same way. */
export function quoteWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
