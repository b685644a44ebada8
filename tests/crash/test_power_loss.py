"""Power loss under a real file system: ext4 on a loop device, shut down in the middle of the load without flushing anything.

EXT4_IOC_SHUTDOWN with NOLOGFLUSH drops what is not on the disk: dirty pages, and the file system's own unfinished
transaction, hence names and sizes of files that were not synced. Then the node is killed, the file system mounted again
(which replays its journal), and the node started on what is left, with another number of threads each time.
"""

import os
import random
import signal
import time

import pytest
from checker import Book, Connection, Load, Refused, audit, compacted, value_of
from disks import Image, mount_ext4

pytestmark = pytest.mark.needs("loop", "ext4")

SEED = int(os.environ.get("KVS_SEED", "1"))
IMAGE_BYTES = 512 << 20
ROUNDS = int(os.environ.get("KVS_ROUNDS", "30"))
WRITERS = 4
SIZES = [10, 100, 1000, 3000, 10000]  # so that there is something to compact,
COMPACTING = ["--space-percent", "120"]  # all the time
PROBES = 64  # so many that every shard gets some


class Machine:
    """A disk that keeps its image over power cuts."""

    def __init__(self, disks, start_node, tmp_path):
        self.disks, self.start_node = disks, start_node
        self.image, self.path = tmp_path / "image", tmp_path / "disk"
        disks(Image(self.image, IMAGE_BYTES))
        self.mount = disks(mount_ext4(self.image, self.path))
        self.data_dir = self.path / "data"

    def start(self, threads, **options):
        return self.start_node(self.data_dir, *COMPACTING, threads=threads, **options)

    def power_on(self):
        """After cut_power() and the end of the node: all caches are gone, the journal is replayed."""
        self.mount.close()
        self.mount = self.disks(mount_ext4(self.image, self.path))


@pytest.fixture
def machine(disks, start_node, tmp_path):
    print(f"seed {SEED}; another one: KVS_SEED=n")
    return Machine(disks, start_node, tmp_path)


def probe_all(node, book, removing=()):
    """Sets every probe, or removes those of the given numbers; returns the replies. Acknowledgements are in the book."""
    replies = []
    with Connection(node.port) as connection:
        for i in range(PROBES):
            key = b"probe:%d" % i
            operation = book.ask(key, lambda number: None if i in removing else b"%s|%d|" % (key, number))
            if operation.value is None:
                reply = connection.ask("DEL", key)
            else:
                reply = connection.ask("SET", key, operation.value)
            if not isinstance(reply, Refused):
                book.acknowledge(key, operation)
            replies.append(reply)
    return replies


def check_that_writes_fail(node, book):
    """Fail-stop: with the disk gone every write is an error, whatever shard it is for."""
    removing = range(0, PROBES, 3)
    for i, reply in enumerate(probe_all(node, book, removing)):
        assert isinstance(reply, Refused), f"acknowledged on a dead disk: {reply!r}"
        # A removal looks at its key first; when that is no longer in RAM it is the read that fails.
        failed_read = i in removing and "input/output error" in str(reply)
        assert failed_read or "stopped writing after a storage failure" in str(reply), reply


def check_that_reads_go_on(node, books):
    """What was durable and is in RAM is still served, and nothing else ever is."""
    served = 0
    with Connection(node.port) as connection:
        for book in books:
            for key in list(book.keys):
                options = book.possible(key)
                reply = connection.ask("GET", key)
                if isinstance(reply, Refused):
                    continue
                assert reply in [value_of(option) for option in options], f"GET {key} on a dead disk: {reply[:40]}"
                served += 1
    assert served > 50, f"{served} keys could be read"


def one_round(machine, books, probe, node, rng):
    """Load, the cut, what the node says then; returns the numbers of acknowledged operations and of compacted segments."""
    assert probe_all(node, probe) == ["OK"] * PROBES
    load = Load(books, node.port, rng.random(), sizes=SIZES).start()
    load.wait_for(rng.choice([1, 100, 1000, 3000, 10000]))
    segments = compacted(node.port)
    machine.mount.cut_power()
    check_that_writes_fail(node, probe)
    # Replies that had left before the probes were answered may still be on their way.
    before = load.acknowledged()
    load.wait_for_rounds()
    settled = load.acknowledged()
    load.wait_for_rounds()
    assert load.acknowledged() == settled, f"acknowledged on a dead disk ({before}, {settled}, {load.acknowledged()})"
    assert any("stopped writing" in text for text in load.errors()), load.errors()
    for writer in load.writers:
        writer.stop()
    load.observer.stop()
    assert load.join() == []
    check_that_reads_go_on(node, books)
    node.kill()
    return load.acknowledged(), segments


def test_power_loss_under_load(machine):
    rng = random.Random(SEED)
    books = [Book(f"w{i}") for i in range(WRITERS)]
    probe = Book("probe")
    total = segments = 0
    for round_number in range(ROUNDS):
        node = machine.start([1, 2, 4][round_number % 3])
        assert audit(node.port, [*books, probe]) == [], f"round {round_number}, seed {SEED}\n{node.log_text()}"
        changes, given_back = one_round(machine, books, probe, node, rng)
        total += changes
        segments += given_back
        machine.power_on()
    node = machine.start(2)
    assert audit(node.port, [*books, probe]) == []
    print(f"{total} changes acknowledged, {segments} segments compacted over {ROUNDS} power cuts")
    assert total > 500 * ROUNDS
    assert segments > 3 * ROUNDS


def test_power_loss_at_once_and_at_the_first_write(machine):
    """Within the first 50 ms of a store's life: there is no store yet, half of one, or an empty one."""
    rng = random.Random(SEED + 1)
    for round_number in range(2 * ROUNDS):
        machine.data_dir = machine.path / f"data{round_number}"
        book = Book(f"w{round_number}")
        if round_number % 2 == 0:
            node = machine.start([1, 2, 4][round_number % 3], wait=False)
            time.sleep(rng.uniform(0, 0.05))
            load = None
        else:
            node = machine.start([1, 2, 4][round_number % 3])
            load = Load([book], node.port, rng.random()).start()
            load.wait_for(1)
            time.sleep(rng.uniform(0, 0.01))
        machine.mount.cut_power()
        time.sleep(0.01)
        node.kill()
        assert load is None or load.join() == []
        machine.power_on()
        node = machine.start(2)
        assert audit(node.port, [book]) == [], f"round {round_number}, seed {SEED}\n{node.log_text()}"
        node.stop()


def test_power_loss_during_an_orderly_stop(machine):
    rng = random.Random(SEED + 2)
    books = [Book(f"w{i}") for i in range(WRITERS)]
    for round_number in range(ROUNDS):
        node = machine.start([4, 1, 2][round_number % 3])
        assert audit(node.port, books) == [], f"round {round_number}, seed {SEED}\n{node.log_text()}"
        load = Load(books, node.port, rng.random()).start()
        load.wait_for(rng.randrange(1, 1000))
        node.signal(signal.SIGTERM)
        time.sleep(rng.uniform(0, 0.02))
        machine.mount.cut_power()
        if round_number % 2 == 0:
            assert node.wait() in (0, 1)  # the storage has failed; it must not wait for it for ever
        else:
            node.kill()
        assert load.join() == []
        machine.power_on()
    node = machine.start(1)
    assert audit(node.port, books) == []
