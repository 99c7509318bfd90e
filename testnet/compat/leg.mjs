// A leg of a bundle with nothing but viem: what its signer agrees to, and the transaction that does it.
import { createWalletClient, encodeFunctionData, encodePacked, http, keccak256, parseAbi } from "viem";

export const VAULT = "0x5359000000000000000000000000000000000006";
const COIN = 0; // an ERC-20 token is 1, an ERC-721 token 2
const abi = parseAbi([
  "struct Move { uint8 kind; address token; uint256 amount; address to; address refund; }",
  "struct Call { address participant; uint64 gasLimit; bytes data; }",
  "struct Leg { uint64 rollup; address signer; Move[] moves; Call[] calls; }",
  "struct Bundle { uint64 deadline; bytes32 salt; bytes32[] legs; }",
  "function prepare(Bundle bundle, uint8 index, Leg leg) payable",
]);
const hash = (types, values) => keccak256(encodePacked(types, values));

function moveHash({ kind, token, amount, to, refund }) {
  return hash(["uint8", "address", "uint256", "address", "address"], [kind, token, amount, to, refund]);
}

function callHash({ participant, gasLimit, data }) {
  return hash(["address", "uint64", "bytes32"], [participant, gasLimit, keccak256(data)]);
}

/** What a leg does, and where. */
export function legHash({ rollup, signer, moves, calls }) {
  const items = [...moves.map(moveHash), ...calls.map(callHash)];
  const terms = hash(["address", "uint8", "uint8", "bytes32[]"], [signer, moves.length, calls.length, items]);
  return hash(["uint64", "bytes32"], [rollup, terms]);
}

/** What a bundle with a deadline (hub height) and a salt does: its id. */
export function bundleId({ deadline, salt, legs }) {
  return hash(["uint8", "uint64", "bytes32", "uint8", "bytes32[]"], [1, deadline, salt, legs.length, legs]);
}

/** The call of the vault that leg `index` of `legs` is. Who signs it has seen all the legs: it names their hashes. */
export function prepareCall({ deadline, salt, legs }, index) {
  const bundle = { deadline, salt, legs: legs.map(legHash) };
  const coin = legs[index].moves.filter(({ kind }) => kind === COIN);
  return {
    to: VAULT,
    value: coin.reduce((sum, { amount }) => sum + amount, 0n),
    data: encodeFunctionData({ abi, functionName: "prepare", args: [bundle, index, legs[index]] }),
  };
}

/** Leg `index` of `legs` as a signed transaction. It is not sent: alone it would be given back. */
export async function signLeg(terms, index, account, chain) {
  const wallet = createWalletClient({ account, chain, transport: http() });
  return wallet.signTransaction(await wallet.prepareTransactionRequest(prepareCall(terms, index)));
}
