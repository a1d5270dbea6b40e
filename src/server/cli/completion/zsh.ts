/** Completion for zsh: what `_arguments` of its own completion system takes. */

import { type CommandShape, type OptionShape, type ProgramShape, quoteWord } from "./shape.ts";

export function toZsh({ name, commands, options }: ProgramShape): string {
  const described = commands.map((command) => quoteWord(`${escapeText(command.name)}:${command.meaning}`));
  return `#compdef ${name}
# zsh completion for ${name}: source <(${name} completion zsh), after compinit
_${name}() {
  local -a commands=(
${described.map((line) => `    ${line}`).join("\n")}
  )
  if ((CURRENT == 2)); then
    if [[ $words[2] == -* ]]; then
      _arguments${toSpecs(options)}
    else
      _describe command commands
    fi
    return
  fi
  shift words
  ((CURRENT--))
  case $words[1] in
${commands.map(toCase).join("\n")}
  esac
}
if [[ $funcstack[1] == _${name} ]]; then
  _${name} "$@"
else
  compdef _${name} ${name}
fi`;
}

function toCase({ name, options, words }: CommandShape): string {
  const first = words.length === 0 ? "" : ` \\\n        ${quoteWord(`1: :(${words.join(" ")})`)}`;
  return `    ${name})
      _arguments${toSpecs(options)}${first}
      ;;`;
}

function toSpecs(options: readonly OptionShape[]): string {
  return options.map((option) => ` \\\n        ${toSpec(option)}`).join("");
}

function toSpec({ flags, meaning, value, isRepeatable }: OptionShape): string {
  const others = isRepeatable || flags.length === 1 ? "" : `(${flags.join(" ")})`;
  const text = `[${escapeText(meaning)}]${toAction(value)}`;
  const star = isRepeatable ? "*" : "";
  // The flags of one option, so that whichever is there keeps the other from being offered.
  return flags.map((flag) => quoteWord(`${others}${star}${flag}${value === undefined ? "" : "="}${text}`)).join(" ");
}

function toAction(value: OptionShape["value"]): string {
  if (value === undefined) return "";
  if (value === "path") return ":path:_files";
  return value === "text" ? ":value: " : `:value:(${value.join(" ")})`;
}

/** Of a word of `_arguments`, what would end a description. */
function escapeText(text: string): string {
  return text.replaceAll(/[\\[\]:]/g, "\\$&");
}
