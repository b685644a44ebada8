#!/bin/bash
# compare.sh - kvs-node (durable) beside redis-server (no persistence): SET and GET, 64 bytes, 50 connections, at pipeline
# depths 1, 16 and 64, in alternating pairs. Servers on CPU 0, redis-benchmark on CPU 1. Prints medians, and the ratios with
# minimum and maximum; CPU is the server's, from /proc.
#
# Usage: bench/compare.sh [PAIRS]      (default 5; needs redis-server, redis-benchmark, python3 and build/release/kvs-node)
set -euo pipefail
cd "$(dirname "$0")/.."
pairs=${1:-5}
work=$(mktemp -d)
pids=()
clean_up() {
    [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap clean_up EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

kvs_port=$(free_port)
redis_port=$(free_port)
taskset -c 0 build/release/kvs-node --addr "127.0.0.1:$kvs_port" --data-dir "$work/data" --threads 1 --memory 2G \
    2>"$work/log" &
kvs_pid=$!
pids+=("$kvs_pid")
taskset -c 0 redis-server --port "$redis_port" --save '' --appendonly no --dir "$work" >/dev/null &
redis_pid=$!
pids+=("$redis_pid")

benchmark() { # port command requests depth
    taskset -c 1 redis-benchmark -p "$1" -t "$2" -n "$3" -c 50 -P "$4" -r 1000000 -d 64 -q 2>/dev/null |
        tr '\r' '\n' | sed -n 's/.*: \([0-9.]*\) requests per second.*/\1/p'
}

ticks() {
    awk '{ print $14 + $15 }' "/proc/$1/stat"
}

measure() { # name port pid
    local depth command requests before rate
    for depth in 1 16 64; do
        requests=$((depth == 1 ? 100000 : depth * 70000 > 3000000 ? 3000000 : depth * 70000))
        for command in set get; do
            before=$(ticks "$3")
            rate=$(benchmark "$2" "$command" "$requests" "$depth")
            echo "$1 $depth $command $rate $((($(ticks "$3") - before) * 1000000 / $(getconf CLK_TCK))) $requests"
        done
    done >>"$work/results"
}

for port in "$kvs_port" "$redis_port"; do
    until [ "$(redis-cli -p "$port" ping 2>/dev/null)" = PONG ]; do sleep 0.1; done
    benchmark "$port" set 3000000 64 >/dev/null # a million keys are there before anything is measured
done
for _ in $(seq "$pairs"); do
    measure kvs "$kvs_port" "$kvs_pid"
    measure redis "$redis_port" "$redis_pid"
done

python3 - "$work/results" <<'P'
import collections, statistics, sys

runs = collections.defaultdict(list)
for line in open(sys.argv[1]):
    name, depth, command, rate, cpu_us, requests = line.split()
    runs[command, int(depth), name].append((float(rate), float(cpu_us) / int(requests)))


def ratio(a, b, column):
    ratios = [x[column] / y[column] for x, y in zip(a, b)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def median(values, column):
    return statistics.median(value[column] for value in values)


print("| | kvs-node, thousand/s | Redis, thousand/s | throughput, ratio | CPU per operation, µs | CPU, ratio |")
print("|---|---|---|---|---|---|")
for command in "set", "get":
    for depth in 1, 16, 64:
        kvs, redis = runs[command, depth, "kvs"], runs[command, depth, "redis"]
        print(
            f"| {command.upper()}, P={depth} | {median(kvs, 0) / 1000:.0f} | {median(redis, 0) / 1000:.0f} "
            f"| {ratio(kvs, redis, 0)} | {median(kvs, 1):.2f} / {median(redis, 1):.2f} | {ratio(kvs, redis, 1)} |"
        )
P
