// The native Foundry programs, which npm packages carry.
import { createRequire } from "node:module";

/** The path of `anvil`, `cast` or `forge`. */
export function tool(name) {
  const require = createRequire(import.meta.url);
  const platform = process.platform === "win32" ? "win32" : process.platform;
  const arch = process.arch === "x64" ? "amd64" : process.arch;
  try {
    return require.resolve(`@foundry-rs/${name}-${platform}-${arch}/bin/${name}`);
  } catch {
    throw new Error(`no ${name} for ${platform}-${arch}: run npm ci in testnet/compat`);
  }
}
