"""Sessions of real clients: programs that use a client library the way its users do, against a node that dies meanwhile.

A session is a program of tests/clients. It is told where the node is, its password and the version of the protocol, checks
what it gets itself, and says what is wrong on standard error. When it has written data it says "restart" on standard output:
the node is killed and started again, on the same port and data directory, and the session goes on when it reads a line. It
ends with 0 when all was right.
"""

import contextlib
import fcntl
import hashlib
import pathlib
import re
import shutil
import socket
import subprocess
import threading

import pytest
from patience import BIN, PATIENCE_SECONDS

CLIENTS = pathlib.Path(__file__).resolve().parents[1] / "clients"
PASSWORD = "a pass phrase"

# What npm says when there is no registry, or none that can be reached.
NO_REGISTRY = re.compile(
    r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ENOTCACHED|ERR_SOCKET_TIMEOUT|E40[13]|E403|E50[234])\b"
)


@contextlib.contextmanager
def held_port():
    """A TCP port of 127.0.0.1 that nobody else is given, so that a node that is restarted finds it free."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


class Host:
    """A node that can be restarted where it was."""

    def __init__(self, start_node, data_dir, port, *flags):
        self._start = lambda: start_node(*flags, data_dir=data_dir, address=f"127.0.0.1:{port}")
        self.port = port
        self.node = self._start()

    def crash(self):
        """kill -9, and again."""
        self.node.kill9()
        self.node = self._start()


def run_session(command, host, protocol=2):
    """Runs a session to its end."""
    words = [str(word) for word in [*command, "127.0.0.1", host.port, PASSWORD, protocol]]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    errors = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr), daemon=True)
    killer = threading.Timer(PATIENCE_SECONDS, process.kill)
    reader.start()
    killer.start()
    restarts = 0
    try:
        for line in process.stdout:
            assert line == "restart\n", line
            host.crash()
            restarts += 1
            process.stdin.write("restarted\n")
            process.stdin.flush()
        code = process.wait(PATIENCE_SECONDS)
    finally:
        killer.cancel()
        process.kill()
        process.wait(PATIENCE_SECONDS)
        reader.join(PATIENCE_SECONDS)
    assert code == 0, f"{words[:2]} has ended with {code}\n{''.join(errors)}"
    assert restarts == 1
    assert host.node.alive()


@pytest.fixture
def host(start_node, tmp_path):
    """A node with two threads and a password, that a session may have restarted."""
    with held_port() as port:
        yield Host(start_node, tmp_path / "data", port, "--threads", 2, "--requirepass", PASSWORD)


def npm_modules():
    """The folder in which node_modules lies, as the lock file wants it; made when it is not there. Skips without npm, or
    without a registry."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: scripts/install-dependencies.sh test")
    source = CLIENTS / "npm"
    lock = (source / "package-lock.json").read_bytes()
    folder = BIN.resolve() / "npm-clients"
    folder.mkdir(exist_ok=True)
    stamp = folder / "installed"
    with open(folder / "lock", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # tests run side by side
        wanted = hashlib.sha256(lock).hexdigest()
        if not stamp.exists() or stamp.read_text() != wanted:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(source / name, folder)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-timeout=30000"]
            command += ["--fetch-retries=2", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=1000"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
            reason = NO_REGISTRY.search(done.stderr)
            if done.returncode != 0 and reason:
                pytest.skip(f"the clients are not in {folder}, and the npm registry cannot be reached: {reason[0]}")
            assert done.returncode == 0, done.stderr
            stamp.write_text(wanted)
    return folder
