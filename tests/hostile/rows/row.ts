/** A hostile model file: its name, what it tries, words that its refusal must contain, and the bytes of the whole file. */
export type Row = readonly [file: string, tries: string, words: string, bytes: Uint8Array];
