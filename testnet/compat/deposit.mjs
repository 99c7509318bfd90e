// Coin from outside: the network's validators sign deposits with the program's own commands.
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

/** The program that proposes, signs and submits. */
const PROGRAM = process.env.SWITCHYARD ?? "switchyard";
/** Validators that are a quorum of four. */
const SIGNERS = [0, 1, 2];

/** Gives accounts of a rollup coin: `credits` are texts ADDRESS=AMOUNT. Returns when that is final. */
export async function deposit({ grpc, genesis, rollup }, credits) {
  const folder = mkdtempSync(join(tmpdir(), "deposit-"));
  const run = async (...args) => (await promisify(execFile)(PROGRAM, ["deposit", ...args])).stdout;
  const file = (name, content) => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
  try {
    const proposal = file("proposal.json", await run("propose", "--grpc", grpc, "--rollup", `${rollup}`, ...credits));
    const parts = [];
    for (const i of SIGNERS) {
      const config = join(dirname(genesis), `validator-${i}`, "config.toml");
      parts.push("--part", file(`part-${i}.json`, await run("sign", "--config", config, "--proposal", proposal)));
    }
    await run("submit", "--grpc", grpc, "--proposal", proposal, ...parts);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
