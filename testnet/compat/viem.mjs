// viem: deploy, call, receipts, events, filters, subscriptions, delegation (EIP-7702), errors.
import {
  BaseError,
  ContractFunctionRevertedError,
  createPublicClient,
  createWalletClient,
  defineChain,
  http,
  maxUint256,
  toHex,
  webSocket,
} from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { LIMIT, inbox, main, ok, probe, refused, same, within } from "./lib.mjs";

const { abi, bytecode } = probe;

await main("viem", async (target, step) => {
  const chain = defineChain({
    id: target.chainId,
    name: target.name,
    nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [target.http], webSocket: [target.ws] } },
  });
  const account = privateKeyToAccount(target.keys[0]);
  const client = createPublicClient({ chain, transport: http(undefined, { batch: true }), pollingInterval: 100, cacheTime: 0 });
  const wallet = createWalletClient({ account, chain, transport: http() });
  const receiptOf = (hash) => client.waitForTransactionReceipt({ hash, timeout: 30_000 });

  step("network");
  same(await client.getChainId(), target.chainId, "chain id");
  ok((await client.getBalance({ address: account.address })) > 0n, "the account should be funded");

  step("deploy");
  const deployment = await receiptOf(await wallet.deployContract({ abi, bytecode, args: [LIMIT] }));
  same(deployment.status, "success", "status of the deployment");
  const address = deployment.contractAddress;
  ok((await client.getCode({ address })).length > 100, "the contract should have code");
  const contract = { address, abi };

  step("call and transact");
  same(await client.readContract({ ...contract, functionName: "limit" }), LIMIT, "limit");
  const { request, result } = await client.simulateContract({ ...contract, account, functionName: "set", args: [1n, 5n] });
  same(result, 1n, "simulated result");
  const receipt = await receiptOf(await wallet.writeContract(request));
  same([receipt.status, receipt.type], ["success", "eip1559"], "status and type");
  same(await client.readContract({ ...contract, functionName: "values", args: [1n] }), 5n, "stored value");
  same(
    await client.readContract({ ...contract, functionName: "values", args: [1n], blockNumber: receipt.blockNumber - 1n }),
    0n,
    "value before the transaction",
  );
  same(BigInt(await client.getStorageAt({ address, slot: "0x0" })), 1n, "storage slot 0");
  const overridden = { stateOverride: [{ address, stateDiff: [{ slot: toHex(0, { size: 32 }), value: toHex(77, { size: 32 }) }] }] };
  same(await client.readContract({ ...contract, functionName: "count", ...overridden }), 77n, "count with an override");

  step("transaction, receipt and block agree");
  const tx = await client.getTransaction({ hash: receipt.transactionHash });
  const block = await client.getBlock({ blockHash: receipt.blockHash, includeTransactions: true });
  same(block.transactions[receipt.transactionIndex].hash, tx.hash, "transaction in the block");
  same([tx.blockNumber, tx.chainId], [receipt.blockNumber, target.chainId], "place of the transaction");
  same(await client.getTransactionConfirmations({ transactionReceipt: receipt }).then((n) => n >= 1n), true, "confirmed");
  for (const blockTag of ["latest", "safe", "finalized", "earliest"]) {
    ok((await client.getBlock({ blockTag })).hash, `block ${blockTag}`);
  }

  step("fees");
  const fees = await client.estimateFeesPerGas();
  ok(fees.maxFeePerGas > fees.maxPriorityFeePerGas, "fees should be suggested", fees);
  const history = await client.getFeeHistory({ blockCount: 3, rewardPercentiles: [25, 75] });
  ok(history.baseFeePerGas.length === history.gasUsedRatio.length + 1, "fee history", history);
  same(history.reward.length, history.gasUsedRatio.length, "rewards");
  ok((await client.getGasPrice()) > 0n, "gas price");

  step("events and filters");
  const [event] = await client.getContractEvents({ ...contract, eventName: "Set", fromBlock: 0n, args: { key: 1n } });
  same([event.args.by, event.args.value, event.transactionHash], [account.address, 5n, tx.hash], "event");
  const filter = await client.createContractEventFilter({ ...contract, eventName: "Set", args: { key: [2n, 3n] } });
  const blocks = await client.createBlockFilter();
  const set = async (...args) => receiptOf(await wallet.writeContract({ ...contract, functionName: "set", args }));
  await set(2n, 6n);
  await set(4n, 6n);
  const changed = await client.getFilterChanges({ filter });
  same(changed.map((l) => l.args.key), [2n], "changes of a log filter");
  same(await client.getFilterChanges({ filter }), [], "changes of a log filter, again");
  ok((await client.getFilterChanges({ filter: blocks })).length >= 1, "changes of a block filter");
  same(await client.uninstallFilter({ filter }), true, "removal of a filter");

  step("proof");
  const proof = await client.getProof({ address, storageKeys: [toHex(0, { size: 32 })] });
  same(proof.storageProof[0].value, 3n, "proven count");
  ok(proof.accountProof.length > 0, "the account should be proven");

  step("reverts");
  await revert(() => client.simulateContract({ ...contract, account, functionName: "set", args: [0n, 1n] }), "Error", ["key is zero"]);
  await revert(() => client.simulateContract({ ...contract, account, functionName: "set", args: [1n, maxUint256] }), "AboveLimit", [maxUint256, LIMIT]);
  await revert(() => client.readContract({ ...contract, functionName: "divide", args: [1n, 0n] }), "Panic", [0x12n]);
  await refused(() => client.estimateContractGas({ ...contract, account, functionName: "set", args: [0n, 1n] }), /key is zero/, "an estimate of a call that reverts");
  const failing = await wallet.writeContract({ ...contract, functionName: "set", args: [0n, 1n], gas: 100_000n });
  same((await receiptOf(failing)).status, "reverted", "status of a transaction that reverts");

  step("refusals");
  const to = privateKeyToAccount(generatePrivateKey());
  await refused(() => wallet.sendTransaction({ to: to.address, value: 1n, nonce: 0, gas: 21_000n }), /nonce/i, "a used nonce");
  const poor = createWalletClient({ account: to, chain, transport: http() });
  await refused(() => poor.sendTransaction({ to: account.address, value: 1n, gas: 21_000n }), /funds|balance/i, "a transfer without funds");
  const foreign = await account.signTransaction({ chainId: 1, type: "eip1559", to: to.address, nonce: 0, gas: 21_000n, maxFeePerGas: 10n ** 10n });
  await refused(() => client.sendRawTransaction({ serializedTransaction: foreign }), /chain id/i, "a transaction for another chain");

  step("send and receipt in one request");
  const prepared = await wallet.prepareTransactionRequest({ to: to.address, value: 10n ** 17n });
  const serializedTransaction = await wallet.signTransaction(prepared);
  const direct = await client.sendRawTransactionSync({ serializedTransaction });
  same(direct.status, "success", "status");

  step("delegation");
  const authorization = await poor.signAuthorization({ contractAddress: address });
  const delegated = await receiptOf(await wallet.sendTransaction({ to: to.address, value: 1n, authorizationList: [authorization], gas: 200_000n }));
  same([delegated.status, delegated.type], ["success", "eip7702"], "status and type");
  same(await client.getCode({ address: to.address }), `0xef0100${address.slice(2)}`.toLowerCase(), "code of the account");
  same(delegated.logs.length, 1, "the account should run the contract's code");

  step("WebSocket");
  const socket = createPublicClient({ chain, transport: webSocket() });
  const [heads, logs, pending, errors] = [inbox(), inbox(), inbox(), inbox()];
  const onError = errors.push;
  const stop = [
    socket.watchBlocks({ onBlock: heads.push, onError }),
    socket.watchContractEvent({ ...contract, eventName: "Set", onLogs: (l) => l.forEach(logs.push), onError }),
    socket.watchPendingTransactions({ onTransactions: (l) => l.forEach(pending.push), onError }),
  ];
  // The subscriptions are asked for in the background, in order, on the same connection: they are there now.
  same(await socket.getChainId(), target.chainId, "chain id over WebSocket");
  const seen = await set(5n, 9n);
  await logs.next((log) => log.transactionHash === seen.transactionHash, "event over WebSocket");
  const head = await heads.next((block) => block.hash === seen.blockHash, "head over WebSocket");
  same(head.number, seen.blockNumber, "number of the head");
  await pending.next((hash) => hash === seen.transactionHash, "pending transaction over WebSocket");
  stop.forEach((end) => end());
  same(errors.items.map(String), [], "errors of the subscriptions");
  (await socket.transport.getRpcClient()).close();
  await within(client.getBlockNumber(), "block number");
});

/** A call that reverts with this error, as the contract's ABI decodes it. */
async function revert(call, name, args) {
  const error = await refused(call, /revert/i, `a call that reverts with ${name}`);
  const cause = error instanceof BaseError ? error.walk((e) => e instanceof ContractFunctionRevertedError) : undefined;
  same([cause?.data?.errorName, cause?.data?.args], [name, args], "decoded revert");
}
