"""The node while its store is being opened: what clients are told, what the operator sees, and how it ends.

A start is held up with a lease (fcntl F_SETLEASE) on a segment file: the kernel lets nobody open it until the lease is
given up. So the tests decide when the store is open, with a store of any size.
"""

import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
from conftest import PATIENCE_SECONDS, SLOW, binary, free_port, wait_for

redis_py = pytest.importorskip("redis")

KEYS = 300

# When somebody has waited for so long, the kernel gives up a lease by itself.
LEASE_BREAK_SECONDS = int(pathlib.Path("/proc/sys/fs/lease-break-time").read_text())


class Hold:
    """Holds up whoever opens the file, from the first to release(). `fd` is open for writing."""

    def __init__(self, path):
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # what the kernel sends when somebody waits for the lease
        self.fd = os.open(path, os.O_RDWR)
        # A node that has just ended may have its files open a moment longer.
        wait_for(self._take, f"a lease on {path}")

    def _take(self):
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            pytest.skip(f"no leases on this file system: {error}")

    def release(self):
        if self.fd is not None:
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            os.close(self.fd)
            self.fd = None


class Connection:
    """A plain socket that speaks RESP."""

    def __init__(self, port):
        def connect():
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
            except ConnectionRefusedError:
                return None

        self.socket = wait_for(connect, "a connection")
        self.file = self.socket.makefile("rb")

    def ask(self, line):
        """Sends an inline command; returns the reply: its line, or the contents of a bulk string; b"" at the end."""
        try:
            self.socket.sendall(line.encode() + b"\r\n")
            reply = self.file.readline()
            if reply.startswith(b"$") and reply != b"$-1\r\n":
                return self.file.read(int(reply[1:]) + 2)[:-2]
            return reply.rstrip(b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return b""

    def ended(self):
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def info(self):
        return dict(line.split(":", 1) for line in self.ask("INFO persistence").decode().splitlines() if ":" in line)

    def close(self):
        self.file.close()
        self.socket.close()


@pytest.fixture
def filled(start_node, tmp_path):
    """A data directory with KEYS keys, whose node was stopped."""
    node = start_node("--threads", "2", data_dir=tmp_path / "data")
    client = redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS)
    client.mget("warm")
    pipeline = client.pipeline(transaction=False)
    for i in range(KEYS):
        pipeline.set(f"k{i}", "x" * 1000 + str(i))
    pipeline.execute()
    client.close()
    node.stop()
    return node.data_dir


@pytest.fixture
def held(filled, start_node):
    """A node that is opening the store and does not get on: (node, hold)."""
    hold = Hold(sorted(filled.glob("*.seg"))[0])
    port = free_port()
    node = start_node("--threads", "2", data_dir=filled, address=f"127.0.0.1:{port}", wait=False)
    node.port = port
    yield node, hold
    hold.release()


def expect_filled(port):
    client = redis_py.Redis(port=port, socket_timeout=PATIENCE_SECONDS)
    assert client.dbsize() == KEYS
    assert client.mget([f"k{i}" for i in range(KEYS)]) == [b"x" * 1000 + str(i).encode() for i in range(KEYS)]
    client.close()


# ---- clients ----


def test_clients_are_told_to_wait_and_then_served(held):
    node, hold = held
    connection = Connection(node.port)
    for line in ["PING", "GET k1", "SET k1 changed", "SET new 1", "DEL k2", "MGET k1 k2", "EXISTS k1", "DBSIZE"]:
        assert re.fullmatch(rb"-LOADING kvs-node is loading its data, \d+ % done; .*", connection.ask(line)), line
    assert connection.ask("ECHO hello") == b"hello" and connection.ask("SELECT 0") == b"+OK"
    assert connection.ask("CLIENT SETNAME me") == b"+OK" and connection.ask("CLIENT GETNAME") == b"me"
    assert connection.ask("CONFIG GET port") == b"*2"
    assert connection.file.read(len("$4\r\nport\r\n$5\r\n12345\r\n")).endswith(b"%d\r\n" % node.port)
    info = connection.info()
    assert info["loading"] == "1" and 0 <= int(info["loading_loaded_bytes"]) <= int(info["loading_total_bytes"])
    assert abs(int(info["loading_start_time"]) - time.time()) < PATIENCE_SECONDS
    assert 0 <= float(info["loading_loaded_perc"]) <= 100 and int(info["loading_eta_seconds"]) >= 0
    with pytest.raises(redis_py.BusyLoadingError):
        redis_py.Redis(port=node.port).get("k1")
    assert "listening on" not in node.log_text()

    hold.release()
    wait_for(lambda: connection.ask("PING") == b"+PONG", "service")
    assert connection.ask("CLIENT GETNAME") == b"me" and connection.ask("EXISTS new") == b":0"
    info = connection.info()
    assert info["loading"] == "0" and "loading_total_bytes" not in info
    expect_filled(node.port)
    connection.close()
    node.stop()


def test_the_binary_protocol_has_a_status_for_it(held, run_client):
    node, hold = held
    Connection(node.port).close()
    node.address = f"127.0.0.1:{node.port}"
    done = run_client("get", "k1", node=node)
    assert done.returncode != 0 and b"kvs-node is loading" in done.stderr, done
    hold.release()
    node.wait_until_serving()
    assert run_client("get", "k1", node=node).stdout.startswith(b"xxx")


def figures_until_served(connection, size):
    """Asks for a value again and again; returns what INFO said meanwhile about the bytes that were loaded."""
    loaded = []
    while True:
        reply = connection.ask("GET key:000000000042")
        if len(reply) == size:
            return loaded
        assert reply.startswith(b"-LOADING "), reply
        info = connection.info()
        if info["loading"] == "1":
            loaded.append(int(info["loading_loaded_bytes"]))
            assert loaded[-1] <= int(info["loading_total_bytes"])
        time.sleep(0.001)


