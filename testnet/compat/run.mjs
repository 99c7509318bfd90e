// Runs the checks of wallets, or those that are named: node run.mjs ENDPOINTS.json [check...]. Ends with the first failure's code.
import { spawnSync } from "node:child_process";
import { readFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const WALLETS = ["rpc", "ethers", "viem", "pending", "foundry"];
const CHECKS = [...WALLETS, "bundle", "engine"];
const [, , source = "-", ...only] = process.argv;
const unknown = only.filter((name) => !CHECKS.includes(name));
if (unknown.length) {
  console.error(`unknown checks: ${unknown.join(", ")}; there are ${CHECKS.join(", ")}`);
  process.exit(2);
}
const folder = mkdtempSync(join(tmpdir(), "compat-"));
const file = join(folder, "endpoints.json");
writeFileSync(file, readFileSync(source === "-" ? 0 : source));
let code = 0;
for (const name of only.length ? only : WALLETS) {
  const script = new URL(`${name}.mjs`, import.meta.url).pathname;
  const { status } = spawnSync(process.execPath, [script, file], { stdio: "inherit" });
  if (status !== 0) {
    code = status ?? 1;
    break;
  }
}
rmSync(folder, { recursive: true });
process.exit(code);
