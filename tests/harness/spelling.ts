/** How a key of JSON that we write is spelled: in an answer, an event, a problem, a line of the log. */

export function isSnakeCase(key: string): boolean {
  return /^[a-z][a-z0-9]*(_[a-z0-9]+)*$/.test(key);
}
