#!/usr/bin/env python3
"""Whether a node stays within --memory when its data is many times as large.

Fills the node, then reads and writes: cold (all keys alike), warm (a few keys most of the time), with many connections
and with deep pipelines. During each phase VmRSS is sampled; a row has the highest sample, its part that is not mapped
from files, what INFO counts, and what INFO says it is made of. VmHWM of the kernel is the highest of all.

    bench/memory.py [--memory MIB] [--factor N] [--value BYTES] [--connections N] [--seconds S] [--quick]
"""

import re
import pathlib
import sys
import threading
import time

from bench_node import MIB, Bench, load_end, mib, say, table

PARTS = ("heap", "index", "images", "cache", "expiry", "buffers", "large_values")


class Sampler(threading.Thread):
    """Looks at the node's memory until told to end; keeps the highest it has seen."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node = node
        self.ended = threading.Event()
        self.peak = {"VmRSS": 0, "RssAnon": 0, "RssFile": 0}

    def run(self):
        path = pathlib.Path(f"/proc/{self.node.process.pid}/status")
        while not self.ended.wait(0.02):
            found = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", path.read_text(), re.MULTILINE)}
            if found["VmRSS"] > self.peak["VmRSS"]:
                self.peak = {name: found[name] for name in self.peak}


def main():
    bench = Bench(__doc__)
    bench.parser.add_argument("--memory", type=int, default=256, help="MiB; at least 64")
    bench.parser.add_argument("--factor", type=int, default=20, help="how many times that the data is")
    bench.parser.add_argument("--value", type=int, default=1024, help="bytes; small ones need index, of which there is a limit")
    bench.parser.add_argument("--connections", type=int, default=1000)
    bench.parser.add_argument("--seconds", type=float, default=10, help="of each phase")
    options = bench.options({"memory": 64, "value": 4096, "seconds": 3, "connections": 300})
    budget = options.memory * MIB
    keys = budget * options.factor // (options.value + 48)
    rows = []
    refused = []

    def body():
        node = bench.node("node", "--memory", f"{options.memory}M")

        def phase(name, *arguments):
            say(f"{name} …")
            sampler = Sampler(node)
            sampler.start()
            found = load_end(node.load_begin("--keys", keys, "--value-size", options.value, *arguments), refusals=True)
            info = node.info()
            sampler.ended.set()
            sampler.join()
            peak = sampler.peak
            parts = {part: info[f"used_memory_{part}"] for part in PARTS}
            part = found["fill" if "--fill" in arguments else "run"]
            if part["errors"] > 0:
                refused.append(f"{name}: {part['errors']} requests refused, the first: {part['first_error']}")
            bench.results.setdefault("phases", {})[name] = {**peak, "errors": part["errors"], "used_memory": info["used_memory"], **parts}
            rows.append([name, mib(peak["VmRSS"]), f"{peak['VmRSS'] / budget:.3f}", mib(peak["RssAnon"]), mib(info["used_memory"])])
            rows[-1] += [mib(parts[part]) for part in PARTS]

        run = ("--seconds", options.seconds, "--warmup", 0)
        phase("fill", "--fill", "--seconds", 0, "--connections", 50, "--pipeline", 16)
        phase("reads, cold", *run, "--read-share", 1, "--connections", 200)
        phase("reads and writes, cold", *run, "--connections", options.connections)
        phase("reads and writes, warm", *run, "--distribution", "zipfian", "--connections", options.connections)
        phase("deep pipelines", *run, "--connections", 100, "--pipeline", 128)
        phase("overwrites", *run, "--read-share", 0, "--connections", 50, "--pipeline", 16)
        time.sleep(1)
        phase("reads, warm", *run, "--read-share", 1, "--distribution", "zipfian", "--connections", 50)
        bench.results["VmHWM"] = node.resident_bytes()[1]
        bench.results["disk_bytes"] = node.disk_bytes()

    bench.run(body)
    print(f"--memory {options.memory}M, {keys} keys of {options.value} bytes, data directory {mib(bench.results['disk_bytes'])} MiB,")
    print(f"{options.threads} threads. All in MiB; RSS at its highest in the phase, INFO at its end.")
    table(["phase", "VmRSS", "of the budget", "RssAnon", "used_memory", *PARTS], rows)
    for line in refused:
        print(f"\n{line}")
    share = bench.results["VmHWM"] / budget
    print(f"\nVmHWM: {mib(bench.results['VmHWM'])} MiB, {share:.3f} of the budget (at most 1.05: {'yes' if share <= 1.05 else 'NO'})")
    return 0 if share <= 1.05 else 1


if __name__ == "__main__":
    sys.exit(main())
