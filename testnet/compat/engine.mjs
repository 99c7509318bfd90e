// An execution client that is not ours follows a rollup with one-second sealing over the Engine API, from its genesis alone: it is
// fed every block, executes each, and comes to the same hashes and state.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { Contract, JsonRpcProvider, Wallet, concat, id, toBeArray, toBeHex } from "ethers";
import { deposit } from "./deposit.mjs";
import { start, tokenOf } from "./execution.mjs";
import { caller, main, ok, same, toQuantity, until, within } from "./lib.mjs";
import { hashOf, payload, requestsOf } from "./payload.mjs";

const OUTBOX = "0x5359000000000000000000000000000000000002";
const INBOX = "0x5359000000000000000000000000000000000003";
const OUTBOX_ABI = ["function sendMessage(bytes recipient, bytes payload, bytes[] attributes) payable returns (bytes32)"];
const TRANSFER = id("transfer()").slice(0, 10);
const SENT = id("MessageSent(bytes32,bytes,bytes,bytes,uint256,bytes[])");
const DELIVERED = id("MessageDelivered(bytes32,uint64,uint64)");
/** The contract of EIP-7002's requests. */
const WITHDRAWALS = "0x00000961ef480eb55e80d19ad83579a64c007002";
/** How long messages may take: blocks that are closed and attested on both sides. */
const DELIVERY_MS = 60_000;
const WRONG = `0x${"11".repeat(32)}`;
const COIN = { index: "0x0", validatorIndex: "0x0", address: INBOX, amount: "0x1" };

await main("engine", async (target, step, all) => {
  const rollup = caller(target.http);
  step("messages out and in, every kind of transaction, deposits");
  const { head, delivered, depositor } = await traffic(target, all.find((other) => other !== target));

  step("start of the client");
  const client = await start(genesisOf(target));
  try {
    const genesis = await rollup("eth_getBlockByNumber", ["0x0", false]);
    same((await client.rpc("eth_getBlockByNumber", ["0x0", false])).hash, genesis.hash, "hash of the genesis block");
    const state = (block) => ({ headBlockHash: block.hash, safeBlockHash: genesis.hash, finalizedBlockHash: genesis.hash });

    step("it listens to the holder of the secret only");
    for (const token of [undefined, tokenOf(randomBytes(32))]) {
      same(await client.status("engine_forkchoiceUpdatedV3", [state(genesis), null], token), 401, "status without the secret");
    }

    step(`blocks 1 to ${head}`);
    const requestsIn = await requestsOf(rollup);
    const seen = { transactions: 0, withdrawals: 0, requests: 0 };
    for (let number = 1; number <= head; number++) {
      const block = await rollup("eth_getBlockByNumber", [toQuantity(number), true]);
      const raw = await Promise.all(block.transactions.map((tx) => rollup("eth_getRawTransactionByHash", [tx.hash])));
      const requests = requestsIn(block);
      same(hashOf(block), block.hash, `hash of the header of block ${number}`);
      if (number === delivered) await refuses(client, block, raw, requests);
      const valid = { status: "VALID", latestValidHash: block.hash };
      const answer = await client.engine("engine_newPayloadV4", payload(block, raw, requests));
      same(verdict(answer), valid, `answer to block ${number} (${answer.validationError})`);
      const { payloadStatus } = await client.engine("engine_forkchoiceUpdatedV3", [state(block), null]);
      same(verdict(payloadStatus), valid, `answer to block ${number} as the head (${payloadStatus.validationError})`);
      seen.transactions += raw.length;
      seen.withdrawals += block.withdrawals.length;
      seen.requests += requests.length;
    }
    ok(seen.requests > 0, "a block should have a request", seen);
    ok(seen.withdrawals > 1, "blocks should have withdrawals", seen);

    step(`the same chain, ${seen.transactions} transactions, ${seen.withdrawals} withdrawals, ${seen.requests} requests`);
    same(await client.rpc("eth_blockNumber", []), toQuantity(head), "head");
    for (let number = 1; number <= head; number++) {
      const roots = async (rpc) => {
        const { hash, stateRoot, receiptsRoot } = await rpc("eth_getBlockByNumber", [toQuantity(number), false]);
        return [hash, stateRoot, receiptsRoot];
      };
      same(await roots(client.rpc), await roots(rollup), `hash and roots of block ${number}`);
    }
    for (const account of [INBOX, target.addresses[0], depositor]) {
      const balance = (rpc) => rpc("eth_getBalance", [account, toQuantity(head)]);
      same(await balance(client.rpc), await balance(rollup), `balance of ${account}`);
    }
  } finally {
    await client.end();
  }
});

