"""A node that is stopped and continued, and one that has too few descriptors or too little memory."""

import os
import random
import signal
import socket
import time

import pytest
from checker import Book, Connection, Load, audit
from patience import PATIENCE_SECONDS, wait_for

SEED = int(os.environ.get("KVS_SEED", "1"))
WRITERS = 3
DESCRIPTORS = 48
CROWD = 80

pytestmark = pytest.mark.needs()


@pytest.fixture
def filled(start_node, tmp_path):
    """A data directory with some keys, and the books of them."""
    books = [Book(f"w{i}") for i in range(WRITERS)]
    node = start_node(tmp_path / "data", threads=2)
    load = Load(books, node.port, SEED).start()
    load.wait_for(500)
    assert load.stop() == []
    node.stop()
    return tmp_path / "data", books


def refused_start(start_node, data_dir, *limits):
    """Starts a node that must not start; returns what it said last."""
    node = start_node(data_dir, threads=2, wait=False, prefix=["prlimit", *limits])
    assert node.wait() == 1, node.log_text()
    return node.log_text().strip().splitlines()[-1]


def check_sound(start_node, data_dir, books):
    node = start_node(data_dir, threads=2)
    assert audit(node.port, books) == []
    node.stop()


def test_stopped_and_continued_under_load(filled, start_node):
    data_dir, books = filled
    rng = random.Random(SEED)
    node = start_node(data_dir, threads=2)
    load = Load(books, node.port, rng.random()).start()
    for _ in range(5):
        before = load.acknowledged()
        load.wait_for(before + 200)
        node.signal(signal.SIGSTOP)
        time.sleep(0.3)
        stopped = load.acknowledged()
        node.signal(signal.SIGCONT)
        load.wait_for(stopped + 200)
    node.signal(signal.SIGSTOP)
    node.kill()
    assert load.join() == []
    assert load.errors() == {}
    check_sound(start_node, data_dir, books)


def answers(connection):
    connection.settimeout(1)
    try:
        connection.sendall(b"PING\r\n")
        return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


def test_descriptors_run_out_under_load(filled, start_node):
    """Clients that are too many are not served, those that were there are; when some leave, others are served again."""
    data_dir, books = filled
    node = start_node(data_dir, threads=2, prefix=["prlimit", f"--nofile={DESCRIPTORS}"])
    load = Load(books, node.port, SEED, keys=50, sizes=[10]).start()
    load.wait_for(500)
    crowd = [socket.create_connection(("127.0.0.1", node.port), timeout=PATIENCE_SECONDS) for _ in range(CROWD)]
    try:
        wait_for(lambda: "too many open files" in node.log_text(), node.log_text)
        before = load.acknowledged()
        load.wait_for(before + 500)
        crowd[-1].settimeout(1)
        assert not answers(crowd[-1])
    finally:
        for connection in crowd:
            connection.close()
    with Connection(node.port) as connection:
        assert connection.ask("PING") == "PONG"
    assert load.stop() == []
    assert len(node.log_text().splitlines()) < 100, "the log is flooded"
    assert audit(node.port, books) == []
    node.kill()
    check_sound(start_node, data_dir, books)


def test_no_descriptors_for_a_segment(filled, start_node):
    """Segments need descriptors, too. Writes are refused while there are none, and the cause is in the log."""
    data_dir, books = filled
    node = start_node(data_dir, threads=1, prefix=["prlimit", "--nofile=28"])
    load = Load(books, node.port, SEED, sizes=[10000]).start()
    wait_for(load.errors, "an error")
    assert load.stop() == []
    assert all("MISCONF" in text or "too many open files" in text for text in load.errors()), load.errors()
    assert "cannot make segment" in node.log_text() and "too many open files" in node.log_text()
    assert audit(node.port, books) == []
    node.kill()
    check_sound(start_node, data_dir, books)


@pytest.mark.parametrize("descriptors", [5, 8, 10, 12])
def test_too_few_descriptors_for_a_start(filled, start_node, descriptors):
    data_dir, books = filled
    said = refused_start(start_node, data_dir, f"--nofile={descriptors}")
    assert " error " in said and "open files" in said.lower(), said
    check_sound(start_node, data_dir, books)


if not os.environ.get("KVS_SANITIZE"):  # a sanitized program reserves terabytes of addresses

    # With 60 there is no room for the allocator's own beginnings in a thread, and it ends the process.
    @pytest.mark.parametrize("megabytes", [80, 100, 140])
    @pytest.mark.parametrize("new", [False, True])
    def test_too_little_memory_for_a_start(filled, start_node, tmp_path, megabytes, new):
        data_dir, books = filled
        place = tmp_path / "new" if new else data_dir
        said = refused_start(start_node, place, f"--as={megabytes << 20}").replace(str(tmp_path), "")
        assert " error " in said and "memory" in said.lower(), said
        assert "not found" not in said, said
        check_sound(start_node, place, [] if new else books)
