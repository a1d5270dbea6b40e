/** A file of tokens for a test, and who reads it: written again, it is read again. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Store } from "../../src/memory/state/store.ts";
import { Authority } from "../../src/server/access/authority.ts";

/** A token that the format takes, and that says whose it is. */
export function tokenOf(name: string): string {
  return `${name}-${"0123456789abcdef".repeat(2)}`;
}

/** A file of mode 0600 in a folder of its own. */
export class TokensPath implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "tensord-tokens-"));
  readonly path = join(this.#folder, "tokens.json");

  constructor(lines: readonly object[]) {
    this.write(lines);
  }

  write(lines: readonly object[]): void {
    writeFileSync(this.path, JSON.stringify({ tokens: lines }), { mode: 0o600 });
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true });
  }
}

export class TokensFile implements Disposable {
  readonly #path: TokensPath;
  readonly authority: Authority;
  /** What was told of the file. */
  readonly told: string[] = [];
  readonly authenticate;

  constructor(lines: readonly object[], store: Store) {
    this.#path = new TokensPath(lines);
    this.authority = new Authority(this.#path.path, (message) => this.told.push(message));
    this.authenticate = (header: string | undefined) => this.authority.authenticateHeader(header);
    store.listen((event) => event.type === "tensord.session.ended" && this.authority.revoke(event.session.token));
  }

  /** Writes other lines, and has them read. */
  rewrite(lines: readonly object[]): void {
    this.#path.write(lines);
    this.authority.look();
  }

  [Symbol.dispose](): void {
    this.authority[Symbol.dispose]();
    this.#path[Symbol.dispose]();
  }
}
