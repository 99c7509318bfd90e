// ethers v6: deploy, call, receipts, events, subscriptions, errors.
import { Contract, ContractFactory, JsonRpcProvider, Network, NonceManager, Wallet, WebSocketProvider, parseEther } from "ethers";
import { LIMIT, inbox, main, ok, probe, refused, same, until, within } from "./lib.mjs";

await main("ethers", async (target, step) => {
  // ethers keeps answers, nonces too, for 250 ms: longer than a block takes here.
  const provider = new JsonRpcProvider(target.http, undefined, { pollingInterval: 100, cacheTimeout: -1 });
  const wallet = new Wallet(target.keys[0], provider);

  step("network");
  same((await provider.getNetwork()).chainId, BigInt(target.chainId), "chain id");
  ok((await provider.getBalance(wallet.address)) > parseEther("1"), "the account should be funded");
  const fees = await provider.getFeeData();
  ok(fees.maxFeePerGas > 0n && fees.maxPriorityFeePerGas !== null, "fees should be suggested", fees);

  step("deploy");
  const factory = new ContractFactory(probe.abi, probe.bytecode, wallet);
  const deployed = await factory.deploy(LIMIT, { value: 7n });
  await within(deployed.waitForDeployment(), "deployment");
  const contract = new Contract(await deployed.getAddress(), probe.abi, wallet);
  const deployment = await provider.getTransactionReceipt(deployed.deploymentTransaction().hash);
  same(deployment.contractAddress, contract.target, "address of the contract");
  same(await provider.getBalance(contract.target), 7n, "balance of the contract");
  ok((await provider.getCode(contract.target)).length > 100, "the contract should have code");

  step("call and transact");
  same(await contract.limit(), LIMIT, "limit");
  same(await contract.set.staticCall(1n, 5n), 1n, "result of a call");
  const gas = await contract.set.estimateGas(1n, 5n);
  const sent = await contract.set(1n, 5n);
  const receipt = await within(sent.wait(), "receipt");
  same(receipt.status, 1, "status");
  ok(receipt.gasUsed <= gas && receipt.gasUsed > 21_000n, `gas used should be at most the estimate ${gas}`, receipt.gasUsed);
  same(await contract.values(1n), 5n, "stored value");
  same(await provider.getStorage(contract.target, 0), `0x${"1".padStart(64, "0")}`, "storage slot 0");

  step("transaction, receipt and block agree");
  const tx = await provider.getTransaction(sent.hash);
  const block = await provider.getBlock(receipt.blockHash, true);
  same([tx.blockHash, tx.index], [receipt.blockHash, receipt.index], "place of the transaction");
  same(block.prefetchedTransactions[receipt.index].hash, sent.hash, "transaction in the block");
  same((await provider.getBlock(receipt.blockNumber)).hash, receipt.blockHash, "block by number");
  same(tx.from, wallet.address, "recovered sender");
  ok(receipt.gasPrice >= block.baseFeePerGas && receipt.gasPrice <= sent.maxFeePerGas, "price paid", receipt.gasPrice);
  const raw = await provider.send("eth_getBlockReceipts", [`0x${receipt.blockNumber.toString(16)}`]);
  same(raw[receipt.index].transactionHash, sent.hash, "block receipts");

  step("events");
  const [event] = await contract.queryFilter(contract.filters.Set(wallet.address), receipt.blockNumber, "latest");
  same([event.args.by, event.args.key, event.args.value], [wallet.address, 1n, 5n], "event");
  same(event.transactionHash, sent.hash, "transaction of the event");
  same(await provider.getLogs({ blockHash: receipt.blockHash, address: contract.target }).then((l) => l.length), 1, "logs by block hash");
  same((await contract.queryFilter(contract.filters.Set(null, 99n), 0, "latest")).length, 0, "events of another key");

  step("polling events");
  const polled = inbox();
  await contract.on("Set", (by, key, value) => polled.push([by, key, value]));
  await within((await contract.set(2n, 6n)).wait(), "receipt");
  await polled.next(([, key]) => key === 2n, "polled event");
  await contract.removeAllListeners();

  step("reverts");
  const reason = await refused(() => contract.set.staticCall(0n, 1n), /key is zero/, "a call with key 0");
  same([reason.code, reason.reason], ["CALL_EXCEPTION", "key is zero"], "reason");
  const custom = await refused(() => contract.set.staticCall(1n, LIMIT + 1n), /AboveLimit/, "a call above the limit");
  same([custom.revert.name, ...custom.revert.args], ["AboveLimit", LIMIT + 1n, LIMIT], "custom error");
  const panic = await refused(() => contract.divide(1n, 0n), /panic|DIVIDE_BY_ZERO|division/i, "a division by zero");
  same([panic.revert?.name, panic.revert?.args[0]], ["Panic", 0x12], "panic");
  await refused(() => contract.set.estimateGas(0n, 1n), /key is zero/, "an estimate of a call that reverts");
  const failing = await contract.set(0n, 1n, { gasLimit: 100_000 });
  const failed = await refused(() => within(failing.wait(), "receipt"), /reverted/, "a transaction that reverts");
  same(failed.receipt.status, 0, "status of a transaction that reverted");

  step("many at once");
  const nonces = new NonceManager(wallet);
  const many = await Promise.all([...Array(10)].map((_, i) => contract.connect(nonces).set(BigInt(10 + i), 1n)));
  const receipts = await within(Promise.all(many.map((t) => t.wait())), "receipts");
  ok(receipts.every((r) => r.status === 1), "all should succeed");
  same(await contract.values(19n), 1n, "last stored value");

  step("transfers");
  const to = Wallet.createRandom().connect(provider);
  for (const type of [0, 1, 2]) {
    const transfer = await wallet.sendTransaction({ to: to.address, value: 5n, type });
    same((await within(transfer.wait(), "receipt")).type, type, "transaction type");
  }
  same(await provider.getBalance(to.address), 15n, "balance of the receiver");

  step("refusals");
  const used = { to: to.address, nonce: 0, gasLimit: 21_000, maxFeePerGas: fees.maxFeePerGas * 2n };
  same((await refused(() => wallet.sendTransaction(used), /nonce/i, "a used nonce")).code, "NONCE_EXPIRED", "code of a used nonce");
  const broke = { to: wallet.address, value: 10n, gasLimit: 21_000 };
  const poor = await refused(() => to.sendTransaction(broke), /insufficient funds/i, "a transfer without funds");
  same(poor.code, "INSUFFICIENT_FUNDS", "code of a transfer without funds");
  await replacement(wallet, provider, to.address);

  step("WebSocket");
  const socket = new WebSocketProvider(target.ws, Network.from(target.chainId), { staticNetwork: true });
  const [heads, events, pending] = [inbox(), inbox(), inbox()];
  await socket.on("block", heads.push);
  await socket.on("pending", pending.push);
  const watched = contract.connect(socket);
  await watched.on("Set", (_by, key, value) => events.push([key, value]));
  // The subscriptions are asked for in the background: they are there once this is answered.
  await until(async () => (await socket.getBlockNumber()) >= receipt.blockNumber, "head over WebSocket");
  const seen = await contract.set(3n, 8n);
  const at = await within(seen.wait(), "receipt");
  await events.next(([key, value]) => key === 3n && value === 8n, "event over WebSocket");
  await heads.next((number) => number >= at.blockNumber, "head over WebSocket");
  await pending.next((hash) => hash === seen.hash, "pending transaction over WebSocket");
  same(await watched.limit(), LIMIT, "a call over WebSocket");
  await socket.destroy();
  provider.destroy();
});

