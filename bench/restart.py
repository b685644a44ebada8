#!/usr/bin/env python3
"""How long a restart takes, beside redis-server with the same keys on the same disk.

First pairs of kvs-node after SIGKILL, in the middle of its life, and Redis from its append-only file; then pairs of kvs-node
after SIGTERM and Redis from its RDB file. Each is measured from the start of the process to the first PONG, which both give
only when all data is there. Medians, smallest and largest; ratios from the pairs.

    bench/restart.py [--keys N] [--rounds N] [--threads N] [--dir DIR]
"""

import argparse
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(os.environ.get("KVS_BIN", pathlib.Path(__file__).parent.parent / "build/release"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, text):
    """The first line of the reply; None while nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(text)
            return connection.recv(4096).split(b"\r\n")[0]
    except OSError:
        return None


class Server:
    """A process that is started on a port, and ready when it answers PING with PONG."""

    def __init__(self, arguments, log):
        self.port = free_port()
        self.arguments = [str(argument).replace("PORT", str(self.port)) for argument in arguments]
        self.log = log
        self.process = None

    def start(self):
        begin = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.arguments, stdout=log, stderr=log)
        while ask(self.port, b"PING\r\n") != b"+PONG":
            if self.process.poll() is not None:
                sys.exit(f"{self.arguments[0]} has ended with {self.process.returncode}: see {self.log}")
            time.sleep(0.002)
        return time.monotonic() - begin

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait()

    def keys(self):
        return int(ask(self.port, b"DBSIZE\r\n")[1:])


def fill(server, keys):
    command = [BIN / "kvs-loadgen", "--addr", f"127.0.0.1:{server.port}", "--fill", "--keys", keys]
    subprocess.run([str(part) for part in [*command, "--pipeline", 64, "--seconds", 0]], check=True, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=5000000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dir", default=None, help="where the data goes; default: the system's temporary folder")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="restart-", dir=options.dir))
    servers = []

    def server(name, *arguments):
        (folder / name).mkdir()
        servers.append(Server(arguments, folder / f"{name}.log"))
        return servers[-1]

    def redis(name, *arguments):
        return server(name, "redis-server", "--port", "PORT", "--dir", folder / name, "--save", "", *arguments)

    node = server("node", BIN / "kvs-node", "--addr", "127.0.0.1:PORT", "--data-dir", folder / "node", "--threads", options.threads)
    rdb = redis("rdb")
    aof = redis("aof", "--appendonly", "yes", "--appendfsync", "no", "--aof-use-rdb-preamble", "no")
    times = {"node clean": [], "redis RDB": [], "node killed": [], "redis AOF": []}
    try:
        for one in (node, rdb, aof):
            one.start()
            fill(one, options.keys)
        subprocess.run(["redis-cli", "-p", str(rdb.port), "save"], check=True, stdout=subprocess.DEVNULL)
        rdb.end(signal.SIGKILL)
        aof.end(signal.SIGTERM)

        def pairs(mine, mine_ends, other, other_name):
            for _ in range(options.rounds):
                for name, one, how in ((mine, node, mine_ends), (other_name, other, signal.SIGKILL)):
                    times[name].append(one.start())
                    if one.keys() != options.keys:
                        sys.exit(f"{name}: {one.keys()} keys, not {options.keys}")
                    one.end(how)

        node.end(signal.SIGKILL)
        pairs("node killed", signal.SIGKILL, aof, "redis AOF")
        node.start()
        node.end(signal.SIGTERM)
        pairs("node clean", signal.SIGTERM, rdb, "redis RDB")
    finally:
        for one in servers:
            if one.process is not None and one.process.poll() is None:
                one.end(signal.SIGKILL)
        shutil.rmtree(folder)

    print(f"{options.keys} keys of 64 bytes, {options.rounds} rounds, {options.threads} threads; seconds: median (min - max)")
    for name, taken in times.items():
        print(f"  {name:12} {statistics.median(taken):7.3f} ({min(taken):.3f} - {max(taken):.3f})")
    for mine, other in (("node clean", "redis RDB"), ("node killed", "redis AOF")):
        ratios = [b / a for a, b in zip(times[mine], times[other])]
        print(f"  {other} / {mine}: {statistics.median(ratios):.1f} ({min(ratios):.1f} - {max(ratios):.1f})")


if __name__ == "__main__":
    main()
