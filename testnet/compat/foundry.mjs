// Foundry: cast, forge create and forge script --broadcast.
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { LIMIT, main, ok, probe, refused, same, until } from "./lib.mjs";
import { tool } from "./tools.mjs";

const run = promisify(execFile);
const here = (path) => new URL(path, import.meta.url).pathname;

await main("foundry", async (target, step) => {
  // A project of its own for each run: nothing is written beside the sources.
  const project = mkdtempSync(join(tmpdir(), "compat-"));
  process.once("exit", () => rmSync(project, { recursive: true, force: true }));
  cpSync(here("foundry"), project, { recursive: true });
  mkdirSync(join(project, "src"));
  cpSync(here("contracts/Probe.sol"), join(project, "src", "Probe.sol"));
  const env = { ...process.env, HOME: project, FOUNDRY_DISABLE_NIGHTLY_WARNING: "1", NO_COLOR: "1" };
  const [key, from] = [target.keys[0], target.addresses[0]];
  const call = async (name, args) => (await run(tool(name), args, { cwd: project, env, timeout: 120_000 })).stdout.trim();
  const cast = (command, ...args) => call("cast", [command, "--rpc-url", target.http, ...args]);
  const forge = (...args) => call("forge", args);
  const send = async (...args) => JSON.parse(await cast("send", "--private-key", key, "--json", ...args));
  const onChain = ["--rpc-url", target.http, "--private-key", key, "--use", here("solc.mjs"), "--broadcast"];

  step("network");
  same(await cast("chain-id"), String(target.chainId), "chain id");
  ok(/\S/.test(await cast("client")), "client version");
  ok(BigInt(await cast("balance", from)) > 0n, "the account should be funded");
  ok(BigInt(await cast("gas-price")) > 0n && BigInt(await cast("base-fee")) >= 0n, "fees");

  step("forge create");
  const create = ["create", ...onChain, "--json", "src/Probe.sol:Probe", "--constructor-args", String(LIMIT)];
  const created = JSON.parse(await forge(...create));
  const built = JSON.parse(readFileSync(join(project, "out", "Probe.sol", "Probe.json"), "utf8"));
  same(built.bytecode.object, probe.bytecode, "bytecode built by forge");
  const address = created.deployedTo;
  const deployment = JSON.parse(await cast("receipt", "--json", created.transactionHash));
  same(deployment.contractAddress.toLowerCase(), address.toLowerCase(), "address of the contract");
  same(deployment.status, "0x1", "status of the deployment");
  ok((await cast("code", address)).length > 100, "the contract should have code");

  step("call, estimate, send");
  same(await cast("call", address, "limit()(uint256)"), String(LIMIT), "limit");
  const gas = BigInt(await cast("estimate", "--from", from, address, "set(uint256,uint256)", "1", "5"));
  const receipt = await send(address, "set(uint256,uint256)", "1", "5");
  same(receipt.status, "0x1", "status");
  ok(BigInt(receipt.gasUsed) <= gas, `gas used should be at most the estimate ${gas}`, receipt.gasUsed);
  same(await cast("call", address, "values(uint256)(uint256)", "1"), "5", "stored value");
  same(BigInt(await cast("storage", address, "0")), 1n, "storage slot 0");
  for (const form of [["--legacy"], ["--gas-price", "20gwei", "--priority-gas-price", "1gwei"]]) {
    same((await send(...form, "--value", "1", from)).status, "0x1", `status with ${form[0]}`);
  }
  const raw = await cast("mktx", "--private-key", key, address, "set(uint256,uint256)", "2", "6");
  same(JSON.parse(await cast("publish", raw)).status, "0x1", "status of a published transaction");

  step("block, transaction, receipt, logs, proof");
  const hash = receipt.transactionHash;
  same(JSON.parse(await cast("receipt", "--json", hash)).blockHash, receipt.blockHash, "block of the receipt");
  const block = JSON.parse(await cast("block", "--json", receipt.blockHash));
  ok(block.transactions.includes(hash), "the block should hold the transaction", block.transactions);
  same(JSON.parse(await cast("block", "--json", String(Number(receipt.blockNumber)))).hash, receipt.blockHash, "block by number");
  for (const tag of ["latest", "safe", "finalized", "earliest"]) {
    ok(JSON.parse(await cast("block", "--json", tag)).hash, `block ${tag}`);
  }
  same(JSON.parse(await cast("tx", "--json", hash)).blockHash, receipt.blockHash, "block of the transaction");
  ok(BigInt(await cast("block-number")) >= BigInt(receipt.blockNumber), "block number");
  const filter = ["--from-block", "earliest", "--address", address, "Set(address indexed,uint256 indexed,uint256)"];
  const logs = JSON.parse(await cast("logs", "--json", ...filter));
  same(logs.map((l) => BigInt(l.topics[2])), [1n, 2n], "keys of the logs");
  same(BigInt(JSON.parse(await cast("proof", address, "0")).storageProof[0].value), 2n, "proven count");

  step("reverts");
  await refused(() => cast("call", address, "set(uint256,uint256)", "0", "1"), /key is zero/, "a call with key 0");
  await refused(() => send(address, "set(uint256,uint256)", "0", "1"), /key is zero/, "a transaction with key 0");
  const failed = await send("--gas-limit", "100000", address, "set(uint256,uint256)", "0", "1").catch((e) => JSON.parse(e.stdout));
  same(failed.status, "0x0", "status of a transaction that reverts");
  await refused(() => send("--nonce", "0", "--gas-limit", "21000", from), /nonce too low/i, "a used nonce");

  step("forge script --broadcast");
  await forge("script", ...onChain, "script/Deploy.s.sol:Deploy");
  const folder = join(project, "broadcast", "Deploy.s.sol", String(target.chainId));
  ok(readdirSync(folder).includes("run-latest.json"), "the broadcast should be recorded");
  const { transactions, receipts } = JSON.parse(readFileSync(join(folder, "run-latest.json"), "utf8"));
  same([transactions.length, receipts.map((r) => r.status)], [5, Array(5).fill("0x1")], "transactions of the script");
  const scripted = receipts[0].contractAddress;
  same(await cast("call", scripted, "count()(uint256)"), "3", "count");
  same(await cast("balance", scripted), "3", "balance of the contract");

  step("WebSocket");
  const ws = (command, ...args) => call("cast", [command, "--rpc-url", target.ws, ...args]);
  same(await ws("chain-id"), String(target.chainId), "chain id");
  const sent = JSON.parse(await ws("send", "--private-key", key, "--json", "--value", "1", from));
  same(await until(() => cast("receipt", sent.transactionHash, "blockHash"), "receipt"), sent.blockHash, "block hash");

  if (target.others.length > 0) {
    step("another validator");
    const there = await until(() => call("cast", ["receipt", "--rpc-url", target.others[0], hash, "blockHash"]), "receipt");
    same(there, receipt.blockHash, "block hash at another validator");
  }
});
