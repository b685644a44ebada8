"""What the measuring scripts share: a node of their own, its figures, load, and tables.

Figures come from three sources: INFO, /proc/PID of the node, and kvs-loadgen's JSON. Programs are taken from the folder in
the environment variable KVS_BIN, or from build/release.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(os.environ.get("KVS_BIN", pathlib.Path(__file__).resolve().parent.parent / "build/release"))
MIB = 1024 * 1024


def mib(count):
    return f"{count / MIB:.1f}"


class Node:
    """A kvs-node of our own, on a port of the kernel's choice."""

    def __init__(self, folder, *flags):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder.with_suffix(".log")
        command = [BIN / "kvs-node", "--data-dir", folder, "--addr", "127.0.0.1:0", *flags]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        self.port = None
        deadline = time.monotonic() + 60
        while self.port is None:
            found = re.search(r"(?:listening on|address) 127\.0\.0\.1:(\d+)", self.log.read_text(errors="replace"))
            if found:
                self.port = int(found.group(1))
            elif self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"kvs-node has not started:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.01)
        while self.ask("PING") != "+PONG":
            time.sleep(0.01)

    def ask(self, *words):
        """One command in words without spaces; the reply's first line, or all of a bulk reply."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            reply = b""
            while not reply.endswith(b"\r\n") or reply[:1] == b"$" and len(reply) < self._bulk_size(reply):
                part = connection.recv(65536)
                if not part:
                    break
                reply += part
        head, _, rest = reply.partition(b"\r\n")
        return (rest if head[:1] == b"$" else head).decode()

    @staticmethod
    def _bulk_size(reply):
        head = reply.partition(b"\r\n")[0]
        return len(head) + 2 + int(head[1:]) + 2

    def info(self):
        """INFO as a dictionary; what looks like a number is one."""
        figures = {}
        for line in self.ask("INFO", "all").splitlines():
            name, colon, value = line.partition(":")
            if colon:
                figures[name] = float(value) if re.fullmatch(r"-?\d+\.\d+", value) else value
                figures[name] = int(value) if re.fullmatch(r"-?\d+", value) else figures[name]
        return figures

    def written_bytes(self):
        """What the kernel says that the process has caused to be written to the disk."""
        text = pathlib.Path(f"/proc/{self.process.pid}/io").read_text()
        return int(re.search(r"^write_bytes: (\d+)", text, re.MULTILINE).group(1))

    def resident_bytes(self):
        """VmRSS and VmHWM: now, and at most so far."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return [int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024 for name in ("VmRSS", "VmHWM")]

    def disk_bytes(self):
        """What the files of the data directory take up."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.rglob("*") if path.is_file())

    def load_begin(self, *arguments):
        command = [BIN / "kvs-loadgen", "--addr", f"127.0.0.1:{self.port}", "--json", "--quiet", *arguments]
        return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)

    def load(self, *arguments):
        """Runs kvs-loadgen; its results."""
        return load_end(self.load_begin(*arguments))

    def rest(self, seconds=30):
        """Waits until compaction has nothing to do, but not for ever; whether it has come to rest."""
        deadline = time.monotonic() + seconds
        while self.info()["compaction_running"] != 0:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def load_end(process, refusals=False):
    """The results of a kvs-loadgen. Errors end the measurement, unless the server may refuse what is too much."""
    out, _ = process.communicate()
    if not out:
        sys.exit("kvs-loadgen has measured nothing")
    found = json.loads(out)
    for part in ("fill", "run"):
        if not refusals and found.get(part, {}).get("errors", 0) > 0:
            sys.exit(f"errors under load, the first: {found[part]['first_error']}")
    return found


class Bench:
    """The frame of a script: options, a folder for its data, nodes that end with it, results as Markdown and JSON."""

    def __init__(self, text):
        self.parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.parser.add_argument("--quick", action="store_true", help="a minute or two, small: does it work at all?")
        self.parser.add_argument("--threads", type=int, default=None, help="of the node; default: all processors")
        self.parser.add_argument("--dir", default=None, help="where the data goes; default: the system's temporary folder")
        self.parser.add_argument("--json", metavar="FILE", default=None, help="writes all figures there, too")
        self.nodes = []
        self.results = {}

    def options(self, quick):
        """The options; with --quick, `quick` instead of the defaults."""
        given = self.parser.parse_args()
        if given.quick:
            self.parser.set_defaults(**quick)
            given = self.parser.parse_args()
        given.threads = given.threads or len(os.sched_getaffinity(0))
        self.given = given
        self.results["options"] = vars(given)
        return given

    def node(self, name, *flags):
        self.nodes.append(Node(self.folder / name, "--threads", self.given.threads, *flags))
        return self.nodes[-1]

    def run(self, body):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=self.given.dir))
        load = os.getloadavg()
        try:
            body()
        finally:
            for node in self.nodes:
                node.end()
            shutil.rmtree(self.folder)
        self.results["load_average"] = {"before": load, "after": os.getloadavg()}
        print(f"\nLoad average before {load[0]:.1f}, after {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors.")
        if self.given.json is not None:
            pathlib.Path(self.given.json).write_text(json.dumps(self.results, indent=1) + "\n")


def say(text):
    print(text, file=sys.stderr, flush=True)


def spread(values, form="{:.2f}"):
    """Median (smallest - largest)."""
    return f"{form} ({form} - {form})".format(statistics.median(values), min(values), max(values))


def table(head, rows):
    """Prints a Markdown table."""
    print("\n| " + " | ".join(head) + " |")
    print("|---|" + "---:|" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


# Open loops: with as many places that requests wait for one only while the server stalls for long. A loop with few of them
# is closed whenever the disk takes longer than usual, and then latency says how the backlog grew.
OPEN_LOOP = ("--connections", 500)
CROWDED_MAX = 0.01


def open_rate(node, options, part, *arguments):
    """Requests a second for open loops: --rate; if that is not given, this part of what a closed loop gets."""
    if options.rate != 0:
        return options.rate
    closed = node.load(*arguments, "--seconds", min(options.seconds, 5))
    return max(int(closed["run"]["per_second"] * part), 100)


def crowded_share(run):
    """The part of an open loop's requests that had to wait for a place."""
    return run["crowded"] / max(run["operations"], 1)


