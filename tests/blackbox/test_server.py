"""Commands about the node itself, from outside: what only real sockets, clocks and processes show."""

import socket
import time

import pytest
from patience import wait_for
from wire import Wire


def figure(wire, section, name):
    for line in wire.ask("INFO", section).split(b"\r\n"):
        if line.startswith(name.encode() + b":"):
            return int(line.split(b":")[1])
    raise KeyError(name)


def test_a_monitor_that_does_not_read_ends_and_takes_no_memory(start_node):
    node = start_node("--threads", "2")
    with Wire(node.port) as wire:
        monitors = []
        for _ in range(4):
            monitor = socket.socket()
            monitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            monitor.connect(("127.0.0.1", node.port))
            monitor.sendall(b"MONITOR\r\n")
            assert monitor.recv(5) == b"+OK\r\n"
            monitors.append(monitor)
        deadline = time.monotonic() + 60
        while figure(wire, "clients", "connected_clients") > 1:
            assert time.monotonic() < deadline
            wire.send_all([(b"ECHO", b"x" * 900)] * 500)
            for _ in range(500):
                wire.read()
        assert figure(wire, "memory", "used_memory_connections_peak") <= figure(wire, "memory", "used_memory_connections_max")
        assert "MONITOR does not keep up" in node.log_text()
        for monitor in monitors:
            monitor.close()


def test_shutdown_ends_the_process_in_order(start_node):
    node = start_node("--threads", "2")
    with Wire(node.port) as wire, Wire(node.port) as other:
        wire.ask("KVS.DURABILITY", "relaxed")
        assert wire.ask("SET", "a", "b") == b"+OK\r\n"
        other.send("SHUTDOWN")
        assert other.file.read() == b"" and wire.file.read() == b""
    assert node.process.wait(timeout=60) == 0
    node = start_node("--threads", "1", data_dir=node.data_dir)
    with Wire(node.port) as wire:
        assert wire.ask("GET", "a") == b"$1\r\nb\r\n"


@pytest.mark.parametrize("who, allowed", [("no", False), ("local", True), ("yes", True)])
def test_debug_is_for_those_who_may(start_node, who, allowed):
    node = start_node("--enable-debug-command", who)
    with Wire(node.port) as wire:
        reply = wire.ask("DEBUG", "SLEEP", "0.02")
        assert reply == b"+OK\r\n" if allowed else reply.startswith(b"-ERR DEBUG command not allowed.")
        slow = wire.ask("SLOWLOG", "GET")  # what has slept longer than the usual bound of ten milliseconds is in it
        assert (b"\r\nSLEEP\r\n" in slow) == allowed
        histogram = wire.ask("LATENCY", "HISTOGRAM", "debug")
        slept = any(b":%d\r\n:1\r\n" % us in histogram for us in (33816, 67633, 135266, 270532))
        assert slept == allowed and b":16908\r\n" not in histogram


def test_the_log_level_changes_at_once(start_node):
    node = start_node()
    with Wire(node.port) as wire:
        assert wire.ask("CONFIG", "SET", "loglevel", "WARNING") == b"+OK\r\n"
        assert wire.ask("CONFIG", "GET", "loglevel") == b"*2\r\n$8\r\nloglevel\r\n$7\r\nwarning\r\n"
        assert wire.ask("SAVE") == b"+OK\r\n"
        assert "is complete" not in node.log_text()
        assert wire.ask("CONFIG", "SET", "loglevel", "notice") == b"+OK\r\n"
        time.sleep(1)  # backups of one second would have one name
        assert wire.ask("SAVE") == b"+OK\r\n"
        wait_for(lambda: "is complete" in node.log_text(), "the line about the backup")


def test_waitaof_of_a_cache_is_refused(start_node):
    node = start_node("--engine", "memory")
    with Wire(node.port) as wire:
        assert wire.ask("WAITAOF", "1", "0", "0").startswith(b"-ERR WAITAOF cannot be used when numlocal is set")
        assert wire.ask("WAITAOF", "0", "1", "10") == b"*2\r\n:0\r\n:0\r\n"
        assert wire.ask("SAVE").startswith(b"-ERR ")
