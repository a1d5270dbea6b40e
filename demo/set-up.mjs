/** What the demo needs beside the server and the clients: a real model, and the library that it is made for. */

import { setUpNodeClient } from "../scripts/lib/node-client.mjs";
import { setUpDemoPackages, setUpPython } from "../scripts/lib/python-packages.mjs";
import { setUpPackages } from "../scripts/lib/server-packages.mjs";

/** Server, clients, weights and library. Takes a fraction of a second when they are there. */
export async function setUpDemo() {
  await setUpPackages();
  await setUpNodeClient();
  await setUpPython();
  await setUpDemoPackages();
}
