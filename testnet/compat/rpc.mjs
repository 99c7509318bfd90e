// The JSON-RPC itself: framing, codes, forms, tags, proofs, and the same answers from every validator.
import { Contract, ContractFactory, Interface, JsonRpcProvider, Wallet, toBeHex } from "ethers";
import { LIMIT, caller, main, ok, post, probe, request, same, toQuantity, until, within } from "./lib.mjs";
import { verifyAccount } from "./proof.mjs";

await main("rpc", async (target, step) => {
  const rpc = caller(target.http);
  // Codes that differ between nodes are checked where they are ours.
  const ours = /^switchyard/i.test(await rpc("web3_clientVersion"));
  const provider = new JsonRpcProvider(target.http, undefined, { pollingInterval: 100, cacheTimeout: -1 });
  const wallet = new Wallet(target.keys[0], provider);

  step("framing");
  if (ours) same(await code(target.http, "{"), -32700, "code of what is not JSON");
  if (ours) same(await code(target.http, `{"jsonrpc":"2.0","id":1}`), -32600, "code of what is no request");
  same(await code(target.http, request("eth_nonsense")), -32601, "code of an unknown method");
  same(await code(target.http, request("eth_getBalance", ["0x12", "latest"])), -32602, "code of a wrong parameter");
  const batch = await post(target.http, `[${request("eth_chainId")},${request("eth_nonsense")},${request("net_version")}]`);
  same(batch.map((b) => b.result ?? b.error.code), [toQuantity(target.chainId), -32601, String(target.chainId)], "batch");
  const preflight = await fetch(target.http, {
    method: "OPTIONS",
    headers: { origin: "https://dapp.example", "access-control-request-method": "POST", "access-control-request-headers": "content-type" },
  });
  same(preflight.headers.get("access-control-allow-origin"), "*", "origins allowed");

  step("tags");
  const numbers = [];
  for (const tag of ["earliest", "finalized", "safe", "latest"]) {
    numbers.push(Number((await rpc("eth_getBlockByNumber", [tag, false])).number));
  }
  ok(numbers.every((n, i) => i === 0 || n >= numbers[i - 1]), "earliest, finalized, safe and latest should ascend", numbers);

  step("deploy");
  const contract = await new ContractFactory(probe.abi, probe.bytecode, wallet).deploy(LIMIT);
  await within(contract.waitForDeployment(), "deployment");
  const address = await contract.getAddress();
  const sent = await contract.set(1n, 5n);
  const receipt = await within(sent.wait(), "receipt");
  const at = toQuantity(receipt.blockNumber);

  step("forms");
  const block = await rpc("eth_getBlockByNumber", [at, true]);
  const raw = await rpc("eth_getTransactionReceipt", [sent.hash]);
  for (const field of ["number", "timestamp", "gasLimit", "gasUsed", "baseFeePerGas", "size"]) quantity(block, field);
  for (const field of ["type", "status", "gasUsed", "cumulativeGasUsed", "effectiveGasPrice"]) quantity(raw, field);
  for (const field of ["nonce", "gas", "gasPrice", "value", "v", "yParity", "chainId"]) quantity(block.transactions.at(-1), field);
  same([raw.blockHash, raw.contractAddress, raw.logsBloom.length], [block.hash, null, 514], "receipt");
  same(block.withdrawals, [], "withdrawals");
  same(await rpc("eth_getBlockTransactionCountByHash", [block.hash]), toQuantity(block.transactions.length), "count");
  same(await rpc("eth_getTransactionByHash", [toBeHex(1, 32)]), null, "an unknown transaction");
  same(await rpc("eth_getBlockByHash", [toBeHex(1, 32), false]), null, "an unknown block");

  step("reverts");
  const abi = new Interface(probe.abi);
  const reverting = { to: address, from: wallet.address, data: abi.encodeFunctionData("set", [0n, 1n]) };
  for (const method of ["eth_call", "eth_estimateGas"]) {
    const { error } = await post(target.http, request(method, [reverting, "latest"]));
    same(error.code, 3, `code of ${method}`);
    ok(/execution reverted: (revert: )?key is zero/.test(error.message), `message of ${method}`, error.message);
    same(abi.parseError(error.data)?.args[0], "key is zero", `data of ${method}`);
  }

  step("logs");
  const topics = [abi.getEvent("Set").topicHash, null, [toBeHex(1, 32), toBeHex(2, 32)]];
  const logs = await rpc("eth_getLogs", [{ fromBlock: "earliest", toBlock: "latest", address: [address], topics }]);
  same(logs.map((l) => [l.transactionHash, l.removed]), [[sent.hash, false]], "logs");
  same(await rpc("eth_getLogs", [{ blockHash: block.hash, address, topics: [toBeHex(9, 32)] }]), [], "logs of another topic");

  step("proofs");
  for (const account of [wallet.address, address, Wallet.createRandom().address]) {
    const proof = await rpc("eth_getProof", [account, [toBeHex(0, 32), toBeHex(7, 32)], at]);
    verifyAccount(block.stateRoot, proof);
  }
  same((await rpc("eth_getProof", [address, [toBeHex(0, 32)], at])).storageProof[0].value, "0x1", "proven count");

  step("fees");
  const history = await rpc("eth_feeHistory", ["0x4", "latest", [10, 50, 90]]);
  same(history.baseFeePerGas.length, history.gasUsedRatio.length + 1, "base fees");
  ok(history.reward.every((r) => r.length === 3), "rewards", history.reward);
  quantity({ price: await rpc("eth_gasPrice") }, "price");
  quantity({ tip: await rpc("eth_maxPriorityFeePerGas") }, "tip");

  step("filters");
  const pending = await rpc("eth_newPendingTransactionFilter");
  const heads = await rpc("eth_newBlockFilter");
  const next = await contract.set(2n, 6n);
  const nextReceipt = await within(next.wait(), "receipt");
  ok((await rpc("eth_getFilterChanges", [heads])).includes(nextReceipt.blockHash), "the block should be among the changes");
  ok((await rpc("eth_getFilterChanges", [pending])).includes(next.hash), "the transaction should be among the changes");
  same(await rpc("eth_uninstallFilter", [heads]), true, "removal of a filter");

  if (ours) {
    step("refusals");
    await refusals(target, rpc, wallet, sent);
  }

  step(`${target.others.length} other validators`);
  for (const http of target.others) await agreement(http, target, contract, wallet, nextReceipt);
  provider.destroy();
});

