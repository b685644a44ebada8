"""Backups of a running kvs-node, made by kvs-client and BGSAVE: whole, sound, and stores of their own."""

import os
import subprocess
import threading
import time

import pytest

from conftest import PATIENCE_SECONDS, binary, wait_for

FLAGS = ("--segment-size", "1M", "--memory", "64M", "--threads", "2", "--space-percent", "130")
KEYS = 400


def ask(node, commands):
    """Sends RESP commands in one go and returns the replies, one line or one bulk each."""
    with node.connect() as connection:
        connection.sendall(
            b"".join(
                b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
                for words in commands
            )
        )
        stream, replies = connection.makefile("rb"), []
        for _ in commands:
            line = stream.readline()
            if line.startswith(b"$") and line != b"$-1\r\n":
                replies.append(stream.read(int(line[1:]) + 2)[:-2])
            else:
                replies.append(line.strip())
        return replies


def persistence(node):
    lines = ask(node, [(b"INFO", b"persistence")])[0].decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def version_of(value):
    return int(value[:8])


def value_of(version):
    return b"%08d" % version * 150


class Writer(threading.Thread):
    """Sets the keys in turn, each to a higher version, one after the other: whoever holds version n of a key has to hold
    everything that was set before."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node = node
        self.acknowledged = 0
        self.ending = False
        self.failure = None

    def run(self):
        try:
            with self.node.connect() as connection:
                stream = connection.makefile("rb")
                while not self.ending:
                    key, value = b"key:%d" % (self.acknowledged % KEYS), value_of(self.acknowledged)
                    connection.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value))
                    assert stream.readline() == b"+OK\r\n"
                    self.acknowledged += 1
        except Exception as error:  # told by whoever joins
            self.failure = error

    def finish(self):
        self.ending = True
        self.join(PATIENCE_SECONDS)
        assert self.failure is None and not self.is_alive()


def expect_prefix(node, first, last):
    """The node holds what the first n sets of a Writer have made, first <= n <= last."""
    values = ask(node, [(b"GET", b"key:%d" % key) for key in range(KEYS)])
    versions = [version_of(value) for value in values]
    n = max(versions) + 1
    assert first <= n <= last
    for key, value in enumerate(values):
        version = (n - 1 - key) // KEYS * KEYS + key
        assert value == value_of(version)


def check(directory):
    run = subprocess.run([binary("kvs-check"), str(directory)], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "sound" in run.stdout


def backup(run_client, node, name):
    """kvs-client backup; the path that it prints."""
    run = run_client("backup", name, node=node)
    assert run.returncode == 0, run.stderr
    return run.stdout.decode().splitlines()[0]


def test_a_backup_under_load_is_a_node_like_any_other(start_node, run_client):
    node = start_node(*FLAGS)
    writer = Writer(node)
    writer.start()
    wait_for(lambda: writer.acknowledged > 4 * KEYS or writer.failure, "some writes")
    copies = []
    for name in ("first", "second"):
        first = writer.acknowledged
        path = backup(run_client, node, name)
        assert path == f"{node.data_dir}/backups/{name}"
        copies.append((path, first, writer.acknowledged + 1))
        wait_for(lambda: writer.acknowledged > first + KEYS or writer.failure, "more writes")
    for path, first, last in copies:
        check(path)
        copy = start_node(*FLAGS, data_dir=path)
        expect_prefix(copy, first, last)
        other = Writer(copy)
        other.acknowledged = last - last % KEYS + KEYS
        other.start()
        wait_for(lambda: other.acknowledged > last + 5 * KEYS or other.failure, "writes to the copy")
        other.finish()
        expect_prefix(copy, other.acknowledged, other.acknowledged)
        copy.stop()
        check(path)
    writer.finish()
    expect_prefix(node, writer.acknowledged, writer.acknowledged)
    info = persistence(node)
    assert info["rdb_last_bgsave_status"] == "ok" and info["backups_ended"] == "2"
    node.stop()
    check(node.data_dir)
    assert sorted(os.listdir(node.data_dir / "backups")) == ["first", "second"]


def test_a_node_on_a_backup_starts_by_the_runs_of_the_store(start_node, run_client):
    count = 20 * KEYS
    node = start_node(*FLAGS)
    assert set(ask(node, [(b"SET", b"key:%d" % key, value_of(key)) for key in range(count)])) == {b"+OK"}
    node.stop()
    node = start_node(*FLAGS, data_dir=node.data_dir)
    path = backup(run_client, node, "one")
    runs = [name for name in os.listdir(path) if name.endswith(".run")]
    # One may have been of use to the backup alone, and have gone from the store since.
    shared = [name for name in runs if os.path.exists(f"{node.data_dir}/{name}")]
    assert runs and all(os.path.samefile(f"{path}/{name}", f"{node.data_dir}/{name}") for name in shared)
    check(path)
    copy = start_node(*FLAGS, data_dir=path)
    assert int(persistence(copy)["recovered_keys"]) == count
    assert int(persistence(copy)["recovered_records"]) < count // 2  # of segments that logs were writing in
    assert ask(copy, [(b"GET", b"key:%d" % key) for key in range(count)]) == [value_of(key) for key in range(count)]
    copy.stop()
    check(path)
    node.stop()
    check(node.data_dir)


def test_a_place_on_another_file_system_gets_copies(start_node, run_client, tmp_path):
    place = "/dev/shm"
    if not os.path.isdir(place) or os.stat(place).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("no other file system at hand")
    place = subprocess.run(["mktemp", "-d", "/dev/shm/kvs-backup-XXXXXX"], capture_output=True, text=True).stdout.strip()
    try:
        node = start_node(*FLAGS, "--backup-dir", place)
        assert set(ask(node, [(b"SET", b"key:%d" % key, value_of(key)) for key in range(2 * KEYS)])) == {b"+OK"}
        path = backup(run_client, node, "far")
        assert path == f"{place}/far"
        info = persistence(node)
        assert int(info["last_backup_copied_bytes"]) > 1 << 20
        assert all(os.stat(entry).st_nlink == 1 for entry in os.scandir(path) if entry.is_file())
        node.kill9()
        check(path)
        copy = start_node(*FLAGS, data_dir=path)
        assert ask(copy, [(b"GET", b"key:%d" % key) for key in range(2 * KEYS)]) == [
            value_of(key) for key in range(2 * KEYS)
        ]
        copy.stop()
    finally:
        subprocess.run(["rm", "-rf", place], check=True)


def test_the_client_says_why_there_is_no_backup(node, run_client):
    backup(run_client, node, "one")
    for name, why in (("one", "exists already"), ("../one", "invalid name"), ("/tmp/one", "invalid name")):
        run = run_client("backup", name, node=node)
        assert run.returncode == 1
        assert why in run.stderr.decode() and run.stdout == b""
    run = run_client("backup", node=node)
    assert run.returncode == 0
    assert len(os.listdir(node.data_dir / "backups")) == 2


def test_kill_9_in_the_middle_leaves_no_half_backup(start_node, run_client, tmp_path):
    node = start_node(*FLAGS, data_dir=tmp_path / "store")
    assert set(ask(node, [(b"SET", b"key:%d" % key, value_of(key)) for key in range(4 * KEYS)])) == {b"+OK"}
    for i in range(8):
        assert ask(node, [(b"BGSAVE", b"n%d" % i)]) == [b"+Background saving started"]
        time.sleep(i * 0.002)
        node.kill9()
        node = start_node(*FLAGS, data_dir=tmp_path / "store")
    backup(run_client, node, "last")
    names = os.listdir(node.data_dir / "backups")
    assert "last" in names and ".partial" not in names
    for name in names:
        check(node.data_dir / "backups" / name)
    node.stop()
    check(node.data_dir)


def test_redis_cli_finds_its_commands(node):
    run = lambda *words: subprocess.run(
        ["redis-cli", "-p", str(node.port), *words], capture_output=True, text=True, timeout=PATIENCE_SECONDS
    ).stdout.strip()
    before = int(run("LASTSAVE"))
    assert run("BGSAVE") == "Background saving started"
    wait_for(lambda: "rdb_bgsave_in_progress:0" in run("INFO", "persistence"), "the end of the backup")
    assert int(run("LASTSAVE")) >= before
    assert "rdb_last_bgsave_status:ok" in run("INFO", "persistence")
