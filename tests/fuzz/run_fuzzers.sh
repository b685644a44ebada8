#!/bin/bash
# Runs every fuzzer of a build, two at a time, from the kept corpus, and ends with 1 if one has found something.
#
#   run_fuzzers.sh BUILD_FOLDER SECONDS_EACH [NAME…]
#
# What is new goes to BUILD_FOLDER/corpus/NAME, findings to BUILD_FOLDER/findings, what the fuzzers say to
# BUILD_FOLDER/logs. The kept corpus is not touched: keep_corpus.sh does that.
set -uo pipefail

build=$(realpath "$1")
seconds=$2
shift 2
here=$(dirname "$(realpath "$0")")
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for source in "$here"/fuzz_*.c; do
        name=$(basename "$source" .c)
        [ "$name" = fuzz_replay ] || names+=("${name#fuzz_}")
    done
fi
mkdir -p "$build/findings" "$build/logs"

# Longer inputs than these say nothing new, and take longer.
declare -A bytes_max=([resp_request]=1024 [resp_reply]=1024 [recovery]=120 [records]=512 [superblock]=300 [config]=400 [value]=512 [restore]=512 [acl_file]=600)

run_one() {
    local name=$1 log=$build/logs/$1.log
    # FUZZ_SEED makes a short run the same every time: for a check of every change, where chance has no place.
    local arguments=(-seed="${FUZZ_SEED:-0}" -max_total_time="$seconds" -max_len="${bytes_max[$name]:-2048}" -timeout=60 -rss_limit_mb=2500
        -print_final_stats=1 -artifact_prefix="$build/findings/$name-")
    case $name in
    resp_request | resp_reply | connection | client | client_conn) arguments+=(-dict="$here/resp.dict") ;;
    esac
    # A node that lives for many inputs looks like a leak to the check after each; the one at the end is made.
    [ "$name" = connection ] && arguments+=(-detect_leaks=0)
    mkdir -p "$build/corpus/$name"
    if ! "$build/fuzz_$name" "${arguments[@]}" "$build/corpus/$name" "$here/corpus/$name" >"$log" 2>&1; then
        echo "$name: FOUND SOMETHING"
        grep -aE 'property broken|ASSERT|assert|ERROR|SUMMARY|runtime error|Test unit written' "$log" | sort -u | sed 's/^/    /'
        sed -n "s#.*Test unit written to \(.*\)#    again: $build/fuzz_$name \1#p" "$log"
        return 1
    fi
    printf '%-14s %9s inputs, %6s/s, %s edges\n' "$name" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
        "$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")" \
        "$(grep -ao 'cov: [0-9]*' "$log" | tail -1 | cut -c6-)"
}

running=0
found=0
for name in "${names[@]}"; do
    if [ $running -ge 2 ]; then
        wait -n || found=1
        running=$((running - 1))
    fi
    run_one "$name" &
    running=$((running + 1))
done
while [ $running -gt 0 ]; do
    wait -n || found=1
    running=$((running - 1))
done
exit $found
