"""The node as its operator sees it: options, messages, start, stop, restart."""

import os
import random
import signal
import socket
import subprocess
import threading
import time

import pytest
from conftest import PATIENCE_SECONDS, binary, free_port, wait_for

redis_py = pytest.importorskip("redis")


def run_node(*flags):
    """Runs a kvs-node that is expected to end by itself."""
    command = [binary("kvs-node"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_SECONDS)


def client_of(node, **options):
    return redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS, **options)


# ---- options ----

BAD_OPTIONS = [
    (["--addr", "localhost:1"], ["--addr", "localhost:1", "IP:PORT"]),
    (["--addr", "127.0.0.1"], ["--addr", "127.0.0.1"]),
    (["--addr", "127.0.0.1:65536"], ["--addr"]),
    (["--addr", "127.0.0.1:1", "--addr", "127.0.0.1:2", "--addr", "127.0.0.1:3", "--addr", "127.0.0.1:4"], ["at most 3"]),
    (["--addr", "none"], ["--unix"]),
    (["--addr", "none", "--addr", "127.0.0.1:1", "--unix", "x"], ["--addr", "combined"]),
    (["--addr", "0.0.0.0:4000"], ["0.0.0.0:4000", "protected mode", "--no-protected-mode"]),
    (["--addr", "[::]:4000"], ["[::]:4000", "protected mode"]),
    (["--unix", "x" * 200], ["--unix", "107"]),
    (["--threads", "0"], ["--threads", "0", "1 to 64"]),
    (["--threads", "65"], ["--threads", "65", "1 to 64"]),
    (["--threads", "two"], ["--threads", "two"]),
    (["--memory", "1M"], ["--memory", "1M", "64M"]),
    (["--memory", "lots"], ["--memory", "lots", "512M"]),
    (["--memory", "99999999999G"], ["--memory"]),
    (["--segment-size", "3M"], ["--segment-size", "3M", "power of two"]),
    (["--segment-size", "2G"], ["--segment-size", "2G"]),
    (["--disk-limit", "all"], ["--disk-limit", "all", "100G"]),
    (["--space-percent", "119"], ["--space-percent", "119", "120 to 1000"]),
    (["--space-percent", "1001"], ["--space-percent", "1001", "120 to 1000"]),
    (["--engine", "rocket"], ["--engine", "rocket", "kvs", "memory"]),
    (["--durability", "maybe"], ["--durability", "maybe", "relaxed"]),
    (["--relaxed-interval", "0"], ["--relaxed-interval", "0", "60000"]),
    (["--max-clients", "-1"], ["--max-clients", "-1"]),
    (["--log-level", "loud"], ["--log-level", "loud", "debug"]),
    (["--data-dir", ""], ["--data-dir"]),
    (["--nonesuch"], ["--nonesuch", "--help"]),
    (["--threads"], ["--threads", "value is missing"]),
    (["--check=yes"], ["--check=yes"]),
    (["-x"], ["-x"]),
    (["stray"], ["stray"]),
]


@pytest.mark.parametrize("flags, words", BAD_OPTIONS, ids=[" ".join(flags)[:40] for flags, _ in BAD_OPTIONS])
def test_a_bad_option_is_explained(flags, words):
    done = run_node(*flags)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_help_and_version():
    done = run_node("--help")
    assert done.returncode == 0 and done.stderr == ""
    for option in ["--addr", "--unix", "--data-dir", "--threads", "--memory", "--segment-size", "--engine", "--durability"]:
        assert option in done.stdout
    assert "--disk-limit" in done.stdout and "--space-percent" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert run_node("-h").stdout == done.stdout
    version = run_node("--version")
    assert version.returncode == 0 and version.stdout.startswith("kvs-node ") and run_node("-V").stdout == version.stdout


