/**
 * Shared libraries that a machine may lack, found by libc's own dlopen(3): it looks where the loader looks and nowhere else.
 * Bun's would look in the working directory at last, and run what lies there under that name.
 */

import assert from "node:assert/strict";
import {
  type Address,
  addressOf,
  type Declarations,
  type Functions,
  linkFunctions,
  loadLibrary,
  readText,
} from "./ffi.ts";

// dlopen(3), <bits/dlfcn.h>.
const RTLD_NOW = 2;

/** The loader does not find the library, or what it finds does not load. */
export class LibraryMissing extends Error {
  override readonly name = "LibraryMissing";
}

/** One library, loaded until the process ends: what has run its own initialiser and may have threads is not taken out again. */
export class OptionalLibrary {
  readonly name: string;
  readonly #handle: bigint;

  private constructor(name: string, handle: bigint) {
    this.name = name;
    this.#handle = handle;
  }

  /**
   * Loads it, which runs its initialisers and may take tens of milliseconds: not for the event loop.
   * @param name the library's soname, `libcuda.so.1`, and no path. @throws LibraryMissing with the loader's own words.
   */
  static open(name: string): OptionalLibrary {
    assert(/^[\w.+-]+$/.test(name), `not a library's name: ${name}`);
    const loader = bindLoader();
    const text = toText(name);
    const handle = loader.dlopen(addressOf(text), RTLD_NOW);
    if (handle === 0n) throw new LibraryMissing(toWords(loader.dlerror(), name));
    return new OptionalLibrary(name, handle);
  }

  /** Those of `symbols` that it does not have. */
  missing(symbols: Iterable<string>): string[] {
    return [...symbols].filter((symbol) => this.#find(symbol) === undefined);
  }

  /** @throws LibraryMissing if it lacks one of them: ask `missing` first. */
  bind<const Symbols extends Declarations>(symbols: Symbols): Functions<Symbols> {
    const found = Object.entries(symbols).map(([symbol, declaration]) => {
      const address = this.#find(symbol);
      if (address === undefined) throw new LibraryMissing(`${this.name} has no ${symbol}`);
      return [symbol, { ...declaration, ptr: address }];
    });
    return linkFunctions(Object.fromEntries(found)) as Functions<Symbols>;
  }

  #find(symbol: string): Address | undefined {
    const text = toText(symbol);
    const address = bindLoader().dlsym(this.#handle, addressOf(text));
    return address === 0n ? undefined : (address as Address);
  }
}

function toText(name: string): Buffer {
  const text = Buffer.alloc(Buffer.byteLength(name) + 1);
  text.write(name);
  return text;
}

function toWords(words: bigint, name: string): string {
  return words === 0n ? `${name}: cannot be loaded` : readText(words as Address);
}

let loader: ReturnType<typeof bindLoaderOf> | undefined;

function bindLoader() {
  loader ??= bindFirst("libc.so.6", "libdl.so.2");
  return loader;
}

/** glibc has had these functions in a library of their own, before 2.34. */
function bindFirst(now: string, before: string) {
  try {
    return bindLoaderOf(now);
  } catch {
    return bindLoaderOf(before);
  }
}

function bindLoaderOf(path: string) {
  return loadLibrary(path, {
    // void *dlopen(const char *filename, int flags);
    dlopen: { args: ["u64", "i32"], returns: "u64" },
    // void *dlsym(void *handle, const char *symbol);
    dlsym: { args: ["u64", "u64"], returns: "u64" },
    // char *dlerror(void);
    dlerror: { args: [], returns: "u64" },
  });
}
