/**
 * `Symbol.dispose` on the first releases of Node 20, which lack it, so that `using` works there too. Imported for this
 * effect by what declares a `[Symbol.dispose]`.
 */

if (Symbol.dispose === undefined) Object.defineProperty(Symbol, "dispose", { value: Symbol("Symbol.dispose") });
