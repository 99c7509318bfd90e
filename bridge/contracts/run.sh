#!/bin/sh
# Every test of the contracts: forge's, gas against snapshots/, and artifacts/ against src/. Needs node 18 and npm.
set -eu
cd "$(dirname "$0")"
# A stamp of the lock file, so that a second run does not install again. Not `npm ci`: it wants every other platform's
# binaries in the lock file.
if ! cmp -s package-lock.json node_modules/.installed.json; then
    npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/.installed.json
fi
export FOUNDRY_DISABLE_NIGHTLY_WARNING=1
# The native program: what npm links to is a wrapper that wants a newer node.
forge=$(node -p 'require.resolve(`@foundry-rs/forge-${process.platform}-${process.arch.replace("x64", "amd64")}/bin/forge`)')
"$forge" fmt --check
# All at once: a run of some tests compiles only these.
"$forge" build
"$forge" test --no-match-contract GasTest
# Each call a transaction of its own. After a change that costs or saves gas, leave FORGE_SNAPSHOT_CHECK out, and look at the
# difference.
FORGE_SNAPSHOT_CHECK=true "$forge" test --isolate --match-contract GasTest
node build.mjs --check
