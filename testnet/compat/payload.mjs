// From a block of JSON-RPC to what a consensus client gives to its execution client for it (Prague).
import { concat, dataSlice, encodeRlp, getBytes, keccak256, toBeArray } from "ethers";

/** The parts of a header in their order. */
const HEADER = [
  ...["parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty", "number"],
  ...["gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas", "withdrawalsRoot", "blobGasUsed"],
  ...["excessBlobGas", "parentBeaconBlockRoot", "requestsHash"],
];
/** Those that RLP writes as numbers, without leading zeros. */
const NUMBERS = new Set(
  ["difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas"],
);

/** The hash of a block's header. */
export function hashOf(block) {
  return keccak256(encodeRlp(HEADER.map((field) => (NUMBERS.has(field) ? toBeArray(block[field]) : block[field]))));
}

/** The arguments of `engine_newPayloadV4` for a block with these transactions, as bytes, and requests. */
export function payload(block, transactions, requests) {
  const executed = {
    parentHash: block.parentHash,
    feeRecipient: block.miner,
    stateRoot: block.stateRoot,
    receiptsRoot: block.receiptsRoot,
    logsBloom: block.logsBloom,
    prevRandao: block.mixHash,
    blockNumber: block.number,
    gasLimit: block.gasLimit,
    gasUsed: block.gasUsed,
    timestamp: block.timestamp,
    extraData: block.extraData,
    baseFeePerGas: block.baseFeePerGas,
    blockHash: block.hash,
    transactions,
    withdrawals: block.withdrawals,
    blobGasUsed: block.blobGasUsed,
    excessBlobGas: block.excessBlobGas,
  };
  // No transaction of a rollup has blobs.
  return [executed, [], block.parentBeaconBlockRoot, requests];
}

/**
 * The contracts with requests to a consensus layer (EIP-7002, EIP-7251): the requests' type, how many leave the queue with each
 * block, and the bytes of one from the log of its arrival.
 */
const ASKING = [
  {
    contract: "0x00000961ef480eb55e80d19ad83579a64c007002",
    type: "0x01",
    each: 16,
    // The amount is the other way round in the log.
    bytes: (data) => concat([dataSlice(data, 0, 68), getBytes(dataSlice(data, 68)).reverse()]),
  },
  { contract: "0x0000bbddc7ce488642fb579f8b00f3a590007251", type: "0x02", each: 2, bytes: (data) => data },
];

/**
 * The requests of each block as EIP-7685 lists them; JSON-RPC has only their hash. `rpc` calls the rollup; the function that is
 * returned wants one block after the other, from the first.
 */
export async function requestsOf(rpc) {
  const address = ASKING.map(({ contract }) => contract);
  const logs = await rpc("eth_getLogs", [{ fromBlock: "earliest", toBlock: "latest", address }]);
  const queues = ASKING.map(() => []);
  return (block) =>
    ASKING.flatMap(({ contract, type, each, bytes }, i) => {
      const arrived = logs.filter((log) => log.address === contract && log.blockNumber === block.number);
      queues[i].push(...arrived.map((log) => bytes(log.data)));
      const leaving = queues[i].splice(0, each);
      return leaving.length ? [concat([type, ...leaving])] : [];
    });
}
