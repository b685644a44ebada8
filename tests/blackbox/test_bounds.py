"""Each bound of what connections may take: its setting, its default, what who exceeds it is told, and that others go on."""

import os
import pathlib
import re
import resource
import selectors
import socket
import statistics
import subprocess
import threading
import time

import pytest
from conftest import PATIENCE_SECONDS, SLOW, binary, heavy, wait_for
from wire import Wire, encode

MIB = 1 << 20


def info(wire, name):
    found = re.search(rb"\r\n%s:(\d+)" % name, wire.ask("INFO", "all"))
    return int(found[1])


def ends_with(wire, reply):
    """The connection says this, and ends. What is still on its way may make the end a reset."""
    assert wire.read() == reply
    try:
        return wire.file.read() == b""
    except ConnectionResetError:
        return True


def slow_reader(node):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect((node.host, node.port))
    one.setblocking(False)
    return one


def say_all(one, data):
    """As much as the node takes; it may end the connection."""
    sent = 0
    try:
        while sent < len(data):
            sent += one.send(data[sent : sent + 65536])
    except (BlockingIOError, ConnectionError):
        pass
    return sent


# ---- sizes ----


def test_keys(start_node):
    for flags, limit in (((), 65535), (("--key-max", "100"), 100)):
        node = start_node(*flags)
        with Wire(node.port) as wire:
            assert wire.ask("SET", "k" * limit, "v") == b"+OK\r\n"
            for words in (("SET", "k" * (limit + 1), "v"), ("GET", "k" * (limit + 1)), ("MGET", "a", "k" * (limit + 1))):
                assert wire.ask(*words) == b"-ERR key of %d bytes is too long; the limit is %d\r\n" % (limit + 1, limit)
            assert wire.ask("GET", "k" * limit) == b"$1\r\nv\r\n"


def test_keys_of_frames(start_node, run_client):
    node = start_node("--key-max", "100")
    assert run_client("set", "k" * 100, "v", node=node).returncode == 0
    refused = run_client("set", "k" * 101, "v", node=node)
    assert refused.returncode == 1 and refused.stdout == b"" and b"too large" in refused.stderr


def test_values(start_node):
    node = start_node("--value-max", "1K")
    with Wire(node.port) as wire:
        assert wire.ask("SET", "k", "v" * 1024) == b"+OK\r\n"
        assert wire.ask("SET", "k", "v" * 1025) == b"-ERR value of 1025 bytes is too large; the limit is 1024\r\n"
        assert wire.ask("MULTI") == b"+OK\r\n"
        assert wire.ask("SET", "k", "v" * 300000) == b"-ERR value of 300000 bytes is too large; the limit is 1024\r\n"
        assert wire.ask("SET", "j", "v") == b"+QUEUED\r\n"
        assert wire.ask("EXEC") == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        assert wire.ask("EXISTS", "j") == b":0\r\n"
        assert wire.ask("STRLEN", "k") == b":1024\r\n"


def test_bulk_lengths(start_node):
    for flags, limit in (((), 512 * MIB), (("--bulk-max", "2M", "--value-max", "1M"), 2 * MIB)):
        node = start_node(*flags)
        with Wire(node.port) as wire, Wire(node.port) as other:
            other.socket.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % limit)  # announced only
            wire.socket.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % (limit + 1))
            assert ends_with(wire, b"-ERR Protocol error: invalid bulk length\r\n")
    with Wire(node.port) as wire:
        assert wire.ask("SET", "k", "v" * 2 * MIB) == b"-ERR value of 2097152 bytes is too large; the limit is 1048576\r\n"
        assert wire.ask("PING") == b"+PONG\r\n"


def test_array_lengths(start_node):
    for flags, limit in ((("--memory", "1G"), MIB), (("--args-max", "16"), 16)):
        node = start_node("--threads", "1", *flags)
        with Wire(node.port) as wire, Wire(node.port) as other:
            other.socket.sendall(b"*%d\r\n$6\r\nEXISTS\r\n" % limit)
            wire.socket.sendall(b"*%d\r\n$6\r\nEXISTS\r\n" % (limit + 1))
            assert ends_with(wire, b"-ERR Protocol error: invalid multibulk length\r\n")
    with Wire(node.port) as wire:
        assert wire.ask("EXISTS", *["k"] * 15) == b":0\r\n"


