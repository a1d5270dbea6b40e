/**
 * Whether systemd-logind removes a user's shared memory when the user logs out, from its configuration files
 * (logind.conf(5)). It is given a way to read and opens nothing.
 */

/** Where systemd looks, the strongest first. */
const folders = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"] as const;

export interface LogindFiles {
  /** Text of a file, or undefined if it cannot be read. */
  readonly read: (path: string) => string | undefined;
  /** Names in a directory; none if it is not there. */
  readonly list: (path: string) => readonly string[];
}

/** RemoveIPC as the files say it; it is on unless they turn it off. */
export function readRemoveIpc({ read, list }: LogindFiles): boolean {
  const main = folders.map((folder) => read(`${folder}/logind.conf`)).find((text) => text !== undefined);
  const dropIns = new Map<string, string>();
  for (const folder of folders) {
    const path = `${folder}/logind.conf.d`;
    for (const name of list(path)) {
      // A file of a stronger folder hides the one of the same name in a weaker one.
      if (name.endsWith(".conf") && !dropIns.has(name)) dropIns.set(name, `${path}/${name}`);
    }
  }
  const later = [...dropIns].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, path]) => read(path));
  return [main, ...later].reduce((value, text) => parseRemoveIpc(text ?? "") ?? value, true);
}

/** The last `RemoveIPC=` of the section `[Login]`, or undefined if it has none that can be read. */
export function parseRemoveIpc(text: string): boolean | undefined {
  let section = "";
  let value: boolean | undefined;
  for (const line of text.split("\n").map((part) => part.trim())) {
    if (line.startsWith("[")) section = line;
    const match = section === "[Login]" ? /^RemoveIPC\s*=\s*(\w+)$/.exec(line) : null;
    const word = match?.[1]?.toLowerCase() ?? "";
    if (["1", "yes", "y", "true", "t", "on"].includes(word)) value = true;
    if (["0", "no", "n", "false", "f", "off"].includes(word)) value = false;
  }
  return value;
}