/** A transaction that waits can only be replaced by one that pays more. */
async function replacement(wallet, provider, to) {
  const nonce = await provider.getTransactionCount(wallet.address, "latest");
  const { maxFeePerGas, maxPriorityFeePerGas } = await provider.getFeeData();
  // Nonce + 1 waits for nonce.
  const waiting = { to, value: 1n, nonce: nonce + 1, gasLimit: 21_000, maxFeePerGas: maxFeePerGas * 2n, maxPriorityFeePerGas };
  const first = await wallet.sendTransaction(waiting);
  same((await provider.getTransaction(first.hash)).blockNumber, null, "block of a transaction that waits");
  same(await provider.getTransactionReceipt(first.hash), null, "receipt of a transaction that waits");
  const same_price = await refused(() => wallet.sendTransaction({ ...waiting, value: 2n }), /underpriced/i, "a replacement at the same price");
  same(same_price.code, "REPLACEMENT_UNDERPRICED", "code of a replacement at the same price");
  const better = { ...waiting, value: 3n, maxFeePerGas: maxFeePerGas * 4n, maxPriorityFeePerGas: maxPriorityFeePerGas * 2n + 2n };
  const second = await wallet.sendTransaction(better);
  const filler = await wallet.sendTransaction({ to, value: 1n, nonce, gasLimit: 21_000 });
  await within(filler.wait(), "receipt");
  same((await within(second.wait(), "receipt of the replacement")).status, 1, "status of the replacement");
  same(await provider.getTransactionReceipt(first.hash), null, "receipt of what was replaced");
  same(await provider.getTransactionCount(wallet.address, "pending"), nonce + 2, "next nonce");
}
