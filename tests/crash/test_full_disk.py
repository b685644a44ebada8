"""Full disks: writes get a clear error, reads and deletes go on, writing resumes by itself, and nothing is lost.

Here room comes back when somebody else's file on the file system goes; for what compaction gives back, under a limit of the
node's own, see tests/blackbox/test_compaction.py.
"""

import os
import random
import time

import pytest
from checker import Book, Connection, Load, audit
from disks import Image, mount_ext4, mount_tmpfs
from patience import wait_for

SEED = int(os.environ.get("KVS_SEED", "1"))
NO_SPACE = "has no disk space left for writes; reads and deletes go on"
# What a disk that fails in the middle may lead to: no segment can be made, for lack of space, for an error, or since the
# manifest has failed; a commit fails; a read fails.
DISK_ERRORS = [
    NO_SPACE,
    "cannot make a new log segment: input/output error; reads and deletes go on",
    "can get no new log segment since a storage failure",
    "stopped writing after a storage failure",
    "could not carry out the request: input/output error",
]
WRITERS = 2
VALUES = [1000, 10000]
DELETES = 40


def fill(path):
    """A file that takes all the room there is."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            pass
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass
        os.fsync(file.fileno())


def wait_for_refusals(load, *texts):
    wait_for(
        lambda: any(text in error for error in load.errors() for text in texts),
        lambda: f"an error with any of {texts}: {load.errors()}",
    )


def check_deletes(node, book):
    """Deletes are taken from the reserve; each is acknowledged, and durable."""
    with Connection(node.port) as connection:
        keys = [key for key in book.keys if (found := book.possible(key)[-1]) is not None and found.value is not None]
        asked = [(key, book.ask(key, lambda number: None)) for key in keys[:DELETES]]
        assert len(asked) == DELETES
        connection.send([("DEL", key) for key, _ in asked])
        for key, operation in asked:
            reply = connection.reply()
            assert reply == 1, f"DEL {key} on a full disk: {reply!r}"
            book.acknowledge(key, operation)


def write_until_taken(node):
    """Tries to write until it works; returns after how long."""
    begin = time.monotonic()
    with Connection(node.port) as connection:
        wait_for(
            lambda: [connection.ask("SET", f"resumed:{i}", "value") for i in range(32)] == ["OK"] * 32,
            "writes that are taken",
        )
        took = time.monotonic() - begin
        connection.ask("DEL", *[f"resumed:{i}" for i in range(32)])
        return took


def fill_up_and_resume(path, start_node, threads):
    rng = random.Random(SEED)
    data_dir, foreign = path / "data", path / "foreign"
    books = [Book(f"w{i}") for i in range(WRITERS)]
    node = start_node(data_dir, threads=threads)
    load = Load(books, node.port, rng.random(), sizes=VALUES).start()
    load.wait_for(300)
    fill(foreign)
    wait_for_refusals(load, NO_SPACE)
    assert load.stop() == []
    assert all(NO_SPACE in text for text in load.errors()), load.errors()
    assert "cannot make segment" in node.log_text() and "no space" in node.log_text().lower(), node.log_text()
    assert audit(node.port, books) == []
    check_deletes(node, books[0])
    assert audit(node.port, books) == []

    # A start on the full disk serves what is there, and so does one after a crash on it.
    node.kill()
    node = start_node(data_dir, threads=threads)
    assert audit(node.port, books) == []
    load = Load(books, node.port, rng.random(), sizes=VALUES).start()
    wait_for_refusals(load, NO_SPACE)

    # Under load, without a restart.
    foreign.unlink()
    before = load.acknowledged()
    took = write_until_taken(node)
    load.wait_for(before + 300)
    assert load.stop() == []
    assert audit(node.port, books) == []
    print(f"writing resumed after {took:.2f} s")
    node.kill()
    node = start_node(data_dir, threads=3 - threads)
    assert audit(node.port, books) == []
    node.stop()


@pytest.mark.needs("mount")
@pytest.mark.parametrize("threads", [1, 2])
def test_full_tmpfs(disks, start_node, tmp_path, threads):
    fill_up_and_resume(disks(mount_tmpfs(tmp_path / "disk", "48m")).path, start_node, threads)


@pytest.mark.needs("mount")
@pytest.mark.parametrize("threads", [1, 2])
def test_every_single_delete_succeeds_on_a_full_tmpfs(disks, start_node, tmp_path, threads):
    """Each takes a block of 4 KiB in the log, all together more than the file system has."""
    node = start_node(disks(mount_tmpfs(tmp_path / "disk", "40m")).path / "data", threads=threads)
    with Connection(node.port) as connection:
        count = refused = 0
        while refused < 300:  # in a row: every shard is full
            names = [f"key:{count + i}" for i in range(100)]
            connection.send([("SET", name, "v" * 1000) for name in names])
            replies = [connection.reply() for _ in names]
            assert all(reply == "OK" or NO_SPACE in str(reply) for reply in replies), replies
            count += 100
            refused = 0 if "OK" in replies else refused + 100
        keys = connection.ask("DBSIZE")
        assert keys > 10000
        removed = 0
        for i in range(count):
            reply = connection.ask("DEL", f"key:{i}")
            assert reply in (0, 1), f"DEL key:{i} on a full disk: {reply!r}"
            removed += reply
        assert removed == keys and connection.ask("DBSIZE") == 0
    write_until_taken(node)
    node.stop()


@pytest.mark.needs("loop", "ext4")
@pytest.mark.parametrize("threads", [1, 2])
def test_full_ext4(disks, start_node, tmp_path, threads):
    disks(Image(tmp_path / "image", 64 << 20, "-J", "size=4"))
    mount = disks(mount_ext4(tmp_path / "image", tmp_path / "disk"))
    fill_up_and_resume(mount.path, start_node, threads)


@pytest.mark.needs("loop", "ext4")
@pytest.mark.parametrize("threads", [1, 2])
def test_disk_that_has_less_than_it_says(disks, start_node, tmp_path, threads):
    """A sparse image: the file system on it has room, the disk under it has none. Any write may fail, the journal's too."""
    outer = disks(mount_tmpfs(tmp_path / "outer", "40m"))
    image, foreign = outer.path / "image", outer.path / "foreign"
    disks(Image(image, 512 << 20))
    mount = disks(mount_ext4(image, tmp_path / "disk"))
    rng = random.Random(SEED)
    books = [Book(f"w{i}") for i in range(WRITERS)]
    node = start_node(mount.path / "data", threads=threads)
    load = Load(books, node.port, rng.random(), sizes=VALUES).start()
    load.wait_for(300)
    fill(foreign)
    wait_for_refusals(load, *DISK_ERRORS)
    assert load.stop() == []
    for error in load.errors():
        assert any(text in error for text in DISK_ERRORS), error
    print(load.errors())

    # What was acknowledged can be read, or, if the disk cannot give it, is an error.
    complaints = audit(node.port, books, settle=False)
    unread = [line for line in complaints if any(text in line for text in DISK_ERRORS)]
    assert [line for line in complaints if line not in unread and "DBSIZE" not in line] == []
    assert len(unread) < sum(len(book.keys) for book in books) // 2

    node.kill()
    foreign.unlink()
    mount.close()
    disks(mount_ext4(image, tmp_path / "disk"))
    node = start_node(tmp_path / "disk" / "data", threads=threads)
    assert audit(node.port, books) == []
    load = Load(books, node.port, rng.random()).start()
    load.wait_for(300)
    assert load.stop() == []
    assert load.errors() == {}
    assert audit(node.port, books) == []
