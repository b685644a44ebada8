"""FLUSHALL and FLUSHDB: all keys go at once and stay away, whatever others do meanwhile, and what they took comes back."""

import os
import random
import threading

import pytest
from conftest import PATIENCE_SECONDS, wait_for
from wire import Wire, encode

redis_py = pytest.importorskip("redis")

SMALL = ["--memory", "64M", "--segment-size", "1M"]


def client_of(node):
    return redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS)


def fill(client, count, size=100, prefix="key"):
    pipeline = client.pipeline(transaction=False)
    for i in range(count):
        pipeline.set(f"{prefix}:{i}", "v" * size)
    pipeline.execute()


@pytest.mark.parametrize("engine", ["kvs", "memory"])
@pytest.mark.parametrize("threads", [1, 3])
def test_all_keys_go(start_node, engine, threads):
    client = client_of(start_node("--threads", threads, "--engine", engine))
    assert client.flushall()
    for flush in (client.flushall, client.flushdb):
        for asynchronous in (False, True):
            fill(client, 3000)
            client.set("volatile", "x", ex=1000)
            assert client.dbsize() == 3001
            assert flush(asynchronous=asynchronous)
            assert client.dbsize() == 0 and client.get("key:5") is None and client.ttl("volatile") == -2
            assert client.randomkey() is None and list(client.scan_iter()) == []
            assert client.incr("key:7") == 1
    assert client.info("stats")["total_error_replies"] == 0


def test_what_it_refuses(node):
    with Wire(node.port) as wire:
        for words in (["FLUSHALL", "now"], ["FLUSHDB", "ASYNC", "SYNC"], ["FLUSHALL", ""]):
            assert wire.ask(*words) == b"-ERR syntax error\r\n"
        assert wire.ask("SET", "a", "1") == b"+OK\r\n"
        assert wire.ask("flushdb", "sync") == b"+OK\r\n"
        assert wire.ask("GET", "a") == b"$-1\r\n"


def test_order_on_a_connection(start_node):
    node = start_node("--threads", 3)
    lines, replies = [], []
    for i in range(40):
        for key in "abcdef":
            lines.append(["SET", key, str(i)])
            replies.append(b"+OK\r\n")
        lines += [["FLUSHALL"], ["GET", "a"], ["SET", "b", "after"], ["GET", "b"], ["EXISTS", "a", "b", "c", "d", "e", "f"]]
        replies += [b"+OK\r\n", b"$-1\r\n", b"+OK\r\n", b"$5\r\nafter\r\n", b":1\r\n"]
    with Wire(node.port) as wire:
        wire.send_all([[word.encode() for word in line] for line in lines])
        assert [wire.read() for _ in lines] == replies


def test_a_watched_key_that_goes_ends_the_transaction(start_node):
    client = client_of(start_node("--threads", 2))
    client.set("there", "1")
    for key, other, kept in (("there", "flushall", False), ("absent", "flushall", True)):
        with client.pipeline() as pipeline:
            pipeline.watch(key)
            getattr(client_of_connection(client), other)()
            pipeline.multi()
            pipeline.set("done", "1")
            if kept:
                assert pipeline.execute() == [True]
            else:
                with pytest.raises(redis_py.WatchError):
                    pipeline.execute()


def client_of_connection(client):
    """Another connection to the same node."""
    return redis_py.Redis(port=client.connection_pool.connection_kwargs["port"], socket_timeout=PATIENCE_SECONDS)


def test_nothing_comes_back_after_a_crash(start_node, tmp_path):
    rng = random.Random(4)
    for round_number in range(6):
        node = start_node(*SMALL, "--threads", 1 + round_number % 3, data_dir=tmp_path / "data")
        client = client_of(node)
        assert client.dbsize() == (1 if round_number else 0)
        fill(client, 4000, size=600)
        for i in rng.sample(range(4000), 300):
            client.delete(f"key:{i}")
        assert client.flushall()
        client.set("last", round_number)
        if round_number % 2:
            node.stop()
        else:
            node.kill9()
    node = start_node(*SMALL, "--threads", 2, data_dir=tmp_path / "data")
    assert client_of(node).keys("*") == [b"last"] and client_of(node).get("last") == b"5"


