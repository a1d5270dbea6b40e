/** Mistakes in who somebody is, and in what a caller may see and do. */

const access = "src/routes/access";
const server = "src/server/access";

export const accessMutations = [
  {
    name: "another's region may be changed",
    file: `${access}/rights.ts`,
    find: `  return reachOf(caller, operation) !== "own" || isOwn(caller, subject);`,
    replace: "  return true;",
    test: ["tests/contract/access-rights.test.ts", "of what is another's"],
  },
  {
    name: "a region of another model is seen",
    file: `${access}/checks.ts`,
    find: "  if (!mayUse(caller, region.model)) throw regionNotFound(",
    replace: "  if (false) throw regionNotFound(",
    test: ["tests/contract/access-sees.test.ts", "is the same for a region that is not there"],
  },
  {
    name: "a seal takes a name over from anybody",
    file: `${access}/checks.ts`,
    find: "  if (pendingName !== null) checkReplacement(",
    replace: "  if (pendingName === undefined) checkReplacement(",
    test: ["tests/contract/access-sees.test.ts", "by replacing it, also where it got the name"],
  },
  {
    name: "events tell of everything",
    file: "src/memory/events/event-cursor.ts",
    find: "  if (sees?.(event) === false) return false;",
    replace: "",
    test: ["tests/contract/access-sees.test.ts", "events"],
  },
  {
    name: "a token that was taken away goes on where it is",
    file: `${server}/authority.ts`,
    find: "      for (const holder of before) if (!this.#holders.includes(holder)) holder.revoke();",
    replace: "",
    test: ["tests/contract/access-sees.test.ts", "when their token is taken away"],
  },
  {
    name: "a uid makes a wrong token good",
    file: `${server}/authority.ts`,
    find: "    if (token !== undefined) return this.#findByToken(token);",
    replace: "    if (token !== undefined && peer === undefined) return this.#findByToken(token);",
    test: ["tests/unit/authority.test.ts", "no peer makes a wrong one good"],
  },
  {
    name: "tokens may lie in a file that others read",
    file: `${server}/tokens-file.ts`,
    find: "  if ((mode & 0o007) !== 0) return {",
    replace: "  if ((mode & 0o003) !== 0) return {",
    test: ["tests/unit/tokens-file.test.ts", "is refused with the cure"],
  },
  {
    name: "tokens may lie in a file that a strange group reads",
    file: `${server}/tokens-file.ts`,
    find: "  if ((mode & 0o040) !== 0 && !user.gids.includes(gid))",
    replace: "  if ((mode & 0o040) !== 0 && user.gids.length === 0)",
    test: ["tests/unit/tokens-file.test.ts", "is judged by each group"],
  },
  {
    name: "tokens may lie in a file that its group writes",
    file: `${server}/tokens-file.ts`,
    find: "  if ((mode & 0o030) !== 0)",
    replace: "  if ((mode & 0o010) !== 0)",
    test: ["tests/unit/tokens-file.test.ts", "its group may do more than read it"],
  },
  {
    name: "the broker's tickets are good for everybody",
    file: "src/server/broker/conversation.ts",
    find: 'if (caller === undefined || caller.models !== null || !mayEver(caller, "attachRegion")) return "none";',
    replace: 'if (caller === undefined) return "none";',
    test: ["tests/contract/broker-access.test.ts", "goes to nobody else for that"],
  },
];
