// The open block of a rollup with one-second sealing, in ethers v6 and viem. On other rollups `pending` is `latest`.
import { ContractFactory, JsonRpcProvider, Wallet } from "ethers";
import { createPublicClient, createWalletClient, defineChain, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { LIMIT, main, ok, probe, same, until, within } from "./lib.mjs";

const UNKNOWN = `0x${"0".repeat(64)}`;
const pending = { blockTag: "pending" };

await main("pending", async (target, step) => {
  const provider = new JsonRpcProvider(target.http, undefined, { pollingInterval: 20, cacheTimeout: -1 });
  const wallet = new Wallet(target.keys[0], provider);
  // Until the block that a receipt names is closed.
  const closed = (hash) =>
    until(async () => {
      const receipt = await provider.getTransactionReceipt(hash);
      return receipt.blockHash !== UNKNOWN && receipt;
    }, "closed block");
  const parts = (r) => [r.blockNumber, r.index, r.status, r.gasUsed, r.cumulativeGasUsed, r.logs.map((l) => [l.index, l.data])];

  step("ethers: deploy, go on at once");
  const deployed = await new ContractFactory(probe.abi, probe.bytecode, wallet).deploy(LIMIT, { value: 7n });
  const deployment = await within(deployed.deploymentTransaction().wait(), "receipt of the deployment");
  same(deployment.status, 1, "status of the deployment");
  const contract = deployed.connect(wallet);
  same(await provider.getBalance(contract.target, "pending"), 7n, "balance of the contract");
  ok((await provider.getCode(contract.target, "pending")).length > 100, "the contract should have code");
  same(await contract.limit(pending), LIMIT, "limit");
  // Its gas is estimated on the state that has the contract, and its nonce is the next.
  const sent = await contract.set(1n, 5n);
  const receipt = await within(sent.wait(), "receipt");
  ok(receipt.logs.length === 1 && /^0x[0-9a-f]{64}$/.test(receipt.blockHash), "the receipt should be whole", receipt);
  same(await contract.values(1n, pending), 5n, "stored value");
  same((await provider.getTransaction(sent.hash)).index, receipt.index, "place of the transaction");

  step("ethers: the block, and what closing adds");
  const block = await provider.getBlock("pending", true);
  ok(block.number >= receipt.blockNumber - 1, "the pending block should be no older", block.number);
  const after = await closed(sent.hash);
  same(parts(after), parts(receipt), "the receipt, but for the block's hash,");
  same((await provider.getBlock(after.blockHash)).number, receipt.blockNumber, "number of the closed block");
  same((await closed(deployment.hash)).blockNumber, deployment.blockNumber, "number of the deployment's block");

  step("viem");
  const chain = defineChain({
    id: target.chainId,
    name: target.name,
    nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [target.http] } },
  });
  const client = createPublicClient({ chain, transport: http(), pollingInterval: 20, cacheTime: 0 });
  const account = privateKeyToAccount(target.keys[0]);
  const writer = createWalletClient({ account, chain, transport: http() });
  const call = { address: contract.target, abi: probe.abi };
  const hash = await writer.writeContract({ ...call, functionName: "set", args: [2n, 6n] });
  const seen = await client.waitForTransactionReceipt({ hash, timeout: 30_000 });
  same([seen.status, seen.logs.length, seen.type], ["success", 1, "eip1559"], "receipt");
  same(await client.readContract({ ...call, ...pending, functionName: "values", args: [2n] }), 6n, "stored value");
  same((await client.getTransaction({ hash })).transactionIndex, seen.transactionIndex, "place of the transaction");
  const open = await client.getBlock({ ...pending, includeTransactions: true });
  ok(open.number >= seen.blockNumber - 1n, "the pending block should be no older", open.number);
  const closedHash = (await closed(hash)).blockHash;
  same((await client.getBlock({ blockHash: closedHash })).number, seen.blockNumber, "number of the closed block");
  provider.destroy();
});
