/** Words of which many are equal, each kept once for as long as something refers to it; a number stands for it, and 0 for none. */
export class KeptWords {
  readonly #numbers = new Map<string, number>();
  readonly #words: (string | undefined)[] = [undefined];
  readonly #uses: number[] = [0];
  readonly #free: number[] = [];

  /** @returns what stands for `word` until it was given to `release` as often as it was taken. */
  take(word: string | null | undefined): number {
    if (word == null) return 0;
    const number = this.#numbers.get(word) ?? this.#add(word);
    this.#uses[number] = (this.#uses[number] ?? 0) + 1;
    return number;
  }

  #add(word: string): number {
    const number = this.#free.pop() ?? this.#words.length;
    this.#words[number] = word;
    this.#uses[number] = 0;
    this.#numbers.set(word, number);
    return number;
  }

  at(number: number): string | null {
    return this.#words[number] ?? null;
  }

  release(number: number): void {
    if (number === 0) return;
    const uses = (this.#uses[number] ?? 0) - 1;
    this.#uses[number] = uses;
    if (uses > 0) return;
    this.#numbers.delete(this.#words[number] ?? "");
    this.#words[number] = undefined;
    this.#free.push(number);
  }

  /** How many different words are kept. */
  get size(): number {
    return this.#numbers.size;
  }
}
