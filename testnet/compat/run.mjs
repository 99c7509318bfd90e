// Runs every check: node run.mjs ENDPOINTS.json [check...]. Ends with the first failure's exit code.
import { spawnSync } from "node:child_process";
import { readFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const CHECKS = ["rpc", "ethers", "viem", "pending", "foundry"];
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
for (const name of only.length ? only : CHECKS) {
  const script = new URL(`${name}.mjs`, import.meta.url).pathname;
  const { status } = spawnSync(process.execPath, [script, file], { stdio: "inherit" });
  if (status !== 0) {
    code = status ?? 1;
    break;
  }
}
rmSync(folder, { recursive: true });
process.exit(code);
