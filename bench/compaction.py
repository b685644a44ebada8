#!/usr/bin/env python3
"""What compaction costs when half of the space is live: bytes written, space, and the latency of clients.

Amplification. A node whose disk has room for twice what its live records take is filled and overwritten, keys all alike or
zipfian, as fast as it goes, in rounds of half the live bytes. The last rounds are the steady state.

    write   bytes written per byte of records appended: to the log (batches are padded to 4 KiB), by compaction, by
            checkpoints, and by all of the process as the kernel counts it (/proc/PID/io: the manifest and the zeros of
            new files as well)
    space   bytes of the data directory's files per byte of live records. --disk-limit is 190 % of these: manifest and runs
            come on top of it

A record is the key, the value and a header of 32 bytes; what users sent is less, and is stated.

Latency. Two nodes with the same data: one overwritten to the steady state, as above; the other with no limit and nothing
to compact (it has to make new files instead, which costs writes, too). Both get the same open loop of reads and writes at
a third of what a closed loop gets out of the idle one; alternating, so that a noisy machine is noisy for both.

    bench/compaction.py [--live MIB] [--memory MIB] [--value BYTES] [--pairs N] [--seconds S] [--rate R] [--quick]
"""

import sys

from bench_node import MIB, OPEN_LOOP, Bench, crowded_warning, latency_rows, mib, open_rate, say, spread, table

HEADER_BYTES = 32
KEY_BYTES = 16
SEGMENT_MIB = 8


class Setting:
    """The sizes that follow from the options."""

    def __init__(self, options):
        self.record = (HEADER_BYTES + KEY_BYTES + options.value + 15) // 16 * 16
        self.live = options.live * MIB
        self.keys = self.live // self.record
        self.load = ("--keys", self.keys, "--value-size", options.value, "--threads", 1)
        self.flags = ("--memory", f"{options.memory}M", "--segment-size", f"{SEGMENT_MIB}M")
        self.limit = ("--disk-limit", f"{options.live * 19 // 10}M")
        self.hard = ("--connections", 50, "--pipeline", 16, "--warmup", 0)


def fill(node, setting):
    node.load(*setting.load, *setting.hard, "--fill", "--seconds", 0)


def look(node):
    info = node.info()
    return {
        "appended": info["bytes_appended"],
        "log": info["bytes_written"],
        "compaction": info["compaction_written_bytes"],
        "compaction read": info["compaction_read_bytes"],
        "checkpoints": info["checkpoint_bytes_written"],
        "process": node.written_bytes(),
    }


def between(before, after):
    return {name: after[name] - before[name] for name in before}


