// Compiles contracts/Probe.sol into contracts/Probe.json, or, with --check, tells whether that file is what the source
// compiles to.
import { readFileSync, writeFileSync } from "node:fs";
import solc from "solc";

const folder = new URL("contracts/", import.meta.url);
const source = readFileSync(new URL("Probe.sol", folder), "utf8");
const input = {
  language: "Solidity",
  sources: { "Probe.sol": { content: source } },
  settings: {
    evmVersion: "prague",
    optimizer: { enabled: true, runs: 200 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { Probe: ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "storageLayout"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
for (const problem of output.errors ?? []) console.error(problem.formattedMessage);
if (output.errors?.length) process.exit(1);
const { abi, evm } = output.contracts["Probe.sol"].Probe;
const artifact = JSON.stringify({ compiler: solc.version(), abi, bytecode: `0x${evm.bytecode.object}` }, null, 2) + "\n";
const file = new URL("Probe.json", folder);
if (process.argv.includes("--check")) {
  if (readFileSync(file, "utf8") !== artifact) {
    console.error("contracts/Probe.json is not what contracts/Probe.sol compiles to: npm run build");
    process.exit(1);
  }
} else {
  writeFileSync(file, artifact);
}
