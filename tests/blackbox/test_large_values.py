"""Values of tens of megabytes: through both protocols, kept in files of their own, durable, and out of others' way."""

import hashlib
import shutil
import subprocess
import tempfile
import threading
import time

import pytest

from conftest import BIN, PATIENCE_SECONDS, wait_for

MIB = 1 << 20
FLAGS = ("--memory", "1G", "--segment-size", "8M", "--threads", "2")


class Resp:
    """A connection that speaks RESP."""

    def __init__(self, node):
        self.socket = node.connect()
        self.socket.settimeout(PATIENCE_SECONDS)
        self.file = self.socket.makefile("rb", 1 << 20)
        wait_for(lambda: not (self("GET", "ready?") or b"").startswith(b"-LOADING"), "the end of loading")

    def send(self, *words):
        request = b"*%d\r\n" % len(words)
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            request += b"$%d\r\n%s\r\n" % (len(word), word)
        self.socket.sendall(request)

    def receive(self):
        line = self.file.readline().rstrip(b"\r\n")
        if line[:1] == b"*":
            return [self.receive() for _ in range(int(line[1:]))]
        if line[:1] != b"$":
            return line
        if line == b"$-1":
            return None
        value = self.file.read(int(line[1:]))
        assert self.file.read(2) == b"\r\n"
        return value

    def __call__(self, *words):
        self.send(*words)
        return self.receive()