def latency_alone(node, read_share, *arguments):
    """p50 in us of one client that waits for each reply: what an open loop at a low rate has to come near."""
    run = node.load("--connections", 1, "--read-share", read_share, "--seconds", 2, "--warmup", 0.2, *arguments)["run"]
    return run["reads" if read_share == 1 else "writes"]["p50_us"]


def crowded_warning(runs):
    """Says so when open loops were not open."""
    worst = max(crowded_share(run) for run in runs)
    if worst > CROWDED_MAX:
        print(f"\nWARNING: in one of the open loops {worst:.0%} of the requests had to wait for a place: lower --rate, or use an idle machine")


LATENCIES = (("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p99_9_us"), ("p99.99", "p99_99_us"), ("max", "max_us"))


def latency_rows(pairs, kinds, limit=None):
    """Rows of a table from pairs of results of kvs-loadgen: what it was without, with, and the ratios of the pairs."""
    rows = []
    for kind in kinds:
        for name, key in LATENCIES:
            without = [pair[0][kind][key] for pair in pairs]
            with_it = [pair[1][kind][key] for pair in pairs]
            ratios = [b / a for a, b in zip(without, with_it)]
            row = [f"{kind} {name}, us", spread(without, "{:.0f}"), spread(with_it, "{:.0f}"), spread(ratios)]
            if limit is not None:
                row.append(("yes" if statistics.median(ratios) <= limit else "NO") if key == "p99_9_us" else "")
            rows.append(row)
    return rows
