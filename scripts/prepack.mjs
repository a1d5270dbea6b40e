/** `npm pack` of the repository: refuses, since npm leaves out the lock file, without which nothing here can be set up. */

console.error(
  "tensord: Cannot pack the repository: npm leaves its lock file out, and what came of it could not be set up. Want `npm run release`, " +
    "which makes the packages in dist/release, or a git clone.",
);
process.exitCode = 1;