def test_check_reports_on_the_machine(tmp_path):
    done = run_node("--check", "--data-dir", tmp_path / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: " in done.stdout.splitlines()[-1]
    assert run_node("--check", "--data-dir", "/proc/none").returncode == 1


# ---- start ----


def test_start_lines_say_what_there_is(start_node, tmp_path):
    path = str(tmp_path / "kvs.sock")
    node = start_node("--threads", "2", "--unix", path)
    wait_for(lambda: f"listening on unix:{path}" in node.log_text(), "the line about the Unix socket")
    text = node.log_text()
    for words in ["kvs-node ", "engine kvs", "2 threads", "io_uring", str(node.data_dir), "durability", "new store"]:
        assert words in text
    node.stop()
    assert not os.path.exists(path)


def test_unix_socket_alone(start_node, tmp_path):
    path = str(tmp_path / "kvs.sock")
    node = start_node("--addr", "none", "--unix", path, "--threads", "2", address=None)
    wait_for(lambda: "listening on" in node.log_text(), "the node")
    assert "127.0.0.1" not in node.log_text()
    client = redis_py.Redis(unix_socket_path=path)
    for i in range(100):
        client.set(f"k{i}", i)
    assert client.mget([f"k{i}" for i in range(100)]) == [str(i).encode() for i in range(100)]
    client.close()

    second = run_node("--addr", "none", "--unix", path, "--data-dir", tmp_path / "other", "--memory", "64M")
    assert second.returncode == 1 and "address already in use" in second.stderr and path in second.stderr

    node.kill9()
    assert os.path.exists(path)
    again = start_node("--addr", "none", "--unix", path, address=None, data_dir=node.data_dir)
    wait_for(lambda: "listening on" in again.log_text(), "the node over a stale socket file")
    assert redis_py.Redis(unix_socket_path=path).get("k7") == b"7"
    again.stop()
    assert not os.path.exists(path)


def test_several_addresses(start_node):
    ports = [free_port(), free_port()]
    node = start_node("--addr", f"127.0.0.1:{ports[0]}", "--addr", f"[::1]:{ports[1]}", "--threads", "2")
    redis_py.Redis(port=ports[0]).set("a", "1")
    assert redis_py.Redis(host="::1", port=ports[1]).get("a") == b"1"
    assert client_of(node).get("a") == b"1"


def test_a_port_in_use_is_named(node, redis, tmp_path):
    for port in (node.port, redis.port):
        done = run_node("--addr", f"127.0.0.1:{port}", "--data-dir", tmp_path / "other", "--memory", "64M", "--threads", "2")
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}: address already in use" in done.stderr and "--addr" in done.stderr
    assert client_of(node).ping()


def test_a_data_directory_in_use_is_named(node):
    done = run_node("--addr", "127.0.0.1:0", "--data-dir", node.data_dir, "--memory", "64M")
    assert done.returncode == 1 and str(node.data_dir) in done.stderr and "another process" in done.stderr
    assert client_of(node).ping()


def test_another_engine_is_refused(node):
    node.stop()
    done = run_node("--addr", "127.0.0.1:0", "--data-dir", node.data_dir, "--engine", "memory", "--memory", "64M")
    assert done.returncode == 1 and str(node.data_dir) in done.stderr and "kvs" in done.stderr


def test_a_data_directory_that_cannot_be_made_is_named():
    done = run_node("--addr", "127.0.0.1:0", "--data-dir", "/proc/none/data", "--memory", "64M")
    assert done.returncode == 1 and "/proc/none/data" in done.stderr


# ---- stop ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_in_order_with_idle_clients_connected(start_node, number):
    node = start_node("--threads", "2")
    idle = [node.connect() for _ in range(20)]
    client = client_of(node)
    for i in range(200):
        client.set(f"k{i}", i)
    node.process.send_signal(number)
    assert node.wait() == 0
    assert "stopped in" in node.log_text()
    for connection in idle:
        assert connection.recv(1) == b""
        connection.close()


def test_a_pipeline_under_way_is_answered_before_the_stop(start_node):
    """What was acknowledged before SIGTERM is there after it; replies are whole."""
    node = start_node("--threads", "2")
    connection = node.connect()
    request = b"".join(b"SET k%d %d\r\n" % (i, i) for i in range(5000))
    connection.sendall(request)
    time.sleep(0.01)
    node.process.send_signal(signal.SIGTERM)
    received = b""
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            break
        if not part:
            break
        received += part
    assert node.wait() == 0
    assert received == b"+OK\r\n" * (len(received) // 5)
    acknowledged = len(received) // 5
    again = start_node("--threads", "2", data_dir=node.data_dir)
    values = client_of(again).mget([f"k{i}" for i in range(acknowledged)]) if acknowledged else []
    assert values == [str(i).encode() for i in range(acknowledged)]


def stuck_reader(node):
    """A client that asked for more than a connection can hold, got the first byte of it, and takes no more."""
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect((node.host, node.port))
    stuck.settimeout(PATIENCE_SECONDS)
    stuck.sendall(b"GET big\r\n" * 50)
    assert stuck.recv(1) == b"$"
    return stuck


def test_a_stuck_reader_does_not_keep_the_node(start_node):
    node = start_node()
    client = client_of(node)
    client.set("big", b"x" * 1000000)
    with stuck_reader(node):
        node.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "a second signal drops connections" in node.log_text(), "the line about the first signal")
        time.sleep(0.5)
        assert node.alive()
        node.process.send_signal(signal.SIGTERM)
        assert node.wait() == 0
    # Not by itself, after a while.
    assert "dropping connections" in node.log_text() and "dropping them" not in node.log_text()
    assert client_of(start_node(data_dir=node.data_dir)).get("big") == b"x" * 1000000


def test_without_a_second_signal_a_stuck_reader_is_dropped_after_a_while(start_node):
    node = start_node()
    client_of(node).set("big", b"x" * 1000000)
    with stuck_reader(node):
        node.process.send_signal(signal.SIGTERM)
        assert node.wait() == 0
    assert "dropping them" in node.log_text()


