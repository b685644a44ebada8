"""--memory is kept to: data twenty times as large, cold and warm, with many connections and deep pipelines.

The kernel says what is resident (VmRSS; VmHWM is the highest that it ever was). INFO must tell the same, and of what it
consists. Not under sanitizers, which have memory of their own.
"""

import json
import os
import pathlib
import re
import socket
import time

import pytest

from conftest import wait_for

MIB = 1024 * 1024
BUDGET = 64 * MIB  # the smallest that there is
VALUE = 4096
KEYS = 20 * BUDGET // VALUE
CROWD = 2000  # connections at the same time
PARTS = ("heap", "index", "images", "cache", "expiry", "buffers", "large_values")

pytestmark = pytest.mark.skipif(bool(os.environ.get("KVS_SANITIZE")), reason="sanitizers have memory of their own")


def status(node):
    text = pathlib.Path(f"/proc/{node.process.pid}/status").read_text()
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def memory_info(node):
    with node.connect() as connection:
        connection.sendall(b"INFO memory\r\n")
        text = b""
        while b"maxmemory_policy" not in text:
            text += connection.recv(65536)
    return {name: int(value) for name, value in re.findall(r"(\w+):(\d+)\r\n", text.decode())}


def check(node, what):
    found = status(node)
    assert found["VmHWM"] <= 1.05 * BUDGET, f"{what}: {found['VmHWM'] / BUDGET:.3f} of --memory"
    info = memory_info(node)
    parts = sum(info[f"used_memory_{part}"] for part in PARTS)
    assert parts == info["used_memory"], what

    def accounted():
        # Stacks, and pages taken in advance, are not in INFO; memory that was taken and not touched yet is, too.
        used, resident = memory_info(node)["used_memory"], status(node)["RssAnon"]
        return resident - BUDGET / 10 <= used <= 1.05 * BUDGET and used - resident <= BUDGET / 4

    wait_for(accounted, f"{what}: INFO's used_memory accounts for RssAnon, but for a tenth of --memory")


def test_memory_is_kept_to(start_node, run_loadgen):
    node = start_node("--memory", "64M", "--segment-size", "1M", "--threads", 2)

    def load(what, *arguments, refusals=False):
        # As long as it takes to fill what can be filled.
        words = ("--json", "--keys", KEYS, "--value-size", VALUE, "--warmup", 0, *arguments)
        result = run_loadgen(*words, server=node)
        found = json.loads(result.stdout)
        part = found["fill" if "--fill" in arguments else "run"]
        # A node may refuse what it has no memory for; it may not take it nevertheless.
        assert refusals and "OOM" in part["first_error"] or part["errors"] == 0, part["first_error"]
        assert part["operations"] > 1000
        check(node, what)

    load("fill", "--fill", "--seconds", 0, "--connections", 50, "--pipeline", 8)
    load("cold", "--seconds", 2, "--connections", 300)
    load("warm", "--seconds", 2, "--connections", 300, "--distribution", "zipfian", "--read-share", "0.9")
    load("deep pipelines", "--seconds", 2, "--connections", 100, "--pipeline", 128, refusals=True)
    load("many connections", "--seconds", 2, "--connections", CROWD, refusals=True)
    time.sleep(0.1)
    assert node.alive()
    node.stop()


@pytest.fixture
def crowd():
    """crowd(node): CROWD connections that read little at a time, closed with the test."""
    opened = []

    def connect(node):
        for _ in range(CROWD):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect((node.host, node.port))
            one.setblocking(False)
            opened.append(one)
        return opened

    yield connect
    for one in opened:
        one.close()


def say(crowd, text, times):
    """To everybody, over and over, as much as the node takes; it may end connections."""
    for _ in range(times):
        for one in crowd:
            try:
                one.send(text)
            except (BlockingIOError, ConnectionError):
                pass


def set_keys(node, count):
    with node.connect() as connection:
        for i in range(count):
            connection.sendall(b"SET key%d %s\r\n" % (i, b"v" * VALUE))
            assert connection.recv(100) == b"+OK\r\n"


def check_crowd(node, crowd, what):
    """While they are there, and when they have gone: then everybody is served again."""
    resident = status(node)
    assert resident["VmHWM"] <= 1.05 * BUDGET, f"{what}: {resident['VmHWM'] / BUDGET:.3f} of --memory"
    assert node.alive()
    for one in crowd:
        one.close()
    info = memory_info(node)
    assert info["used_memory_connections_peak"] > info["used_memory_connections_max"] / 4, what
    set_keys(node, 10)
    check(node, what)


BOUNDED = ("--memory", "64M", "--segment-size", "1M", "--threads", 2)


def test_replies_that_nobody_reads(start_node, crowd):
    node = start_node(*BOUNDED)
    set_keys(node, 50)
    everybody = crowd(node)
    say(everybody, b"".join(b"GET key%d\r\n" % i for i in range(50)), 12)
    check_crowd(node, everybody, "replies that nobody reads")


def test_requests_that_do_not_end(start_node, crowd):
    node = start_node(*BOUNDED)
    everybody = crowd(node)
    say(everybody, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200000\r\n", 1)
    say(everybody, b"x" * 15000, 8)
    check_crowd(node, everybody, "requests that do not end")


def test_requests_of_many_arguments_that_do_not_end(start_node, crowd):
    node = start_node(*BOUNDED)
    everybody = crowd(node)
    say(everybody, b"*30000\r\n$4\r\nMGET\r\n", 1)
    say(everybody, b"$1\r\nk\r\n" * 2000, 8)
    check_crowd(node, everybody, "requests of many arguments that do not end")
