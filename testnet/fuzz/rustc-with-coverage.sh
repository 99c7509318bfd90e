#!/bin/sh
# Cargo calls this in place of rustc for the workspace's own crates (RUSTC_WORKSPACE_WRAPPER). It adds the coverage counters
# that libFuzzer steers by, with options of the stable compiler. Dependencies are taken as every other build has made them.
for argument in "$@"; do
    case $argument in
    # What runs within a build has nobody to count for.
    build_script_* | proc-macro) exec "$@" ;;
    esac
done
exec "$@" -Copt-level=2 -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
