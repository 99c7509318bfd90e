// Runs the checks against two anvil processes: what fails here is a fault of the checks.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tool } from "./tools.mjs";

// anvil's well-known development key.
const ACCOUNT = {
  address: "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
  private_key: "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
};

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

async function start(name, rollup, chainId) {
  const port = await freePort();
  const anvil = spawn(tool("anvil"), ["--port", port, "--chain-id", chainId, "--silent", "--block-time", "1", "--mixed-mining"]);
  const http = `http://127.0.0.1:${port}`;
  for (;;) {
    if (anvil.exitCode !== null) throw new Error(`anvil ended with ${anvil.exitCode}`);
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_chainId" });
    const headers = { "content-type": "application/json" };
    const up = await fetch(http, { method: "POST", headers, body }).then((r) => r.ok, () => false);
    if (up) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { anvil, rollup: { name, rollup, chain_id: chainId, http, ws: `ws://127.0.0.1:${port}` } };
}

const folder = mkdtempSync(join(tmpdir(), "compat-"));
const chains = await Promise.all([start("yardA", 1, 71_001), start("yardB", 2, 71_002)]);
let code = 1;
try {
  const validators = [{ index: 0, grpc: "", metrics: "", pid: 0, rollups: chains.map((c) => c.rollup) }];
  const file = join(folder, "endpoints.json");
  writeFileSync(file, JSON.stringify({ validators, accounts: [ACCOUNT] }));
  const run = new URL("run.mjs", import.meta.url).pathname;
  const checks = spawn(process.execPath, [run, file, ...process.argv.slice(2)], { stdio: "inherit" });
  code = await new Promise((resolve) => checks.once("exit", resolve));
} finally {
  for (const { anvil } of chains) anvil.kill();
  rmSync(folder, { recursive: true });
}
process.exit(code ?? 1);
