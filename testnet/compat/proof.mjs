// Verifies Merkle Patricia proofs, so that what a node says of the state is checked and not believed.
import { decodeRlp, encodeRlp, getBytes, keccak256, toBeHex } from "ethers";

const nibbles = (hex) => [...hex.slice(2)].map((digit) => parseInt(digit, 16));

/**
 * The RLP value that `proof` shows under the hashed key in the trie of `root`; null if it shows that there is none.
 * Throws if it shows neither.
 */
export function proven(root, key, proof) {
  let path = nibbles(keccak256(key));
  let expected = root;
  for (const encoded of proof) {
    // A node shorter than a hash stands in its parent itself.
    const reference = getBytes(encoded).length < 32 && encoded !== proof[0] ? encoded : keccak256(encoded);
    if (reference !== expected) throw new Error(`proof node ${encoded} should be ${expected}`);
    const node = decodeRlp(encoded);
    if (node === "0x") return null;
    let next;
    if (node.length === 17) {
      if (path.length === 0) return node[16];
      next = node[path.shift()];
    } else {
      const [prefix, ...rest] = nibbles(node[0]);
      const segment = prefix & 1 ? rest : rest.slice(1);
      if (segment.some((nibble, i) => nibble !== path[i])) return null;
      path = path.slice(segment.length);
      next = node[1];
      if (prefix >= 2) {
        if (path.length !== 0) throw new Error("the leaf's path is too short");
        return next;
      }
    }
    if (next === "0x") return null;
    expected = typeof next === "string" ? next : encodeRlp(next);
  }
  // The empty trie may be shown by nothing at all.
  if (proof.length === 0 && root === keccak256("0x80")) return null;
  throw new Error("the proof ends before its key");
}

const number = (hex) => (BigInt(hex) === 0n ? "0x" : toBeHex(BigInt(hex)));

/** Throws unless the account and the storage values of an `eth_getProof` answer are in the state of `stateRoot`. */
export function verifyAccount(stateRoot, answer) {
  const { address, nonce, balance, storageHash, codeHash, accountProof, storageProof } = answer;
  const account = proven(stateRoot, address, accountProof);
  const claimed = encodeRlp([number(nonce), number(balance), storageHash, codeHash]);
  if (account !== null && account !== claimed) throw new Error(`account ${account} is not the claimed ${claimed}`);
  if (account === null && (BigInt(nonce) !== 0n || BigInt(balance) !== 0n)) throw new Error(`${address} is not in the state`);
  for (const { key, value, proof } of storageProof) {
    const stored = proven(storageHash, toBeHex(BigInt(key), 32), proof) ?? "0x80";
    if (stored !== encodeRlp(number(value))) throw new Error(`slot ${key} holds ${stored}, not ${value}`);
  }
}
