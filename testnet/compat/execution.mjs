// An execution client that is not ours, @ethereumjs/client, as a process of its own with nothing on its disk but a genesis.
import { spawn } from "node:child_process";
import { createHmac, randomBytes, randomInt } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { caller, ok, post, request, until } from "./lib.mjs";

const PROGRAM = new URL("client/node_modules/@ethereumjs/client/dist/esm/bin/cli.js", import.meta.url).pathname;
/** Where ports are looked for: below those of outgoing connections, one of which may take a port before the client does. */
const PORTS = [10_000, 32_000];
/** How much of what the client says last a failure shows, in characters. */
const SAID = 2_000;

// So that what waits for the end of this process, to end clients, is called.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/**
 * Starts a client on a genesis in geth's format. `rpc` calls its JSON-RPC; `engine` its Engine API, with a token of the secret that
 * both know; `status` is the HTTP status of a call with another token or none. `end` kills it and deletes its data; it does not
 * outlive this process.
 */
export async function start(genesis) {
  const port = await freePort();
  const http = `http://127.0.0.1:${port}`;
  const secret = randomBytes(32);
  const folder = mkdtempSync(join(tmpdir(), "compat-client-"));
  const at = (name, content) => {
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  };
  const options = {
    gethGenesis: at("rollup.json", JSON.stringify(genesis)),
    jwtSecret: at("jwt.hex", secret.toString("hex")),
    dataDir: join(folder, "data"),
    sync: "none",
    discDns: false,
    discV4: false,
    minPeers: 0,
    maxPeers: 0,
    port: 0,
    isSingleNode: true,
    rpc: true,
    rpcAddr: "127.0.0.1",
    rpcPort: port,
    rpcEngine: true,
    rpcEngineAddr: "127.0.0.1",
    rpcEnginePort: port,
  };
  const flags = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  const program = [PROGRAM, "--no-logFile", ...flags];
  const client = spawn(process.execPath, program, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  const exited = new Promise((resolve) => client.once("exit", resolve));
  let said = "";
  for (const stream of [client.stdout, client.stderr]) stream.on("data", (text) => (said = (said + text).slice(-SAID)));
  const kill = () => client.kill("SIGKILL");
  process.once("exit", kill);
  const end = async () => {
    kill();
    await exited;
    process.off("exit", kill);
    rmSync(folder, { recursive: true });
  };

  const authorization = (token) => (token === undefined ? {} : { authorization: `Bearer ${token}` });
  const engine = async (method, params) => {
    const { result, error } = await post(http, request(method, params), authorization(tokenOf(secret)));
    ok(error === undefined, `${method} should be answered`, error);
    return result;
  };
  const status = async (method, params, token) => {
    const headers = { "content-type": "application/json", ...authorization(token) };
    return (await fetch(http, { method: "POST", headers, body: request(method, params) })).status;
  };
  const up = async () => {
    ok(client.exitCode === null, "the client should run", said);
    return status("eth_chainId", []).catch(() => undefined);
  };
  try {
    await until(up, "answer of the client");
  } catch (error) {
    await end();
    throw error;
  }
  return { rpc: caller(http), engine, status, end };
}

/** A token for the Engine API, of a secret of 32 bytes (JWT with HS256). */
export function tokenOf(secret) {
  const part = (claims) => Buffer.from(JSON.stringify(claims)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ iat: Math.floor(Date.now() / 1000) })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

async function freePort() {
  for (;;) {
    const port = randomInt(...PORTS);
    const free = await new Promise((resolve) => {
      const server = createServer();
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}
