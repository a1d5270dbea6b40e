/**
 * Stops with a sentence when Node is too old for the rest of the scripts. Entry files import this first and everything
 * else dynamically, because an old Node fails on newer syntax before it runs a single line. Keep this file plain.
 */

const minimum = 20;
const major = Number(process.versions.node.split(".")[0]);

if (major < minimum) {
  console.error(
    "tensord: cannot start: this is Node " +
      process.versions.node +
      ", want Node " +
      minimum +
      " or newer. " +
      "Install it from https://nodejs.org or with your version manager, and run the command again.",
  );
  process.exit(1);
}
