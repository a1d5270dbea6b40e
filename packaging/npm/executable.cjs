/** Where the server's executable is: in the optional package for this machine, which npm has installed beside this one. */

"use strict";

function find() {
  try {
    return require.resolve(`@tensord/server-${process.platform}-${process.arch}/tensord`);
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
    return undefined;
  }
}

/** The path, or undefined where npm has installed none. */
exports.executable = find();
