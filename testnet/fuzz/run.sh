#!/usr/bin/env bash
# Runs fuzz targets one after the other, FUZZ_SECONDS each: those that are named, or all. What libFuzzer learns stays in
# target/fuzz/TARGET and is where the next run begins; an input that fails is written to testnet/fuzz/regressions/TARGET.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds="${FUZZ_SECONDS:-300}"
target_dir="${CARGO_TARGET_DIR:-$PWD/target}"
fuzz=testnet/fuzz

# CARGO_INCREMENTAL: instrumented crates are built whole, as every one has its counters in one unit.
CARGO_INCREMENTAL=0 RUSTC_WORKSPACE_WRAPPER="$PWD/$fuzz/rustc-with-coverage.sh" \
    "${CARGO:-cargo}" build --workspace --features switchyard-fuzz/libfuzzer --bin switchyard-fuzz --locked

targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(ls "$fuzz/corpus")
failed=()
for target in "${targets[@]}"; do
    learnt="$target_dir/fuzz/$target" found="$fuzz/regressions/$target" log="$target_dir/fuzz/$target.log"
    mkdir -p "$learnt" "$found"
    seeds=("$learnt" "$fuzz/corpus/$target" "$found")
    result=passed
    FUZZ_TARGET="$target" "$target_dir/debug/switchyard-fuzz" -fork=0 -max_total_time="$seconds" -rss_limit_mb=1024 \
        -timeout=10 -max_len=16384 -print_final_stats=1 -artifact_prefix="$found/" "${seeds[@]}" >"$log" 2>&1 ||
        { result=FAILED && failed+=("$target"); }
    rmdir --ignore-fail-on-non-empty "$found"
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    rss=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
    printf '%-22s %s: %s runs in %s s, %s edges, %s MB (%s)\n' "$target" "$result" "${runs:-?}" "$seconds" \
        "${coverage:-?}" "${rss:-?}" "$log"
done
[ "${#failed[@]}" -eq 0 ] || {
    echo "fuzz: failed: ${failed[*]}. The input is in $fuzz/regressions; mend the code and commit the input with it."
    exit 1
}