def test_a_start_is_seen_from_its_first_moments(start_node, run_loadgen, tmp_path):
    """With a store that takes a while by itself: connections are taken soon, and never lied to."""
    node = start_node("--threads", "2", data_dir=tmp_path / "data")
    keys, size = 60000, 1000
    fill = run_loadgen(
        *["--fill", "--keys", keys, "--value-size", size, "--seconds", 0, "--pipeline", 64, "--quiet"], server=node
    )
    assert fill.returncode == 0, fill.stdout + fill.stderr
    node.kill9()  # so that there is something to read

    # A test that gets no turn of a processor for a while may miss a start: then it looks at another one like it.
    seen = False
    for attempt in range(20):
        copy = tmp_path / f"copy{attempt}"
        shutil.copytree(node.data_dir, copy)
        port = free_port()
        starting = start_node("--threads", "2", data_dir=copy, address=f"127.0.0.1:{port}", wait=False)
        connection = Connection(port)
        loaded = figures_until_served(connection, size)
        assert loaded == sorted(loaded)
        assert connection.ask("DBSIZE") == b":%d" % keys
        connection.close()
        starting.kill9()
        shutil.rmtree(copy)
        seen = bool(loaded) and loaded[-1] > 0
        if seen:
            break
    assert seen


# ---- the operator ----


def test_progress_is_told_to_the_log_and_the_service_manager(filled, start_node, tmp_path):
    path = str(tmp_path / "notify")
    hold = Hold(sorted(filled.glob("*.seg"))[0])
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(PATIENCE_SECONDS)
            begin = time.monotonic()
            node = start_node("--threads", "2", data_dir=filled, wait=False, environment={"NOTIFY_SOCKET": path})
            for _ in range(3):
                told = manager.recv(4096).decode()
                assert re.fullmatch(r"STATUS=Loading, \d+ %\nEXTEND_TIMEOUT_USEC=\d{7,}", told), told
            line = r"opening the store for \d+ s: \d+ of \d+ bytes read, \d+ %"
            wait_for(lambda: re.search(line, node.log_text()), "a line about how far it is")
            assert time.monotonic() - begin > 1.5
            hold.release()
            while told.startswith("STATUS=Loading"):
                told = manager.recv(4096).decode()
            assert told.startswith("READY=1")
    finally:
        hold.release()
    node.wait_until_serving()
    # One line every five seconds, the first after two.
    assert node.log_text().count("opening the store") <= 1 + (time.monotonic() - begin) / 5


def test_a_second_node_is_refused_while_the_first_is_loading(held):
    node, _ = held
    Connection(node.port).close()
    second = subprocess.run(
        [binary("kvs-node"), "--addr", "127.0.0.1:0", "--data-dir", str(node.data_dir), "--memory", "64M"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert second.returncode == 1 and "another process" in second.stderr
    assert node.alive()


def test_a_store_that_cannot_be_opened_ends_the_node(held):
    """With the message and the status that there were always; who is connected is dropped."""
    node, hold = held
    connection, idle = Connection(node.port), Connection(node.port)
    assert connection.ask("GET k1").startswith(b"-LOADING ")
    for run in [*node.data_dir.glob("*.run"), node.data_dir / "indexes.snapshot"]:
        run.unlink()  # with them it need not read the records
    place = os.pread(hold.fd, 1 << 20, 0).find(b"x" * 1000)
    assert place > 0 and os.pwrite(hold.fd, b"damage", place) == 6  # later batches tell that it was durable
    hold.release()
    assert node.wait() == 1
    assert connection.ended() and idle.ended()
    errors = [line for line in node.log if " error " in line]
    assert len(errors) == 1 and f"cannot open the store in {node.data_dir}: " in errors[0] and "segment" in errors[0]
    assert "listening on" not in node.log_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_the_store(held, start_node, number):
    node, hold = held
    connection, idle, stuck = Connection(node.port), Connection(node.port), Connection(node.port)
    assert connection.ask("SET k1 changed").startswith(b"-LOADING ")
    # One that asks and asks, and takes no reply.
    stuck.socket.settimeout(0.2)
    try:
        for _ in range(10000):
            stuck.socket.sendall(b"PING\r\n" * 1000)
    except TimeoutError:
        pass
    begin = time.monotonic()
    node.process.send_signal(number)
    assert node.wait() == 0
    assert time.monotonic() - begin < LEASE_BREAK_SECONDS / 2  # else it may have waited for the store
    assert connection.ended() and idle.ended()
    assert "stopped in" in node.log_text() and "listening on" not in node.log_text()
    hold.release()
    expect_filled(start_node(data_dir=node.data_dir).port)


def test_a_stop_at_any_moment_of_a_start(filled, start_node):
    for i in range(60):
        node = start_node("--threads", "2", data_dir=filled, wait=False)
        time.sleep(0.0005 * i * SLOW)
        node.process.send_signal(signal.SIGTERM)
        code = node.wait()
        # Before it takes signals it dies of one.
        assert code == 0 or (code == -signal.SIGTERM and "SIGTERM" not in node.log_text()), f"{code}\n{node.log_text()}"
    expect_filled(start_node(data_dir=filled).port)


def test_the_address_of_a_node_that_was_killed_is_taken_over(start_node, tmp_path):
    """The kernel frees a dead process's sockets late: the next start, which listens first, has to wait for that."""
    address = f"127.0.0.1:{free_port()}"
    for i in range(25):
        node = start_node("--threads", "2", data_dir=tmp_path / "data", address=address)
        client = redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS)
        assert client.get("count") == (str(i - 1).encode() if i > 0 else None)
        client.set("count", i)
        node.kill9()
        client.close()
