#!/bin/sh
# Replays the embedded EVM's published blocks in an independent implementation. Needs node 20 and npm.
set -eu
cd "$(dirname "$0")"
# A stamp of the lockfile, so that a second run does not install again.
if ! cmp -s package-lock.json node_modules/.installed.json; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/.installed.json
fi
exec node replay.mjs
