// What the checks share: the endpoints, expectations that name what is wrong, and waiting with an end.
import { readFileSync } from "node:fs";

/** The contract that the checks deploy. */
export const probe = JSON.parse(readFileSync(new URL("contracts/Probe.json", import.meta.url), "utf8"));
/** The contract's limit: a value above it reverts. */
export const LIMIT = 1000n;
/** How long any one thing may take, in milliseconds. */
export const PATIENCE_MS = 30_000;

/**
 * Reads the JSON that `switchyard testnet endpoints --json` prints, from the file named by the first argument or from
 * standard input, and returns one target for each rollup: where to send, the node's gRPC, where the other validators serve it, keys,
 * and the file of the network's genesis.
 */
export function targets() {
  const [, , file = "-"] = process.argv;
  const { validators, accounts, genesis } = JSON.parse(readFileSync(file === "-" ? 0 : file, "utf8"));
  if (!validators?.length || !accounts?.length) throw new Error("no validators or accounts in the endpoints");
  return validators[0].rollups.map((rollup) => ({
    name: rollup.name,
    rollup: rollup.rollup,
    grpc: validators[0].grpc,
    chainId: rollup.chain_id,
    http: rollup.http,
    ws: rollup.ws,
    others: validators
      .slice(1)
      .flatMap((v) => v.rollups.filter((r) => r.rollup === rollup.rollup && r.chain_id === rollup.chain_id))
      .map((r) => r.http),
    keys: accounts.map((a) => a.private_key),
    addresses: accounts.map((a) => a.address),
    genesis,
  }));
}

/** Runs `checks` against every rollup, with all of them at hand; the process fails at the first wrong answer. */
export async function main(title, checks) {
  const all = targets();
  for (const target of all) {
    const step = (name) => console.log(`${title} ${target.name}: ${name}`);
    try {
      await checks(target, step, all);
    } catch (error) {
      console.error(`${title} ${target.name}: WRONG: ${error?.stack ?? error}`);
      process.exit(1);
    }
  }
  console.log(`${title}: all as on any Ethereum chain`);
  process.exit(0);
}

const shown = (value) =>
  typeof value === "string" ? value : JSON.stringify(value, (_, v) => (typeof v === "bigint" ? `${v}n` : v));

/** Fails unless `condition` holds. */
export function ok(condition, what, seen) {
  if (!condition) throw new Error(seen === undefined ? what : `${what}, but saw ${shown(seen)}`);
}

/** Fails unless both are the same. */
export function same(seen, expected, what) {
  ok(shown(seen) === shown(expected), `${what} should be ${shown(expected)}`, seen);
}

/** Fails unless `action` is refused with a text that matches; returns the error. */
export async function refused(action, pattern, what) {
  let result;
  try {
    result = await action();
  } catch (error) {
    const text = `${error?.message}\n${error?.details ?? ""}\n${error?.info?.error?.message ?? ""}`;
    ok(pattern.test(text), `${what} should be refused with ${pattern}`, text);
    return error;
  }
  throw new Error(`${what} should be refused with ${pattern}, but gave ${shown(result)}`);
}

/** The value of a promise, or a failure that names what did not come. */
export async function within(promise, what, limit = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${limit} ms`)), limit);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks again until `ask` gives something. */
export async function until(ask, what, limit = PATIENCE_MS) {
  const end = Date.now() + limit;
  for (;;) {
    const value = await ask();
    if (value !== undefined && value !== null && value !== false) return value;
    if (Date.now() > end) throw new Error(`${what}: nothing within ${limit} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A number as JSON-RPC writes it. */
export function toQuantity(n) {
  return `0x${BigInt(n).toString(16)}`;
}

/** The body of a JSON-RPC request. */
export function request(method, params = []) {
  return JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
}

/** What the server answers to a body. */
export async function post(url, body, headers = {}) {
  const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json", ...headers }, body });
  return response.json();
}

/** Calls methods of the server; an error of it is a failure. */
export function caller(url) {
  return async (method, params) => {
    const { result, error } = await post(url, request(method, params));
    ok(error === undefined, `${method} should be answered`, error);
    return result;
  };
}

/** Collects what a subscription delivers; `next` waits for something that `wanted` accepts. */
export function inbox() {
  const items = [];
  return {
    push: (item) => items.push(item),
    next: (wanted, what) => until(() => items.find(wanted), what),
    items,
  };
}
