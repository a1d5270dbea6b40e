/** Completion for bash (4.4 or newer), without the functions of the package bash-completion, which not every host has. */

import { type CommandShape, type OptionShape, type ProgramShape, quoteWord } from "./shape.ts";

export function toBash(program: ProgramShape): string {
  const { name, commands } = program;
  const top = [...commands.map((command) => command.name), ...flagsOf(program.options)];
  return `# bash completion for ${name}: eval "$(${name} completion bash)"
_${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} command=\${COMP_WORDS[1]}
  # bash takes --sort=size for three words.
  if [[ $current == = ]]; then
    current=
  elif [[ $previous == = ]]; then
    previous=\${COMP_WORDS[COMP_CWORD - 2]}
  fi
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W ${toList(top)} -- "$current")
    return
  fi
  local flags= words= paths=
  case $command in
${commands.map(toCase).join("\n")}
  esac
  case $command:$previous in
${commands.flatMap(toValueCases).join("\n")}
  esac
  if [[ -n $paths ]]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  elif [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  fi
}
complete -F _${name} ${name}`;
}

const flagsOf = (options: readonly OptionShape[]): readonly string[] => options.flatMap(({ flags }) => flags);
const toList = (words: readonly string[]): string => quoteWord(words.join(" "));

function toCase({ name, options, words }: CommandShape): string {
  return `    ${name}) flags=${toList(flagsOf(options))} words=${toList(words)} ;;`;
}

/** After an option with a value comes that value, and no flag. */
function toValueCases({ name, options }: CommandShape): readonly string[] {
  return options.flatMap(({ flags, value }) => {
    if (value === undefined) return [];
    const pattern = flags.map((flag) => `${name}:${flag}`).join(" | ");
    if (value === "path") return [`    ${pattern}) paths=yes ;;`];
    return [`    ${pattern}) flags= words=${value === "text" ? "" : toList(value)} ;;`];
  });
}
