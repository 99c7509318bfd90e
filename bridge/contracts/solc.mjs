#!/usr/bin/env node
// npm's solc with the command line of the native one, as far as forge uses it: no other solc is to be had offline.
import { readFileSync } from "node:fs";
import solc from "solc";

const args = process.argv.slice(2);
if (args.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version().replace("Emscripten.clang", "Linux.g++")}`);
} else if (args.includes("--standard-json")) {
  process.stdout.write(solc.compile(readFileSync(0, "utf8")));
} else {
  console.error(`not supported: ${args.join(" ")}`);
  process.exit(1);
}
