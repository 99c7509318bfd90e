// Compiles src/ into artifacts/, or, with --check, tells whether these are what the sources compile to, whether forge, where it
// has compiled them for the tests, made the same code of them, and whether the specifications have the gas of snapshots/.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import solc from "solc";

// In a genesis, and what tests and users deploy. Interfaces and libraries are in the ABIs of these.
const contracts = [
  "AtomicVault", "BridgedERC20", "Hub", "Inbox", "Outbox", "TokenBridge", // the genesis
  "SwapPool", "TwinERC20", // references
];
const interfaces = { IBundleParticipant: "AtomicVault", IMessageAttributes: "Outbox", ITwinToken: "TokenBridge" };

const here = (path) => new URL(path, import.meta.url);
const read = (path) => readFileSync(here(path), "utf8");
const sources = Object.fromEntries(
  readdirSync(here("src")).sort().map((name) => [`src/${name}`, { content: read(`src/${name}`) }]),
);
const input = {
  language: "Solidity",
  sources,
  // As foundry.toml has it.
  settings: {
    evmVersion: "prague",
    optimizer: { enabled: true, runs: 10000 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode", "storageLayout"] } },
  },
};
const library = (path) => ({ contents: read(`node_modules/${path}`) });
const output = JSON.parse(solc.compile(JSON.stringify(input), { import: library }));
// 2394 reminds users of transient storage to clear it; OpenZeppelin's guard does.
const problems = (output.errors ?? []).filter(({ errorCode }) => errorCode !== "2394");
for (const problem of problems) console.error(problem.formattedMessage);
if (problems.length > 0) process.exit(1);

const files = {};
for (const name of contracts) {
  const { abi, evm, storageLayout } = output.contracts[`src/${name}.sol`][name];
  const code = evm.deployedBytecode;
  // A genesis holds the code as it is, so nothing may be filled in at deployment.
  const genesis = !["SwapPool", "TwinERC20"].includes(name);
  if (genesis && Object.keys(code.immutableReferences).length > 0) throw new Error(`${name} has immutables`);
  const storage = storageLayout.storage.map(({ label, slot, offset }) => ({ label, slot: Number(slot), offset }));
  files[`${name}.json`] = {
    contractName: name,
    compiler: solc.version(),
    abi,
    bytecode: `0x${evm.bytecode.object}`,
    deployedBytecode: `0x${code.object}`,
    storage,
  };
}
for (const [name, file] of Object.entries(interfaces)) {
  files[`${name}.json`] = { contractName: name, abi: output.contracts[`src/${file}.sol`][name].abi };
}

const folder = here("artifacts/");
const wrong = [];
if (process.argv.includes("--check")) {
  const found = existsSync(folder) ? readdirSync(folder).sort() : [];
  wrong.push(...found.filter((name) => !(name in files)).map((name) => `artifacts/${name} belongs to no contract`));
  for (const [name, artifact] of Object.entries(files)) {
    const text = JSON.stringify(artifact, null, 1) + "\n";
    if (!found.includes(name) || read(`artifacts/${name}`) !== text) wrong.push(`artifacts/${name} is not what src/ compiles to`);
    const forge = `out/${name.replace(".json", ".sol")}/${name}`;
    if (artifact.bytecode && existsSync(here(forge)) && JSON.parse(read(forge)).bytecode.object !== artifact.bytecode) {
      wrong.push(`${forge} is other code than artifacts/${name}`);
    }
  }
  const specs = ["messages", "bundles"].map((name) => read(`../../docs/specs/${name}.md`)).join("");
  for (const [name, gas] of Object.entries(JSON.parse(read("snapshots/transactions.json")))) {
    const row = `| ${name} | ${Number(gas).toLocaleString("en")} |`;
    if (!specs.includes(row)) wrong.push(`docs/specs lacks the row: ${row}`);
  }
} else {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  for (const [name, artifact] of Object.entries(files)) {
    writeFileSync(new URL(name, folder), JSON.stringify(artifact, null, 1) + "\n");
  }
}
if (wrong.length > 0) {
  console.error([...wrong, "to compile again: npm run build, in bridge/contracts"].join("\n"));
  process.exit(1);
}