def test_space_comes_back(start_node):
    node = start_node(*SMALL, "--threads", 2)
    client = client_of(node)
    fill(client, 20000, size=1500)
    client.set("large", b"x" * (3 << 20))
    values = node.data_dir / "values"
    full = sum(1 for name in os.listdir(node.data_dir) if name.endswith(".seg"))
    assert full > 25 and len(os.listdir(values)) == 1
    assert client.flushall()
    client.set("large", b"y" * (2 << 20))

    def is_back():
        persistence = client.info("persistence")
        in_use = persistence["segments"] - persistence["disk_free_segments"]
        return in_use <= 12 and persistence["live_bytes"] < 100000 and len(os.listdir(values)) == 1

    wait_for(is_back, "the space of what was flushed")
    assert client.get("large") == b"y" * (2 << 20)


def test_a_full_disk_is_emptied(start_node):
    node = start_node(*SMALL, "--threads", 2, "--disk-limit", "24M")
    client = client_of(node)
    with pytest.raises(redis_py.ResponseError, match="no disk space left for writes"):
        for i in range(100):
            fill(client, 500, size=1000, prefix=f"round {i}")
    assert client.flushall()

    def takes_writes():
        try:
            fill(client, 5000, size=1000)
            return True
        except redis_py.ResponseError as error:
            assert "no disk space left for writes" in str(error)
            return False

    wait_for(takes_writes, "room for writes")
    assert client.dbsize() == 5000


class Worker(threading.Thread):
    """Does the same again and again until it is told to stop; keeps what went wrong."""

    def __init__(self, node, action):
        super().__init__(daemon=True)
        self.client, self.action = client_of(node), action
        self.done, self.over, self.error = 0, False, None

    def run(self):
        try:
            while not self.over:
                self.action(self.client, self.done)
                self.done += 1
        except Exception as error:
            self.error = error

    def stop(self):
        self.over = True
        self.join(PATIENCE_SECONDS)
        assert not self.is_alive() and self.error is None, self.error


def test_everybody_goes_on_meanwhile(start_node):
    """Counters are read and raised, groups written, keys scanned, and two clients flush: each flush begins all counters anew,
    and no group is seen in part."""
    node = start_node(*SMALL, "--threads", 3, "--space-percent", 150)
    group = [f"member {i}" for i in range(6)]

    def count(client, i):
        before = client.incr(f"counter {i % 7}")
        assert client.append(f"text {i % 7}", "x" * 300) >= 300
        assert before >= 1

    def write_group(client, i):
        client.mset({member: i for member in group})

    def read_group(client, i):
        pipeline = client.pipeline(transaction=True)
        pipeline.mget(group)
        (values,) = pipeline.execute()
        assert len(set(values)) == 1, values

    workers = [Worker(node, action) for action in (count, count, write_group, read_group, read_group)]
    workers.append(Worker(node, lambda client, i: list(client.scan_iter(count=50))))
    workers += [Worker(node, lambda client, i: client.flushall()) for _ in range(2)]
    for worker in workers:
        worker.start()
    wait_for(lambda: min(worker.done for worker in workers) >= 30, "thirty rounds of everything")
    for worker in workers:
        worker.stop()
    client = client_of(node)
    assert client.flushall() and client.dbsize() == 0


def test_a_client_that_goes_before_its_answer(start_node):
    node = start_node("--threads", 2)
    client = client_of(node)
    for i in range(30):
        fill(client, 50)
        with Wire(node.port) as wire:
            wire.send_all([[b"FLUSHALL"]])
        client.ping()

    def flushed():
        fill(client, 1, prefix="other")
        return client.flushall() and client.dbsize() == 0

    wait_for(flushed, "a flush of its own")
    assert client.set("a", "b") and client.get("a") == b"b"


def test_a_stop_amid_flushes(start_node, tmp_path):
    for round_number in range(4):
        node = start_node(*SMALL, "--threads", 2, data_dir=tmp_path / "data")
        wires = [Wire(node.port) for _ in range(4)]
        for wire in wires:
            wire.socket.sendall(b"".join(encode("SET", f"k{i}", "v" * 200) + encode("FLUSHALL") for i in range(20)))
        node.stop()
        for wire in wires:
            wire.socket.close()
    client = client_of(start_node(*SMALL, data_dir=tmp_path / "data"))
    assert client.set("a", "b") and client.get("a") == b"b"