def value_of(megabytes, seed=0):
    block = hashlib.sha256(b"%d" % seed).digest() * (MIB // 32)
    return b"".join(i.to_bytes(4, "little") + block[4:] for i in range(megabytes))


def files(node):
    return sorted(path.name for path in (node.data_dir / "values").iterdir())


def info(resp, name):
    for line in resp("INFO").decode().splitlines():
        if line.startswith(name + ":"):
            return int(line.split(":")[1])
    raise AssertionError(name + " is not in INFO")


def test_values_come_back_as_they_were_over_both_protocols(start_node, run_client):
    node = start_node(*FLAGS)
    resp = Resp(node)
    for megabytes in (1, 5, 64):
        value = value_of(megabytes, megabytes)
        assert resp("SET", f"resp {megabytes}", value) == b"+OK"
        assert resp("GET", f"resp {megabytes}") == value
        got = run_client("get", f"resp {megabytes}", node=node)
        assert got.returncode == 0 and got.stdout == value + b"\n"
        put = run_client("set", "frame", "--stdin", node=node, stdin=value)
        assert put.returncode == 0, put.stderr
        assert hashlib.sha256(resp("GET", "frame")).digest() == hashlib.sha256(value).digest()
    assert resp("EXISTS", "resp 1", "resp 64", "nothing") == b":2"
    few = resp("MGET", "resp 1", "nothing", "resp 5")
    assert [part and len(part) for part in few] == [MIB, None, 5 * MIB]
    assert info(resp, "large_values") == len(files(node)) == 4


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")
def test_redis_cli_sets_a_value_of_64_mib(start_node):
    node = start_node(*FLAGS)
    resp = Resp(node)
    value = value_of(64)
    command = ["redis-cli", "-p", str(node.port), "-x", "set", "key"]
    assert subprocess.run(command, input=value, capture_output=True, timeout=PATIENCE_SECONDS).stdout.strip() == b"OK"
    assert resp("GET", "key") == value


def test_files_of_replaced_and_removed_values_go_and_others_stay_over_restarts(start_node):
    node = start_node(*FLAGS)
    resp = Resp(node)
    for version in range(3):
        for key in range(4):
            assert resp("SET", f"key{key}", value_of(2, 10 * version + key)) == b"+OK"
    wait_for(lambda: len(files(node)) == 4, "the end of replaced files")
    assert resp("DEL", "key0") == b":1"
    assert resp("SET", "key1", "small") == b"+OK"
    wait_for(lambda: len(files(node)) == 2, "the end of removed files")
    sizes = sum((node.data_dir / "values" / name).stat().st_size for name in files(node))
    wait_for(lambda: info(resp, "large_value_bytes") == sizes, "the right bytes in INFO")
    node.kill9()
    (node.data_dir / "values" / "0000000000000007-00000001.val.new").write_bytes(b"unfinished")
    kept = files(node)[1:]
    again = start_node(*FLAGS, data_dir=node.data_dir)
    resp = Resp(again)
    assert resp("GET", "key0") is None and resp("GET", "key1") == b"small"
    assert resp("GET", "key2") == value_of(2, 22) and resp("GET", "key3") == value_of(2, 23)
    assert files(again) == kept


def test_a_kill_in_the_middle_of_a_set_leaves_the_old_value(start_node):
    node = start_node(*FLAGS)
    old, new = value_of(8, 1), value_of(64, 2)
    assert Resp(node)("SET", "key", old) == b"+OK"
    for delay in (0, 0.02, 0.05, 0.1):
        resp = Resp(node)
        header = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$%d\r\n" % len(new)
        resp.socket.sendall(header + new + b"\r\n" if delay > 0 else header + new[: len(new) // 2])
        time.sleep(delay)
        node.kill9()
        node = start_node(*FLAGS, data_dir=node.data_dir)
        resp = Resp(node)
        value = resp("GET", "key")
        assert value in (old, new)
        if value == new:
            assert resp("SET", "key", old) == b"+OK"
        wait_for(lambda: len(files(node)) == 1, "the sweep of what the kill has left")


def test_too_long_a_value_is_refused_and_the_connection_goes_on(start_node, run_client):
    node = start_node(*FLAGS, "--value-max", "4M")
    resp = Resp(node)
    assert resp("SET", "key", value_of(4)) == b"+OK"
    for megabytes in (5, 200):
        assert resp("SET", "key", value_of(megabytes)).startswith(b"-ERR value of %d bytes is too large" % (megabytes * MIB))
        assert resp("PING") == b"+PONG"
    refused = run_client("set", "key", "--stdin", node=node, stdin=value_of(5))
    assert refused.returncode == 1 and b"too large" in refused.stderr
    assert resp("GET", "key") == value_of(4)


def test_a_limit_beyond_what_memory_allows_is_refused_at_the_start(start_node):
    node = start_node("--value-max", "128M", "--memory", "512M", wait=False)
    assert node.wait() != 0
    assert "--value-max" in node.log_text() and "--memory 1024M" in node.log_text()


def test_damage_in_a_file_is_told_by_reads_and_by_kvs_check(start_node, tmp_path):
    node = start_node(*FLAGS)
    resp = Resp(node)
    assert resp("SET", "key", value_of(3)) == b"+OK" and resp("SET", "other", value_of(2)) == b"+OK"
    node.stop()
    sound = subprocess.run([str(BIN / "kvs-check"), str(node.data_dir)], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    path = max((node.data_dir / "values").iterdir(), key=lambda path: path.stat().st_size)
    with open(path, "r+b") as file:
        file.seek(MIB + 12345)
        file.write(b"\xff")
    check = subprocess.run([str(BIN / "kvs-check"), str(node.data_dir)], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert check.returncode != 0 and path.name in check.stdout
    out = tmp_path / "saved"
    command = [str(BIN / "kvs-check"), str(node.data_dir), "--salvage", str(out)]
    subprocess.run(command, capture_output=True, timeout=PATIENCE_SECONDS)
    again = start_node(*FLAGS, data_dir=node.data_dir)
    resp = Resp(again)
    answer = resp("GET", "key")
    assert answer.startswith(b"-ERR damaged") and path.name.encode() in answer
    assert resp("GET", "other") == value_of(2)
    assert resp("SET", "key", value_of(3, 5)) == b"+OK" and resp("GET", "key") == value_of(3, 5)
    saved = start_node(*FLAGS, data_dir=out)
    resp = Resp(saved)
    assert resp("GET", "other") == value_of(2) and resp("GET", "key") is None


def test_small_requests_go_on_beside_large_ones(start_node):
    """Small GETs on another connection: none waits for a large request to end, let alone most of them. What a large one
    takes is the measure, so that a slow machine is slow for both; the figures are told."""
    node = start_node(*FLAGS)
    resp, small = Resp(node), Resp(node)
    for i in range(100):
        assert small("SET", f"small{i}", "x" * 100) == b"+OK"
    value = value_of(64)
    stop = threading.Event()
    rounds, failures = [], []

    def load():
        try:
            while not stop.is_set():
                begun = time.perf_counter()
                assert resp("SET", "large", value) == b"+OK"
                assert len(resp("GET", "large")) == len(value)
                rounds.append(time.perf_counter() - begun)
        except Exception as error:  # a thread's exception would go unseen
            failures.append(error)

    loader = threading.Thread(target=load)
    loader.start()
    took = []
    deadline = time.monotonic() + 4
    while not failures and (time.monotonic() < deadline or len(rounds) < 5 or len(took) < 200):
        begun = time.perf_counter()
        assert small("GET", f"small{len(took) % 100}") == b"x" * 100
        took.append(time.perf_counter() - begun)
        time.sleep(0.0005)
    stop.set()
    loader.join()
    assert failures == []
    took.sort()
    rounds.sort()
    p50, p99 = took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3
    large = rounds[len(rounds) // 2] * 1e3
    print(f"{len(took)} small GETs beside {len(rounds)} rounds of 64 MiB of {large:.0f} ms: p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
          f"worst {took[-1] * 1e3:.2f} ms")
    assert p50 < large / 20 and p99 < large / 2


@pytest.mark.parametrize("elsewhere", [False, True])
def test_backups_have_large_values(start_node, run_client, tmp_path, elsewhere):
    """As second names of the files, or, on another file system, as copies."""
    place = tempfile.mkdtemp(prefix="kvs-backup-", dir="/dev/shm" if elsewhere else tmp_path)
    try:
        node = start_node(*FLAGS, "--backup-dir", place)
        resp = Resp(node)
        assert resp("SET", "kept", value_of(3, 1)) == b"+OK" and resp("SET", "replaced", value_of(2, 2)) == b"+OK"
        done = run_client("backup", "then", node=node)
        assert done.returncode == 0, done.stderr
        assert resp("SET", "replaced", value_of(2, 3)) == b"+OK" and resp("DEL", "kept") == b":1"
        wait_for(lambda: len(files(node)) == 1, "the end of replaced files")
        node.kill9()
        restored = start_node(*FLAGS, data_dir=f"{place}/then")
        resp = Resp(restored)
        assert resp("GET", "kept") == value_of(3, 1) and resp("GET", "replaced") == value_of(2, 2)
        restored.kill9()  # it would change the directory while that is removed
    finally:
        shutil.rmtree(place)