/** Codes and texts of transactions that are refused. */
async function refusals(target, rpc, wallet, executed) {
  const base = { to: wallet.address, gasLimit: 21_000n, maxFeePerGas: 10n ** 11n, maxPriorityFeePerGas: 1n, type: 2 };
  const poor = Wallet.createRandom();
  const chainId = target.chainId;
  const signed = async (key, fields) => request("eth_sendRawTransaction", [await key.signTransaction({ ...base, chainId, ...fields })]);
  const cases = [
    [await signed(wallet, { nonce: 0 }), -32000, /^nonce too low/],
    [await signed(poor, { nonce: 0, value: 1n }), -32000, /^insufficient funds for gas \* price \+ value/],
    [await signed(poor, { nonce: 0, gasLimit: 20_000n }), -32000, /^intrinsic gas too low/],
    [await signed(poor, { nonce: 0, chainId: chainId + 1 }), -32000, /^invalid chain id/],
    [await signed(poor, { nonce: 0, gasLimit: 10n ** 12n }), -32000, /^exceeds block gas limit/],
    [request("eth_sendRawTransaction", [await rpc("eth_getRawTransactionByHash", [executed.hash])]), -32000, /^(already known|nonce too low)/],
    [request("eth_sendRawTransaction", ["0xdeadbeef"]), -32000, /^malformed transaction|not supported/],
    [request("eth_sendRawTransaction", ["nonsense"]), -32602, /^invalid argument 0/],
    [request("eth_getLogs", [{ fromBlock: "0x2", toBlock: "0x1" }]), -32602, /^invalid block range/],
    [request("eth_getFilterChanges", ["0x1"]), -32000, /^filter not found/],
    [request("eth_getBalance", [wallet.address, "0xffffffff"]), -32000, /^header not found/],
    [request("eth_subscribe", ["newHeads"]), -32601, /^notifications not supported/],
  ];
  for (const [body, expected, pattern] of cases) {
    const { error } = await post(target.http, body);
    same(error?.code, expected, `code of ${body}`);
    ok(pattern.test(error.message), `message of ${body} should match ${pattern}`, error.message);
  }
}

/** Another validator has the same chain, and takes transactions for it. */
async function agreement(http, target, contract, wallet, receipt) {
  const rpc = caller(http);
  const theirs = await until(() => rpc("eth_getTransactionReceipt", [receipt.hash]), `receipt from ${http}`);
  same([theirs.blockHash, theirs.transactionIndex], [receipt.blockHash, toQuantity(receipt.index)], `receipt from ${http}`);
  const provider = new JsonRpcProvider(http, undefined, { pollingInterval: 100, cacheTimeout: -1 });
  const through = new Contract(contract.target, probe.abi, wallet.connect(provider));
  const sent = await through.set(7n, 7n);
  const mined = await within(sent.wait(), `receipt from ${http}`);
  const here = await until(() => caller(target.http)("eth_getTransactionReceipt", [sent.hash]), `receipt from ${target.http}`);
  same(here.blockHash, mined.blockHash, "block hash");
  provider.destroy();
}

async function code(url, body) {
  return (await post(url, body)).error?.code;
}

function quantity(object, field) {
  ok(/^0x(0|[1-9a-f][0-9a-f]*)$/.test(object[field]), `${field} should be a hex quantity`, object[field]);
}