def test_requests(start_node):
    for flags, parts in (((), 40), (("--request-max", "2M"), 5)):
        node = start_node("--value-max", "1M", *flags)
        with Wire(node.port) as wire, Wire(node.port) as other:
            request = encode("EXISTS", *["k" * 60000] * (16 if flags else 32))
            other.socket.sendall(request)
            assert other.read() == b":0\r\n"
            wire.socket.setblocking(False)
            say_all(wire.socket, encode("EXISTS", *["k" * 500000] * parts))
            wire.socket.settimeout(PATIENCE_SECONDS)
            assert ends_with(wire, b"-ERR Protocol error: request too large\r\n")
            assert other.ask("PING") == b"+PONG\r\n"


def test_inline_requests(node):
    with Wire(node.port) as wire:
        wire.socket.sendall(b"PING " + b"x" * 65536)
        assert ends_with(wire, b"-ERR Protocol error: too big inline request\r\n")


# ---- connections ----


def test_connections(start_node):
    node = start_node("--max-clients", "2")
    with Wire(node.port) as one, Wire(node.port) as two:
        assert one.ask("PING") == two.ask("PING") == b"+PONG\r\n"
        with Wire(node.port) as three:
            three.send("PING")
            assert ends_with(three, b"-ERR max number of clients reached\r\n")
        assert one.ask("CONFIG", "GET", "maxclients").endswith(b"$1\r\n2\r\n")
        assert one.ask("PING") == two.ask("PING") == b"+PONG\r\n"


