#!/usr/bin/env node
/** Starts the server's executable and becomes invisible: same streams, same signals, same exit status. */

import { spawn } from "node:child_process";
import { constants } from "node:os";
import { executable } from "./executable.cjs";

/** A signal again within this time is the same one, which npm or the terminal has sent as well. */
const echoMs = 250;

if (executable === undefined) {
  console.error(
    `tensord: Cannot start: there is no executable for ${process.platform} ${process.arch}, want Linux with glibc on x64 or arm64. ` +
      "If this is one, install again with optional packages: npm install --include=optional tensord",
  );
  process.exit(1);
}

// In a session of its own, it gets each signal once, from us: a second one would mean to stop at once.
const child = spawn(executable, process.argv.slice(2), { stdio: "inherit", detached: true });
const last = new Map();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR2"]) {
  process.on(signal, () => {
    const now = performance.now();
    if (now - (last.get(signal) ?? -echoMs) < echoMs) return;
    last.set(signal, now);
    child.kill(signal);
  });
}
child.once("error", (error) => {
  console.error(`tensord: Cannot start ${executable}: ${error.message}`);
  process.exit(1);
});
child.once("exit", (code, signal) => process.exit(signal === null ? code : 128 + constants.signals[signal]));
