#!/usr/bin/env python3
"""What the growth of the index costs clients: the latency of writes of new keys beside that of overwrites.

Both at the same rate, in an open loop, alternating, on one node, while other clients read at the same rate. The index
splits its pages one by one as new keys come; since they fill alike, splits come in waves, one for each doubling of the
keys. So before each measurement of growth keys are added until a wave is there. The table says how many splits there were.

    bench/growth.py [--keys N] [--pairs N] [--seconds S] [--rate R] [--quick]
"""

import sys

from bench_node import OPEN_LOOP, Bench, crowded_warning, latency_alone, latency_rows, load_end, open_rate, say, spread, table


def main():
    bench = Bench(__doc__)
    bench.parser.add_argument("--keys", type=int, default=5000000, help="at the beginning")
    bench.parser.add_argument("--memory", type=int, default=4096, help="MiB")
    bench.parser.add_argument("--pairs", type=int, default=7)
    bench.parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    bench.parser.add_argument("--rate", type=int, default=0, help="writes a second, and reads; default: a sixth of the capacity each")
    options = bench.options({"keys": 500000, "memory": 1024, "pairs": 5, "seconds": 4})
    pairs = []
    open_loops = []

    def body():
        # No compaction: it is measured elsewhere.
        node = bench.node("node", "--memory", f"{options.memory}M", "--space-percent", 1000)
        say("fill …")
        node.load("--keys", options.keys, "--fill", "--seconds", 0, "--pipeline", 64)
        rate = bench.results["rate"] = open_rate(node, options, 1 / 6, "--keys", options.keys)
        bench.results["alone"] = [latency_alone(node, share, "--keys", options.keys) for share in (0, 1)]

        def seek_wave():
            """Adds keys, a fiftieth at a time, until pages split; at most a doubling."""
            for _ in range(60):
                keys, splits = node_keys(node.info()), node.info()["index_splits"]
                some = ("--distribution", "latest", "--read-share", 0, "--requests", max(keys // 50, 1), "--pipeline", 64)
                node.load("--keys", keys, *some)
                if node.info()["index_splits"] - splits > 3 * options.threads:
                    return

        def measure(distribution, keys, seed):
            before = node.info()
            common = ("--rate", rate, "--seconds", options.seconds, "--seed", seed, *OPEN_LOOP)
            readers = node.load_begin("--keys", options.keys, "--read-share", 1, *common)
            writers = node.load_begin("--keys", keys, "--read-share", 0, "--distribution", distribution, *common)
            runs = [load_end(process)["run"] for process in (writers, readers)]
            open_loops.extend(runs)
            found = {"writes": runs[0]["writes"], "reads": runs[1]["reads"]}
            after = node.info()
            found["splits"] = after["index_splits"] - before["index_splits"]
            found["bytes per key"] = after["used_memory_index"] / node_keys(after)
            return found

        for number in range(options.pairs):
            seek_wave()
            overwrites = measure("uniform", options.keys, number)
            pairs.append((overwrites, measure("latest", node_keys(node.info()), number)))
            say(f"  pair {number + 1} of {options.pairs}")
        bench.results["pairs"] = pairs

    bench.run(body)
    rate = bench.results["rate"]
    print(f"{options.keys} keys at the beginning, {options.threads} threads, {rate} writes and {rate} reads a second in open loops;")
    alone = bench.results["alone"]
    print(f"one client that waits for each reply: p50 {alone[0]:.0f} us for writes, {alone[1]:.0f} us for reads.")
    print(f"{options.pairs} pairs of {options.seconds:g} s. Median (min - max).")
    rows = latency_rows(pairs, ("writes", "reads"), limit=2)
    rows.append(["splits of the index", *(spread([pair[at]["splits"] for pair in pairs], "{:.0f}") for at in (0, 1)), "", ""])
    rows.append(["bytes of index per key", *(spread([pair[at]["bytes per key"] for pair in pairs]) for at in (0, 1)), "", ""])
    table(["", "overwrites", "new keys", "ratio", "p99.9 at most 2.00"], rows)
    crowded_warning(open_loops)
    if any(pair[1]["splits"] == 0 for pair in pairs):
        print("\nWARNING: there were pairs in which the index did not grow")


def node_keys(info):
    """db0:keys=N,expires=…"""
    return int(info["db0"].partition("keys=")[2].partition(",")[0])


if __name__ == "__main__":
    sys.exit(main())
