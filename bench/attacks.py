#!/usr/bin/env python3
"""What ordinary clients feel of others that do a node no good: the latency of GET and SET without them and beside them.

Four kinds (bench/attackers.py): idle connections, slow readers, connections that send one byte a second, and a flood of
connections that say nothing and go. Pairs of measurements alternate on one node, in open loops of the same rate. A row of
the first table says what became of the attackers: only slow readers may be ended.

    bench/attacks.py [--pairs N] [--seconds S] [--rate R] [--idle N] [--slow N] [--dribble N] [--flood N] [--quick]
"""

import json
import pathlib
import resource
import subprocess
import sys

from bench_node import OPEN_LOOP, Bench, crowded_warning, latency_rows, open_rate, say, spread, table

KINDS = ("idle", "slow", "dribble", "flood")
ATTACKERS = pathlib.Path(__file__).resolve().parent / "attackers.py"


class Attack:
    """Attackers at work, from their begin to end()."""

    def __init__(self, kind, port, count):
        command = [sys.executable, ATTACKERS, kind, "127.0.0.1", port, count]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            sys.exit(f"the attackers ({kind}) have not come so far: see above")

    def end(self):
        out, _ = self.process.communicate()
        if self.process.returncode != 0:
            sys.exit("the attackers have failed: see above")
        return json.loads(out)


def main():
    bench = Bench(__doc__)
    bench.parser.add_argument("--keys", type=int, default=500000)
    bench.parser.add_argument("--pairs", type=int, default=7, help="for each kind")
    bench.parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    bench.parser.add_argument("--rate", type=int, default=0, help="requests a second, half of them writes; default: a quarter of the capacity")
    counts = {"idle": 10000, "slow": 1000, "dribble": 1000, "flood": 5000}
    for kind, count in counts.items():
        bench.parser.add_argument(f"--{kind}", type=int, default=count, help="connections (flood: a second); 0: not this kind")
    options = bench.options({"keys": 20000, "pairs": 2, "seconds": 2, "idle": 1000, "slow": 100, "dribble": 100, "flood": 1000})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = max(getattr(options, kind) for kind in KINDS)
    if hard < most + 1000:
        sys.exit(f"no more than {hard} open files are allowed: raise the limit (ulimit -n), or have fewer connections")
    pairs = {kind: [] for kind in KINDS if getattr(options, kind) > 0}
    became = {kind: [] for kind in pairs}

    def body():
        node = bench.node("node", "--memory", "2G", "--max-clients", 2 * most + 2000, "--space-percent", 1000)
        say("fill …")
        node.load("--keys", options.keys, "--fill", "--seconds", 0, "--pipeline", 64)
        rate = bench.results["rate"] = open_rate(node, options, 1 / 4, "--keys", options.keys)

        def measure(seed):
            common = ("--keys", options.keys, "--rate", rate, "--seconds", options.seconds, "--seed", seed)
            return node.load(*common, *OPEN_LOOP)["run"]

        def measure_beside(kind, seed):
            attack = Attack(kind, node.port, getattr(options, kind))
            try:
                found = measure(seed)
            finally:
                became[kind].append(attack.end())
            return found

        for number in range(options.pairs):
            for kind in pairs:
                without = measure(number)
                pairs[kind].append((without, measure_beside(kind, number)))
            say(f"  pair {number + 1} of {options.pairs}")
        bench.results["pairs"] = pairs
        bench.results["attackers"] = became

    bench.run(body)
    print(f"{options.keys} keys, {options.threads} threads, {bench.results['rate']} requests a second in open loops, half of them writes;")
    print(f"{options.pairs} pairs of {options.seconds:g} s for each kind. Median (min - max).")
    rows = []
    for kind, all_of_it in became.items():
        if kind == "flood":
            per_second = [one["total"] / one["seconds"] for one in all_of_it]
            rows.append([kind, spread(per_second, "{:.0f}") + " a second", "", sum(one["failed"] for one in all_of_it)])
        else:
            rows.append([kind, getattr(options, kind), spread([one["ended"] for one in all_of_it], "{:.0f}"), ""])
    table(["attackers", "connections", "ended by the node", "not let in"], rows)
    for kind, those in pairs.items():
        table([f"beside: {kind}", "without", "with", "ratio"], latency_rows(those, ("reads", "writes")))
    crowded_warning([run for those in pairs.values() for pair in those for run in pair])


if __name__ == "__main__":
    sys.exit(main())
