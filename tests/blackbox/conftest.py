"""Fixtures for the tests that see the real programs from outside.

The folder of the programs is in KVS_BIN. Fixtures:

  start_node(*flags, data_dir=None, address="127.0.0.1:0", engine flags, …) -> Node
      Starts a kvs-node on a port of the kernel's choice, waits until it serves, and ends it with the test. May be called
      several times, also again on the data directory of a node that has ended.
  node -> Node
      One node with the defaults.
  run_client(*arguments, node=None, stdin=None, …) -> subprocess.CompletedProcess (bytes)
      Runs kvs-client, with --addr of the node if one is given.
  run_loadgen(*arguments, server=None, …) -> subprocess.CompletedProcess (text)
      Runs kvs-loadgen, with --addr of the server if one is given.
  redis -> RedisServer
      A redis-server without persistence; the test is skipped where there is none.

Only processes started here are ever signalled.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from patience import BIN, PATIENCE_SECONDS, wait_for

# Sanitized programs are several times slower: as much longer goes on what goes on for a while.
SLOW = 5 if os.environ.get("KVS_SANITIZE") else 1

# On a test, or one of its parameters: more of what a sanitizer sees in another one, too, and it would take minutes.
heavy = pytest.mark.skipif(SLOW > 1, reason="more of the same, and a sanitized program takes long")

# What ctest is told when nothing was tested, because what it takes is not there (SKIP_RETURN_CODE).
ALL_SKIPPED = 77


def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    ran = sum(len(reporter.stats.get(kind, ())) for kind in ("passed", "failed", "error", "xfailed", "xpassed"))
    if exitstatus == 0 and ran == 0 and reporter.stats.get("skipped"):
        session.exitstatus = ALL_SKIPPED


ADDRESS = re.compile(r"(?:listening on|address) (127\.0\.0\.1:\d+|\[::1\]:\d+)")

# Small, so that a node starts at once; any of them can be given otherwise.
NODE_DEFAULTS = {"--memory": "256M", "--segment-size": "4M"}


def binary(name):
    """The path of one of our programs; fails the test when it has not been built."""
    path = BIN / name
    if not path.exists():
        pytest.fail(f"{path} does not exist: build the project, or set KVS_BIN to the folder of its programs")
    return str(path)


class Node:
    """A running kvs-node.

    address     "127.0.0.1:PORT" as the node reports it; None when it was started with address=None
    host, port  the same in two
    data_dir    pathlib.Path
    process     subprocess.Popen
    log         list of the lines it has written to standard error so far
    """

    def __init__(self, flags, data_dir, address, environment):
        self.data_dir = data_dir
        self.log = []
        command = [binary("kvs-node"), "--data-dir", str(data_dir)]
        if address is not None:
            command += ["--addr", address]
        for flag, value in NODE_DEFAULTS.items():
            if not any(given == flag or str(given).startswith(flag + "=") for given in flags):
                command += [flag, value]
        command += [str(flag) for flag in flags]
        self.command = command
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        # Somebody must read, or a full pipe would stop the node.
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self.address = None
        self.host = None
        self.port = None

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line.decode("utf-8", "replace").rstrip("\n"))

    def log_text(self):
        return "\n".join(self.log)

    def _find_address(self):
        for line in list(self.log):
            found = ADDRESS.search(line)
            if found:
                return found.group(1)
        if self.process.poll() is not None:
            self._reader.join(PATIENCE_SECONDS)
            pytest.fail(f"kvs-node ended with {self.process.returncode}: {self.command}\n{self.log_text()}")
        return None

    def wait_until_serving(self):
        self.address = wait_for(self._find_address, "kvs-node's address on standard error")
        host, _, port = self.address.rpartition(":")
        self.host = host.strip("[]")
        self.port = int(port)

    def connect(self):
        """A plain TCP socket to the node."""
        return socket.create_connection((self.host, self.port), timeout=PATIENCE_SECONDS)

    def alive(self):
        return self.process.poll() is None

    def wait(self):
        """Waits for the process to end by itself; returns its exit code."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return code

    def stop(self):
        """SIGTERM; the node must end in time and with exit code 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"kvs-node ended with {code} after SIGTERM\n{self.log_text()}"

    def kill9(self):
        """SIGKILL: a crash of the process, not of the machine."""
        self.process.kill()
        self.wait()


@pytest.fixture
def start_node(tmp_path):
    """Starts nodes; see the head of this file. With wait=False the node may also fail to start."""
    nodes = []

    def start(*flags, data_dir=None, address="127.0.0.1:0", environment=None, wait=True):
        if data_dir is None:
            data_dir = tmp_path / f"data{len(nodes)}"
        node = Node(flags, pathlib.Path(data_dir), address, environment or {})
        nodes.append(node)
        if wait and address is not None:
            node.wait_until_serving()
        return node

    yield start
    for node in nodes:
        if node.alive():
            node.kill9()


@pytest.fixture
def node(start_node):
    """One node with the defaults."""
    return start_node()


@pytest.fixture
def run_client():
    """Runs kvs-client to its end. `arguments` may be str or bytes; output is bytes."""

    def run(*arguments, node=None, stdin=b"", timeout=PATIENCE_SECONDS, **options):
        command = [binary("kvs-client")]
        if node is not None:
            command += ["--addr", node.address]
        command += arguments
        options.setdefault("stdout", subprocess.PIPE)
        return subprocess.run(command, input=stdin, stderr=subprocess.PIPE, timeout=timeout, **options)

    return run


@pytest.fixture
def run_loadgen():
    """Runs kvs-loadgen to its end; output is text."""

    def run(*arguments, server=None):
        command = [binary("kvs-loadgen")]
        if server is not None:
            command += ["--addr", server.address]
        command += [str(argument) for argument in arguments]
        # No limit for a long run: it gives up by itself when its server falls silent.
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    return run


def free_port():
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RedisServer:
    """A running redis-server: address, port, unix_path, process."""

    def __init__(self, folder):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.unix_path = str(folder / "redis.sock")
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.unix_path, "--databases", "1"]
            + ["--save", "", "--appendonly", "no", "--dir", str(folder), "--enable-debug-command", "yes"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    def command(self, *words):
        """Sends one command and returns its reply, a line or a bulk string, byte for byte."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as connection:
            request = b"*%d\r\n" % len(words)
            for word in words:
                word = word if isinstance(word, bytes) else str(word).encode()
                request += b"$%d\r\n%s\r\n" % (len(word), word)
            connection.sendall(request)
            with connection.makefile("rb") as stream:
                reply = stream.readline()
                if reply.startswith(b"$") and reply != b"$-1\r\n":
                    reply += stream.read(int(reply[1:]) + 2)
                return reply


@pytest.fixture
def redis(tmp_path):
    """A redis-server without persistence."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path)
    try:
        wait_for(server.answers, "redis-server's answer")
        yield server
    finally:
        server.process.kill()
        server.process.wait(PATIENCE_SECONDS)
