/** Completion for fish: one `complete` for each command, option and word. */

import type { CommandShape, OptionShape, ProgramShape } from "./shape.ts";

export function toFish({ name, commands, options }: ProgramShape): string {
  const noCommand = "__fish_use_subcommand";
  const lines = [
    // Files are asked for where a path is wanted, and nowhere else.
    `complete -c ${name} -f`,
    ...options.map((option) => `complete -c ${name} -n ${noCommand}${toWords(option)}`),
    ...commands.map(
      (command) => `complete -c ${name} -n ${noCommand} -a ${quote(command.name)} -d ${quote(command.meaning)}`,
    ),
    ...commands.flatMap((command) => toLines(name, command)),
  ];
  return `# fish completion for ${name}: ${name} completion fish | source\n${lines.join("\n")}`;
}

function toLines(program: string, { name, options, words }: CommandShape): readonly string[] {
  const begin = `complete -c ${program} -n ${quote(`__fish_seen_subcommand_from ${name}`)}`;
  const first = words.length === 0 ? [] : [`${begin} -a ${quote(words.join(" "))}`];
  return [...options.map((option) => `${begin}${toWords(option)}`), ...first];
}

function toWords({ flags, meaning, value }: OptionShape): string {
  const names = flags.map((flag) => (flag.startsWith("--") ? ` -l ${flag.slice(2)}` : ` -s ${flag.slice(1)}`));
  return `${names.join("")}${toValue(value)} -d ${quote(meaning)}`;
}

function toValue(value: OptionShape["value"]): string {
  if (value === undefined) return "";
  if (value === "path") return " -r -F";
  return value === "text" ? " -x" : ` -x -a ${quote(value.join(" "))}`;
}

function quote(text: string): string {
  return `'${text.replaceAll(/[\\']/g, "\\$&")}'`;
}