/** The client must be able to refuse: the block with something changed, with and without a hash that fits. */
async function refuses(client, block, raw, requests) {
  const changed = (fields) => ({ ...block, ...fields });
  const sealed = (fields) => changed({ ...fields, hash: hashOf(changed(fields)) });
  const cases = [
    // Only who executes them can tell.
    ["another state root", sealed({ stateRoot: WRONG }), raw, block.parentHash],
    ["another root of the hub's accumulator", sealed({ parentBeaconBlockRoot: WRONG }), raw, block.parentHash],
    ["another state root under the block's hash", changed({ stateRoot: WRONG }), raw, null],
    ["a transaction less", block, raw.slice(1), null],
    ["coin from nowhere", changed({ withdrawals: [...block.withdrawals, COIN] }), raw, null],
  ];
  for (const [what, forged, transactions, latestValidHash] of cases) {
    const answer = await client.engine("engine_newPayloadV4", payload(forged, transactions, requests));
    same(verdict(answer), { status: "INVALID", latestValidHash }, `answer to ${what} (${answer.validationError})`);
  }
}

function verdict({ status, latestValidHash }) {
  return { status, latestValidHash };
}

/** The rollup's genesis in geth's format, from the network's. */
function genesisOf({ genesis, chainId }) {
  const { rollups } = JSON.parse(readFileSync(genesis, "utf8"));
  return rollups.map((rollup) => rollup.vm.genesis).find((found) => found?.config.chainId === chainId);
}

/**
 * Coin to another rollup and from there, a transaction of each type, a request to a consensus layer, and coin from outside, of which
 * some is spent. Returns the number of the block that delivers the coin, that of a closed one that all of it is in or before, and who
 * spends what was deposited.
 */
async function traffic(target, other) {
  const [here, there] = [target, other].map(
    ({ http, keys }) => new Wallet(keys[0], new JsonRpcProvider(http, undefined, { pollingInterval: 20, cacheTimeout: -1 })),
  );
  const messages = [await transfer(here, other), await transfer(there, target)];
  const to = Wallet.createRandom();
  const delegation = await to.authorize({ address: INBOX, chainId: target.chainId, nonce: 0 });
  const sent = [
    { type: 0, to, value: 1n },
    { type: 1, to, accessList: [[INBOX, [WRONG]]] },
    { type: 2, to, value: 1n },
    { type: 4, to: here.address, authorizationList: [delegation] },
    { to: WITHDRAWALS, value: 1n, data: concat([new Uint8Array(48), toBeHex(1, 8)]) },
  ];
  const depositor = Wallet.createRandom(here.provider);
  await deposit(target, [`${depositor.address}=1`, `${target.addresses[0]}=0.000000001`]);
  await until(async () => (await here.provider.getBalance(depositor.address)) > 0n, "the deposit");
  const blocks = [(await executed(depositor, { to, value: 1n })).blockNumber];
  for (const transaction of sent) blocks.push((await executed(here, transaction)).blockNumber);
  const [, delivered] = await Promise.all([arrival(other, messages[0]), arrival(target, messages[1])]);
  const last = Math.max(delivered, ...blocks);
  const head = await until(async () => {
    const number = await here.provider.getBlockNumber();
    return number >= last && number;
  }, `block ${last}`);
  for (const { provider } of [here, there]) provider.destroy();
  return { head, delivered, depositor: depositor.address };
}

/** Sends coin from a wallet to its own account on another rollup; returns the message's id. */
async function transfer(wallet, { chainId }) {
  const chain = toBeArray(chainId);
  // ERC-7930.
  const recipient = concat(["0x00010000", toBeArray(chain.length), chain, "0x14", wallet.address]);
  const outbox = new Contract(OUTBOX, OUTBOX_ABI, wallet);
  const call = await outbox.sendMessage.populateTransaction(recipient, "0x", [TRANSFER], { value: 1n });
  const { logs } = await executed(wallet, call);
  return logs.find(({ topics }) => topics[0] === SENT).topics[1];
}

async function executed(wallet, transaction) {
  const receipt = await within((await wallet.sendTransaction(transaction)).wait(), "receipt");
  same(receipt.status, 1, "status");
  return receipt;
}

/** The number of the block that delivers a message. */
async function arrival({ http }, message) {
  const rpc = caller(http);
  const filter = { fromBlock: "earliest", toBlock: "latest", address: INBOX, topics: [DELIVERED, message] };
  const [{ blockNumber }] = await until(async () => {
    const logs = await rpc("eth_getLogs", [filter]);
    return logs.length > 0 && logs;
  }, `delivery of ${message}`, DELIVERY_MS);
  return Number(blockNumber);
}
