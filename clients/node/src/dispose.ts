/**
 * `Symbol.dispose` and `Symbol.asyncDispose` on the first releases of Node 20, which lack them, so that `using` works there
 * too. Imported for this effect by what declares one of them.
 */

for (const name of ["dispose", "asyncDispose"] as const) {
  if (Symbol[name] === undefined) Object.defineProperty(Symbol, name, { value: Symbol(`Symbol.${name}`) });
}
