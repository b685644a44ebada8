"""The harness must see a loss when there is one: nodes and disks that break the promises on purpose."""

import random

import pytest
from checker import Book, Connection, Load, audit
from disks import WRITE, Image, mount_ext4
from patience import wait_for
from recorded_run import Recorded, check_cut

pytestmark = pytest.mark.needs("loop", "ext4", "fuse")

RELAXED = ["--durability", "relaxed", "--relaxed-interval", "60000"]


def lost(complaints):
    """What is about keys, rather than about a node that does not start."""
    return [complaint for complaint in complaints if ": found " in complaint]


def test_a_store_that_does_not_sync_loses_writes_in_a_power_cut(disks, start_node, tmp_path):
    image, data_dir = tmp_path / "image", tmp_path / "disk" / "data"
    disks(Image(image, 512 << 20))
    mount = disks(mount_ext4(image, tmp_path / "disk"))
    books = [Book(f"w{i}") for i in range(2)]
    node = start_node(data_dir, *RELAXED, threads=2)
    load = Load(books, node.port, seed=1, reads=0).start(observe=False)
    load.wait_for(500)
    mount.cut_power()
    node.kill()
    assert load.join() == []
    mount.close()
    disks(mount_ext4(image, tmp_path / "disk"))
    node = start_node(data_dir, threads=2)
    assert len(lost(audit(node.port, books))) > 20


def test_a_store_that_does_not_sync_loses_writes_at_a_cut(disks, start_node, scratch):
    recorded = Recorded(disks, start_node, scratch)
    node = start_node(recorded.mount.path / "data", *RELAXED, threads=2)
    load = Load(recorded.books, node.port, seed=1, reads=0, keys=60).start(observe=False)
    load.wait_for(500)
    load.stop()
    recording = recorded.recording()
    node.kill()
    complaints = check_cut(recorded, recording, len(recording.entries), random.Random(1), threads=2)
    assert len(lost(complaints)) > 20, complaints


def test_a_disk_that_forgets_flushed_writes_is_noticed(disks, start_node, scratch):
    """Of the run's last writes each is lost in turn, flushed or not: the node refuses to start, or a key is not right."""
    recorded = Recorded(disks, start_node, scratch)
    node = start_node(recorded.mount.path / "data", threads=1)
    load = Load(recorded.books, node.port, seed=1, keys=60, depths=(1,)).start()
    load.wait_for(300)
    assert load.stop() == []
    recording = recorded.recording()
    node.kill()
    last = [i for i, entry in enumerate(recording.entries) if entry.kind == WRITE and entry.size <= 65536][-20:]
    noticed = 0
    for lost_write in last:
        recording.rewind()
        complaints = check_cut(
            recorded, recording, len(recording.entries), random.Random(1), threads=1, lost={lost_write}
        )
        noticed += complaints != []
    print(f"{noticed} of {len(last)} lost writes were noticed")
    assert noticed > len(last) // 2


def test_an_early_acknowledgement_is_noticed(disks, start_node, scratch):
    """The disk as it was when a SET was asked for, the books as if it had been acknowledged there."""
    recorded = Recorded(disks, start_node, scratch)
    recorded.record([(2, 300, "kill")], random.Random(1))
    recording = recorded.recording()
    newest = [operations[-1] for book in recorded.books for operations in book.keys.values()]
    sets = [operation for operation in newest if operation.value is not None and operation.acked is not None]
    for operation in random.Random(1).sample(sets, 8):
        cut = max(cut for cut in recording.flush_cuts() if recording.position(cut) <= operation.asked)
        recording.rewind()
        assert check_cut(recorded, recording, cut, random.Random(1), threads=2) == []
        complaints = check_cut(recorded, recording, cut, random.Random(1), threads=2, position=operation.acked)
        assert lost(complaints) != [], complaints


def test_a_key_that_comes_back_is_noticed(start_node, tmp_path):
    """The audit against a node that has what the books do not expect: another value, a deleted key, an unknown key."""
    node = start_node(tmp_path / "data")
    book = Book("w")
    with Connection(node.port) as connection:
        for name in [b"right", b"wrong", b"ghost", b"missing"]:
            connection.ask("SET", name, b"value")
            book.acknowledge(name, book.ask(name, lambda number: b"value"))
        assert audit(node.port, [book]) == []
        connection.ask("SET", b"wrong", b"other")
        book.acknowledge(b"ghost", book.ask(b"ghost", lambda number: None))
        connection.ask("DEL", b"missing")
        connection.ask("SET", b"unknown", b"x")
    complaints = audit(node.port, [book], settle=False)
    assert sorted(complaint.split(":")[0] for complaint in lost(complaints)) == ["ghost", "missing", "wrong"]
    assert any("DBSIZE says 4, 3 keys were found" in complaint for complaint in complaints), complaints


def test_a_relaxed_reply_is_seen_to_be_early(disks, start_node, scratch):
    """The positions of a recording tell: relaxed writes are acknowledged while nothing is flushed."""
    recorded = Recorded(disks, start_node, scratch)
    node = start_node(recorded.mount.path / "data", *RELAXED)
    position = recorded.recorder.position
    with Connection(node.port) as connection:

        def answered_before_anything_is_written():
            before = position()
            assert connection.ask("SET", "key", "value") == "OK"
            return position() == before

        # Now and then, others write: the maker of spare segments, the file system's journal.
        wait_for(answered_before_anything_is_written, "a relaxed reply while the disk is at rest")
        assert connection.ask("KVS.DURABILITY", "durable") == "OK"
        for _ in range(20):
            assert not answered_before_anything_is_written()