def test_idle_ones_are_closed_and_busy_ones_not(start_node):
    node = start_node("--timeout", "1")
    with Wire(node.port) as busy, Wire(node.port) as idle:
        assert idle.ask("PING") == b"+PONG\r\n"
        idle.socket.setblocking(False)

        def closed():
            assert busy.ask("PING") == b"+PONG\r\n"
            try:
                return idle.socket.recv(1) == b""
            except BlockingIOError:
                return False

        wait_for(closed, "the end of the idle connection")
        assert busy.ask("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("runs", [False, True])
def test_slow_readers_are_stopped_then_dropped(start_node, runs):
    """Who does not read is not read from beyond --output-limit, and is ended after --send-timeout; these may be set later."""
    bounds = [] if runs else ["--output-limit", "64K", "--send-timeout", "1"]
    node = start_node("--threads", "1", *bounds)
    with Wire(node.port) as wire:
        if runs:
            assert wire.ask("CONFIG", "SET", "output-limit", "64kb", "send-timeout", "1") == b"+OK\r\n"
        assert wire.ask("SET", "k", "v" * 10000) == b"+OK\r\n"
        one = slow_reader(node)
        number = one.getsockname()[1]
        begin = time.monotonic()
        say_all(one, encode("GET", "k") * 20000)

        def listed():
            found = re.search(rb":%d .* omem=(\d+)" % number, wire.ask("CLIENT", "LIST"))
            return int(found[1]) if found else None

        most = 0
        while True:
            omem = listed()
            if omem is None:
                break
            most = max(most, omem)
            assert time.monotonic() - begin < PATIENCE_SECONDS
            time.sleep(0.02)
        assert 64 * 1024 <= most < 200 * 1024 and time.monotonic() - begin > 0.9
        assert info(wire, b"dropped_connections") == 1
        one.close()
        assert wire.ask("STRLEN", "k") == b":10000\r\n"


def settings(wire, *names):
    words = Wire.elements(wire.ask("CONFIG", "GET", *names))
    words = [word.split(b"\r\n")[1].decode() for word in words]
    return dict(zip(words[::2], words[1::2]))


def test_config_shows_bounds_as_they_are(start_node):
    names = {
        "key-max": "1000",
        "bulk-max": "2097152",
        "args-max": "1000",
        "client-query-buffer-limit": "3145728",
        "output-limit": "65536",
        "send-timeout": "7",
        "maxmemory-clients": "4194304",
        "pipeline-max": "100",
        "turn-max": "50",
    }
    node = start_node(
        *("--threads", "2", "--key-max", "1000", "--bulk-max", "2M", "--args-max", "1000", "--request-max", "3M"),
        *("--output-limit", "64K", "--send-timeout", "7", "--clients-memory", "4M", "--pipeline-max", "100", "--turn-max", "50"),
    )
    with Wire(node.port) as wire:
        assert settings(wire, *names) == names
        assert settings(wire, "client-output*") == {"client-output-buffer-limit": "normal 0 65536 7 slave 0 0 0 pubsub 0 0 0"}
        assert wire.ask("CONFIG", "SET", "send-timeout", "9", "turn-max", "5", "output-limit", "1mb") == b"+OK\r\n"
        assert settings(wire, "send-timeout", "turn-max") == {"send-timeout": "9", "turn-max": "5"}
        assert settings(wire, "client-output*") == {"client-output-buffer-limit": "normal 0 1048576 9 slave 0 0 0 pubsub 0 0 0"}
        for name in ("key-max", "bulk-max", "args-max", "client-query-buffer-limit", "maxmemory-clients", "pipeline-max"):
            assert b"immutable" in wire.ask("CONFIG", "SET", name, names[name])
        for name, value in [("turn-max", "0"), ("send-timeout", "0"), ("send-timeout", "86401")]:
            assert b"argument must be between 1 and" in wire.ask("CONFIG", "SET", name, value)
        wire.send_all([["INCR", "n"]] * 500)
        assert [wire.read() for _ in range(500)] == [b":%d\r\n" % (i + 1) for i in range(500)]


def test_config_shows_bounds_that_were_not_given(start_node):
    node = start_node("--threads", "2", "--memory", "256M")
    with Wire(node.port) as wire:
        shown = settings(wire, "*")
        assert shown["key-max"] == "65535" and shown["bulk-max"] == str(512 * MIB) and shown["turn-max"] == "2048"
        assert shown["send-timeout"] == "30" and shown["pipeline-max"] == "1024"
        assert int(shown["maxmemory-clients"]) == info(wire, b"used_memory_connections_max")
        assert int(shown["proto-max-bulk-len"]) + 2 * MIB <= int(shown["client-query-buffer-limit"])
        assert int(shown["client-query-buffer-limit"]) <= int(shown["proto-max-bulk-len"]) + 18 * MIB
        assert int(shown["args-max"]) >= 16


def test_a_reader_who_pauses_gets_all_of_it(start_node):
    """To be held back is not to lose anything."""
    node = start_node("--output-limit", "16K", "--pipeline-max", "4", "--turn-max", "3")
    with Wire(node.port) as wire:
        assert wire.ask("SET", "k", "v" * 1000) == b"+OK\r\n"
        one = slow_reader(node)
        one.settimeout(PATIENCE_SECONDS)
        one.sendall(encode("GET", "k") * 300)
        time.sleep(0.2)
        got = b""
        while len(got) < 300 * 1009:
            part = one.recv(65536)
            assert part != b""
            got += part
        assert got == (b"$1000\r\n" + b"v" * 1000 + b"\r\n") * 300
        one.close()


def test_memory_of_all_connections(start_node):
    """The setting is the bound that INFO shows, and more than that is not taken; who comes after the crowd is served."""
    node = start_node("--clients-memory", "4M", "--threads", "1", "--send-timeout", "1")
    with Wire(node.port) as wire:
        assert info(wire, b"used_memory_connections_max") == 4 * MIB
        assert wire.ask("SET", "k", "v" * 10000) == b"+OK\r\n"
        crowd = [slow_reader(node) for _ in range(200)]
        for one in crowd:
            say_all(one, encode("GET", "k") * 200)
        wait_for(lambda: wire.ask("GET", "k") and info(wire, b"waited_connections") > 0, "somebody who had to wait")
        assert info(wire, b"used_memory_connections_peak") < 4 * MIB * 1.1 + 2 * 200 * 16384
        for one in crowd:
            one.close()
        assert wire.ask("STRLEN", "k") == b":10000\r\n"


# ---- large requests ----


class Watch:
    """Asks for a small key all the time, and how much memory large requests have; end() -> the most, and how long it took."""

    def __init__(self, node):
        self._node, self._over, self._most, self._took_s, self.failed = node, threading.Event(), 0, [], None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            with Wire(self._node.port) as wire:
                while not self._over.is_set():
                    begin = time.monotonic()
                    assert wire.ask("GET", "small") == b"$1\r\nv\r\n"
                    self._took_s.append(time.monotonic() - begin)
                    self._most = max(self._most, info(wire, b"used_memory_large_values"))
        except BaseException as error:  # noqa: BLE001 (told by the thread that ends it)
            self.failed = error

    def end(self):
        self._over.set()
        self._thread.join(PATIENCE_SECONDS)
        assert self.failed is None and not self._thread.is_alive()
        return self._most, self._took_s


def say_and_hear(node, requests, rounds, reply):
    """Everybody says all of it, as fast as the node takes it, and gets an answer each time."""
    selector = selectors.DefaultSelector()
    left = len(requests)
    for request in requests:
        one = node.connect()
        one.setblocking(False)
        selector.register(one, selectors.EVENT_READ | selectors.EVENT_WRITE, [memoryview(request), rounds, b"", request])
    while left > 0:
        events = selector.select(PATIENCE_SECONDS)
        assert events != [], "nobody gets on"
        for key, ready in events:
            one, state = key.fileobj, key.data
            if ready & selectors.EVENT_WRITE:
                state[0] = state[0][one.send(state[0][:262144]) :]
                if len(state[0]) == 0:
                    selector.modify(one, selectors.EVENT_READ, state)
            if ready & selectors.EVENT_READ:
                part = one.recv(1000)
                assert part != b"", "ended by the node"
                state[2] += part
                if not state[2].endswith(b"\r\n"):
                    continue
                assert state[2] == reply
                state[0], state[1], state[2] = memoryview(state[3]), state[1] - 1, b""
                if state[1] == 0:
                    selector.unregister(one)
                    one.close()
                    left -= 1
                else:
                    selector.modify(one, selectors.EVENT_READ | selectors.EVENT_WRITE, state)
    selector.close()


def resident_peak(node):
    status = pathlib.Path(f"/proc/{node.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def hold_to_large(node, memory, threads, requests, rounds, reply):
    """An eighth of the memory, what receive buffers may bring on top, and one request of each thread."""
    with Wire(node.port) as wire:
        assert wire.ask("SET", "small", "v") == b"+OK\r\n"
        watch = Watch(node)
        say_and_hear(node, requests, rounds, reply)
        most, took_s = watch.end()
        assert 0 < most <= memory / 8 * 1.25 + 8 * MIB + threads * len(requests[0]) * 1.3
        assert statistics.median(took_s) < 0.02 * SLOW and info(wire, b"dropped_connections") == 0
        wait_for(lambda: info(wire, b"used_memory_large_values") == 0, "memory of large requests given back")
    if not os.environ.get("KVS_SANITIZE"):
        assert resident_peak(node) <= 1.05 * memory


def test_memory_of_requests_of_many_large_arguments(start_node):
    """Each announces one argument after the other; all of them together are seven times what there is for them."""
    node = start_node("--memory", "64M", "--segment-size", "1M", "--threads", "1")
    requests = [
        encode("MSET", *[word for i in range(10) for word in (f"{number}:{i}", bytes([97 + i]) * 70000)]) for number in range(50)
    ]
    hold_to_large(node, 64 * MIB, 1, requests, 3, b"+OK\r\n")
    with Wire(node.port) as wire:
        assert info(wire, b"waited_connections") > 0
        assert wire.ask("GETRANGE", "49:9", "69998", "-1") == b"$2\r\njj\r\n"


@heavy
def test_memory_of_huge_requests(start_node):
    """20 requests of 64 MiB where there is memory for one at a time of each thread."""
    memory = 512 * MIB
    node = start_node("--memory", memory, "--value-max", "16M", "--request-max", "80M", "--clients-memory", "2M", "--threads", "2")
    request = encode("MSETNX", *[word for i in range(4) for word in (f"huge:{i}", bytes([97 + i]) * 16 * MIB)])
    with Wire(node.port) as wire:
        assert wire.ask("SET", "huge:3", "there") == b"+OK\r\n"  # nothing is written: the disk does not say how long it takes
    hold_to_large(node, memory, 2, [request] * 20, 1, b":0\r\n")
    with Wire(node.port) as wire:
        assert wire.ask("GET", "huge:3") == b"$5\r\nthere\r\n"


def test_transactions_of_large_requests_get_done(start_node):
    """What is queued keeps its memory, and the next one needs more: seven times what there is for them, all together."""
    node = start_node("--memory", "64M", "--threads", "1", "--value-max", "1M", "--request-max", "4M")
    failed = []

    def client(number):
        try:
            with Wire(node.port) as wire:
                for turn in range(2):
                    assert wire.ask("MULTI") == b"+OK\r\n"
                    for i in range(4):
                        assert wire.ask("SET", f"{number}:{turn}:{i}", b"v" * 900000) == b"+QUEUED\r\n"
                    assert wire.ask("EXEC") == b"*4\r\n" + b"+OK\r\n" * 4
        except BaseException as error:  # noqa: BLE001 (told by the thread that waits for it)
            failed.append(error)

    clients = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(12)]
    for one in clients:
        one.start()
    for one in clients:
        one.join(PATIENCE_SECONDS)
        assert not one.is_alive()
    assert failed == []


def test_who_waits_for_memory_may_be_killed(start_node):
    node = start_node("--memory", "64M", "--segment-size", "1M", "--threads", "1", "--value-max", "4M")
    with Wire(node.port) as wire:
        # Each has begun a request and does not go on: beyond the second they wait for memory.
        crowd = [Wire(node.port) for _ in range(10)]
        for one in crowd:
            one.socket.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4000000\r\n" + b"v" * 1000)
        wait_for(lambda: info(wire, b"waited_connections") > 0, "somebody who has to wait")
        for one in crowd:
            assert wire.ask("CLIENT", "KILL", "ADDR", "%s:%d" % one.socket.getsockname()) == b":1\r\n"
        wait_for(lambda: info(wire, b"used_memory_large_values") == 0, "memory of those who were killed")
        assert wire.ask("SET", "k", "v" * 4000000) == b"+OK\r\n"
        for one in crowd:
            one.__exit__()


def test_open_files(start_node, tmp_path):
    """The usual soft limit is no bound of connections; where the hard one is too low, the node says so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        node = start_node("--max-clients", "300")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    crowd = [socket.create_connection((node.host, node.port)) for _ in range(300)]
    for one in crowd:
        one.sendall(b"PING\r\n")
    assert all(one.recv(7) == b"+PONG\r\n" for one in crowd)
    for one in crowd:
        one.close()
    assert "open files" not in node.log_text()

    command = ["prlimit", "--nofile=400:400", binary("kvs-node"), "--addr", "127.0.0.1:0", "--data-dir", tmp_path / "data"]
    with subprocess.Popen([*command, "--max-clients", "300"], stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline()
        process.kill()
    assert "400 open files are allowed" in said and "which is 556" in said and "LimitNOFILE=" in said


# ---- a connection's share of the loop ----


def test_pipelines_are_answered_whole_whatever_the_share(start_node):
    for flags in (("--pipeline-max", "1"), ("--turn-max", "1"), ("--pipeline-max", "65536", "--turn-max", "1000000")):
        node = start_node(*flags, "--threads", "2")
        with Wire(node.port) as wire:
            wire.send_all([("INCR", f"n:{i % 7}") for i in range(200)] + [("GET", "n:0")] * 5000)
            replies = [wire.read() for _ in range(5200)]
            assert replies == [b":%d\r\n" % (i // 7 + 1) for i in range(200)] + [b"$2\r\n29\r\n"] * 5000


# ---- settings ----

REFUSED = [
    (["--key-max", "64K"], ["--key-max 64K", "from 1 to 65535"]),
    (["--bulk-max", "1K"], ["--bulk-max 1K", "from 1M to 512M"]),
    (["--args-max", "1"], ["--args-max 1", "from 16 to 1048576"]),
    (["--request-max", "lots"], ["--request-max lots", "from 1M to 1G"]),
    (["--output-limit", "0"], ["--output-limit 0", "from 16K to 1G"]),
    (["--send-timeout", "0"], ["--send-timeout 0", "from 1 to 86400"]),
    (["--clients-memory", "1K"], ["--clients-memory 1K", "from 1M"]),
    (["--pipeline-max", "0"], ["--pipeline-max 0", "from 1 to 65536"]),
    (["--turn-max", "1M"], ["--turn-max 1M", "from 1 to 1000000"]),
    (["--value-max", "0"], ["--value-max 0", "from 1 to 512M"]),
    (["--timeout", "x"], ["--timeout x", "from 0 to"]),
    (["--tcp-keepalive", "99999"], ["--tcp-keepalive 99999", "from 0 to 32767"]),
]


@pytest.mark.parametrize("flags, words", REFUSED, ids=[flags[0] for flags, _ in REFUSED])
def test_a_wrong_setting_is_explained(flags, words):
    done = subprocess.run([binary("kvs-node"), *flags], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_memory_that_is_not_there_is_refused(start_node):
    for flags in (("--clients-memory", "64M"), ("--clients-memory", "1M")):
        node = start_node("--memory", "256M", "--threads", "2", *flags, wait=False)
        assert node.wait() == 1
        assert f"--clients-memory {int(flags[1][:-1]) * MIB}: from 1M for each of the 2 threads to an eighth" in node.log_text()
