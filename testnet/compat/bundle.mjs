// Bundles whose legs viem alone has built and signed: the hashes are those of the specification, and a swap is committed.
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { createPublicClient, defineChain, http, parseEther, toHex, zeroAddress } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { bundleId, legHash, signLeg } from "./leg.mjs";
import { main, ok, same } from "./lib.mjs";

/** The program that submits. */
const PROGRAM = process.env.SWITCHYARD ?? "switchyard";
/** Hub blocks until the deadline, from one that a rollup's newest block tells: the hub may be further. */
const BLOCKS = 5_000n;

await main("bundle", async (target, step, all) => {
  step("hashes of the specification");
  const vectors = JSON.parse(readFileSync(new URL("../../docs/specs/vectors/bundles.json", import.meta.url), "utf8"));
  for (const leg of vectors.legs) {
    const calls = leg.calls.map((call) => ({ ...call, gasLimit: call.gas_limit }));
    same(legHash({ ...leg, calls }), leg.hash, "hash of a leg");
  }
  for (const bundle of vectors.bundles) same(bundleId(bundle), bundle.id, "id of a bundle");

  step("swap with another rollup");
  const other = all.find(({ name }) => name !== target.name);
  const chains = [target, other].map(({ chainId, name, http: url }) =>
    defineChain({
      id: chainId,
      name,
      nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
      rpcUrls: { default: { http: [url] } },
    }),
  );
  const clients = chains.map((chain) => createPublicClient({ chain, transport: http(), cacheTime: 0 }));
  const [alice, bob] = [3, 4].map((index) => privateKeyToAccount(target.keys[index]));
  // Accounts that have nothing, so that what they get is all they have.
  const receivers = [0, 1].map(() => privateKeyToAccount(generatePrivateKey()).address);
  const gives = ({ rollup }, from, to, coin) => {
    const move = { kind: 0, token: zeroAddress, amount: parseEther(coin), to, refund: from };
    return { rollup, signer: from, moves: [move], calls: [] };
  };
  const { extraData } = await clients[0].getBlock();
  const terms = {
    deadline: BigInt(extraData) + BLOCKS,
    salt: toHex(crypto.getRandomValues(new Uint8Array(32))),
    legs: [gives(target, alice.address, receivers[0], "1"), gives(other, bob.address, receivers[1], "2")],
  };
  const transactions = [await signLeg(terms, 0, alice, chains[0]), await signLeg(terms, 1, bob, chains[1])];
  const changes = await submit(target.grpc, transactions);
  const id = bundleId({ ...terms, legs: terms.legs.map(legHash) });
  ok(changes.every((change) => change.id === id), `every change should name ${id}`, changes);
  const { state, settled } = changes.at(-1);
  same([state, settled], ["committed", true], "end of the bundle");
  const balances = await Promise.all(clients.map((client, i) => client.getBalance({ address: receivers[i], blockTag: "pending" })));
  same(balances, [parseEther("1"), parseEther("2")], "what the receivers have");
});

/** Submits a bundle of signed transactions and returns what has become of it, change by change. */
async function submit(grpc, transactions) {
  const folder = mkdtempSync(join(tmpdir(), "bundle-"));
  try {
    const file = join(folder, "bundle.json");
    writeFileSync(file, JSON.stringify({ legs: transactions.map((transaction) => ({ transaction })) }));
    const { stdout } = await promisify(execFile)(PROGRAM, ["bundle", "submit", "--grpc", grpc, "--json", file]);
    return stdout.trim().split("\n").map((line) => JSON.parse(line));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