def overwrite(node, setting, distribution, rounds):
    """Overwrites in rounds of half the live bytes; what was written in each, and the space taken behind it."""
    found = []
    for number in range(rounds):
        before = look(node)
        skew = ("--distribution", distribution, "--seed", number + 1)
        result = node.load(*setting.load, *setting.hard, *skew, "--read-share", 0, "--requests", setting.keys // 2)
        one = between(before, look(node))
        one["disk"] = node.disk_bytes()
        one["per second"] = result["run"]["per_second"]
        found.append(one)
        say(f"  {distribution}, round {number + 1} of {rounds}: {one['per second']:.0f} writes a second")
    return found


def amplification(rounds, setting):
    total = {name: sum(one[name] for one in rounds) for name in rounds[0]}
    appended = total["appended"]
    figures = {name: total[name] / appended for name in ("log", "compaction", "checkpoints", "process")}
    figures["log and compaction"] = figures["log"] + figures["compaction"]
    figures["space"] = max(one["disk"] for one in rounds) / setting.live
    return figures


def amplification_table(found):
    def row(name, form="{:.2f}"):
        return [name] + [form.format(found[kind][name]) for kind in found]

    def verdict(name):
        return [f"at most 2.00: {name}"] + ["yes" if found[kind][name] <= 2 else "NO" for kind in found]

    names = ("log", "compaction", "log and compaction", "checkpoints", "process", "space")
    rows = [row(name) for name in names] + [verdict("log and compaction"), verdict("space")]
    table(["bytes per byte of records", *found], rows)


def measure(options, bench, setting):
    found = {}
    busy = None
    for distribution in ("zipfian", "uniform"):
        say(f"fill, then overwrites, {distribution} …")
        node = bench.node(distribution, *setting.flags, *setting.limit)
        fill(node, setting)
        rounds = overwrite(node, setting, distribution, options.rounds)
        found[distribution] = amplification(rounds[options.rounds // 2 :], setting)
        bench.results[f"amplification {distribution}"] = {**found[distribution], "rounds": rounds}
        if distribution == "zipfian":
            node.end()
        busy = node
    calm = bench.node("calm", *setting.flags, "--space-percent", 1000)
    say("fill of the node without compaction …")
    fill(calm, setting)
    rate = bench.results["rate"] = open_rate(calm, options, 1 / 3, *setting.load, "--connections", 50)
    pairs = latency(options, setting, (calm, busy), rate)
    bench.results["pairs"] = pairs
    return found, rate, pairs


def provoke(node, setting, seed):
    """Overwrites until compaction is at work."""
    arguments = ("--read-share", 0, "--requests", max(setting.keys // 64, 1), "--seed", seed + 1000)
    for _ in range(32):
        if node.info()["compaction_running"] != 0:
            return
        node.load(*setting.load, *setting.hard, *arguments)


def latency(options, setting, nodes, rate):
    pairs = []
    for number in range(options.pairs):
        pair = []
        for node in nodes:
            nodes[1].rest(10)
            if node is nodes[1]:
                provoke(node, setting, number)
            before = look(node)
            arguments = ("--rate", rate, "--seconds", options.seconds, "--seed", number + 100, *OPEN_LOOP)
            run = node.load(*setting.load, *arguments)["run"]
            run.update(between(before, look(node)))
            pair.append(run)
        pairs.append(pair)
        say(f"  pair {number + 1} of {options.pairs}")
    return pairs


def report(options, setting, found, rate, pairs):
    payload = KEY_BYTES + options.value
    print(f"{setting.keys} keys, values of {options.value} bytes: records of {setting.record} bytes, of which users sent {payload};")
    print(f"{options.live} MiB live, --disk-limit {options.live * 19 // 10}M, --memory {options.memory}M, {options.threads} threads.")
    amplification_table(found)
    print(f"\nLatency: {len(pairs)} pairs of {options.seconds:g} s, open loop of {rate} per second, half of them reads. Median (min - max).")
    rows = latency_rows(pairs, ("reads", "writes"), limit=2)
    table(["", "idle", "compaction", "ratio", "p99.9 at most 2.00"], rows)
    sides = (("idle", 0), ("compaction", 1))
    rows = []
    for title, name in (("compaction, MiB/s read", "compaction read"), ("compaction, MiB/s written", "compaction"), ("process, MiB/s written", "process")):
        rows.append([title] + [spread([pair[at][name] / pair[at]["seconds"] / MIB for pair in pairs], "{:.1f}") for _, at in sides])
    rows.append(["sent late, p99.9, us"] + [spread([pair[at]["send_delays"]["p99_9_us"] for pair in pairs], "{:.0f}") for _, at in sides])
    rows.append(["kept up with"] + [f"{sum(pair[at]['kept_up'] for pair in pairs)} of {len(pairs)}" for _, at in sides])
    table(["during the measurement", *(name for name, _ in sides)], rows)
    crowded_warning([run for pair in pairs for run in pair])
    if any(pair[1]["compaction"] == 0 for pair in pairs):
        print("\nWARNING: there were pairs without any compaction: give more --seconds or a higher --rate")


def main():
    bench = Bench(__doc__)
    bench.parser.add_argument("--live", type=int, default=2048, help="MiB of live records")
    bench.parser.add_argument("--memory", type=int, default=1024, help="MiB, of each of two nodes")
    bench.parser.add_argument("--value", type=int, default=1000, help="bytes")
    bench.parser.add_argument("--rounds", type=int, default=12, help="of overwriting half the live bytes; half of them count")
    bench.parser.add_argument("--pairs", type=int, default=7)
    bench.parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    bench.parser.add_argument("--rate", type=int, default=0, help="requests a second; default: a third of the capacity")
    options = bench.options({"live": 256, "memory": 256, "rounds": 6, "pairs": 5, "seconds": 4})
    setting = Setting(options)
    outcome = []
    bench.run(lambda: outcome.extend(measure(options, bench, setting)))
    report(options, setting, *outcome)


if __name__ == "__main__":
    sys.exit(main())