def test_sighup_is_ignored(node):
    node.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "SIGHUP ignored" in node.log_text(), "the line about SIGHUP")
    assert client_of(node).ping()
    node.stop()


def test_readiness_is_told_to_the_service_manager(start_node, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(PATIENCE_SECONDS)
        node = start_node(environment={"NOTIFY_SOCKET": path})
        told = manager.recv(4096)
        while b"READY=1" not in told:
            assert told.startswith(b"STATUS=Loading")
            told = manager.recv(4096)
        node.stop()
        assert b"STOPPING=1" in manager.recv(4096)


# ---- restart ----


def test_data_survives_restarts_with_other_numbers_of_threads(start_node, tmp_path):
    rng = random.Random(1)
    model = {}
    for threads in [1, 2, 4, 3, 1]:
        node = start_node("--threads", threads, data_dir=tmp_path / "data")
        client = client_of(node)
        assert client.dbsize() == len(model)
        keys = [b"k%d" % i for i in range(500)]
        assert client.mget(keys) == [model.get(key) for key in keys]
        pipeline = client.pipeline(transaction=False)
        for _ in range(400):
            key = rng.choice(keys)
            if rng.random() < 0.3:
                pipeline.delete(key)
                model.pop(key, None)
            else:
                model[key] = rng.randbytes(rng.randrange(200))
                pipeline.set(key, model[key])
        pipeline.execute()
        client.close()
        if rng.random() < 0.5:
            node.kill9()
        else:
            node.stop()


def test_indexes_are_there_again_after_a_stop(start_node, tmp_path):
    """Enough keys for several chunks of pages; they are changed while they move into memory of the node's own."""
    keys = 200000
    snapshot = tmp_path / "data" / "indexes.snapshot"
    expected = {}
    taken = []
    for boot in range(4):
        threads = 3 if boot == 2 else 2
        node = start_node("--threads", threads, "--durability", "relaxed", data_dir=tmp_path / "data")
        client = client_of(node)
        taken.append(client.info("persistence")["recovery_snapshot"])
        assert not snapshot.exists()
        assert client.dbsize() == len(expected)
        for first in range(0, keys, 5000):
            batch = range(first, first + 5000, 1 if boot == 0 else 97)
            pipeline = client.pipeline(transaction=False)
            for i in batch:
                pipeline.set(f"k{i}", f"{boot}.{i}")
            pipeline.execute()
            expected.update({i: f"{boot}.{i}" for i in batch})
            gone = range(first + boot, first + 5000, 1009) if boot > 0 else ()
            if gone:
                client.delete(*(f"k{i}" for i in gone))
                for i in gone:
                    expected.pop(i, None)
        for first in range(0, keys, 2000):
            values = client.mget([f"k{i}" for i in range(first, first + 2000)])
            assert values == [expected[i].encode() if i in expected else None for i in range(first, first + 2000)]
        assert client.dbsize() == len(expected)
        client.close()
        node.stop()
        assert snapshot.exists()
    assert taken == [0, 1, 0, 0]


def test_the_memory_engine_serves_and_forgets(start_node, tmp_path):
    node = start_node("--engine", "memory", "--threads", "2", data_dir=tmp_path / "data")
    client = client_of(node)
    pipeline = client.pipeline(transaction=False)
    for i in range(1000):
        pipeline.set(f"k{i}", i)
    pipeline.execute()
    assert client.mget([f"k{i}" for i in range(1000)]) == [str(i).encode() for i in range(1000)]
    node.stop()
    node = start_node("--engine", "memory", "--threads", "2", data_dir=tmp_path / "data")
    assert client_of(node).dbsize() == 0


def test_relaxed_writes_are_on_disk_within_the_interval(start_node, tmp_path):
    node = start_node("--durability", "relaxed", "--relaxed-interval", "50", data_dir=tmp_path / "data")
    client = client_of(node)
    for i in range(100):
        client.set(f"k{i}", i)

    def all_durable():  # LSNs count records, from 1 on
        return sum(shard["durable_lsn"] for shard in client.info("shards").values()) == 100

    wait_for(all_durable, "the end of the interval")
    node.kill9()
    client = client_of(start_node(data_dir=tmp_path / "data"))
    assert client.mget([f"k{i}" for i in range(100)]) == [str(i).encode() for i in range(100)]


def test_many_clients_at_once(start_node):
    node = start_node("--threads", "2")
    errors = []

    def work(number):
        try:
            client = client_of(node)
            for i in range(50):
                client.set(f"{number}:{i}", i)
                assert client.get(f"{number}:{i}") == str(i).encode()
                assert client.delete(f"{number}:{i}", f"{number}:none") == 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert errors == [] and client_of(node).dbsize() == 0
