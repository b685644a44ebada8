"""Compaction with the real program on a real disk: space stays bounded and comes back, and no value is harmed by it.

Segments are as small as they can be, so that a few megabytes of values fill many.
"""

import os
import random
import re
import threading
import time

import pytest
from conftest import PATIENCE_SECONDS, heavy, wait_for

redis_py = pytest.importorskip("redis")

MIB = 1 << 20
SEGMENT = MIB
SMALL = ["--memory", "64M", "--segment-size", "1M"]
BATCH = 100


def client_of(node):
    return redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS)


def value_of(key, version):
    """Size and bytes follow from both; versions of one key differ in size, and by what they begin with."""
    size = 2000 + (hash_of(key) + 977 * version) % 5000
    head = b"%s|%d|" % (key, version)
    return (head * (size // len(head) + 1))[:size]


def hash_of(key):
    return int.from_bytes(key[-4:], "little") * 2654435761 % 65536


def key_of(number):
    return b"key:%06d" % number


class Book:
    """Version of each key that was acknowledged last (0 = absent), and those asked for since."""

    def __init__(self, count, seed=1):
        self.versions = {key_of(i): 0 for i in range(count)}
        self.pending = {}
        self.unsure = {}  # asked for earlier, and not looked at since
        self.last = 0
        self.rng = random.Random(seed)

    def live_bytes(self):
        return sum(len(value_of(key, version)) for key, version in self.versions.items() if version)

    def write(self, client, keys):
        """SETs, pipelined; raises at the first error reply."""
        keys = list(keys)
        for begin in range(0, len(keys), BATCH):
            self._ask(client, {key: self._next() for key in keys[begin : begin + BATCH]})

    def remove(self, client, keys):
        keys = list(keys)
        for begin in range(0, len(keys), BATCH):
            self._ask(client, {key: 0 for key in keys[begin : begin + BATCH]})

    def _next(self):
        self.last += 1
        return self.last

    def _ask(self, client, asked):
        pipeline = client.pipeline(transaction=False)
        for key, version in asked.items():
            if version:
                pipeline.set(key, value_of(key, version))
            else:
                pipeline.delete(key)
        unsure = {**self.unsure, **self.pending}
        self.pending, self.unsure = asked, {key: version for key, version in unsure.items() if key not in asked}
        for (key, version), reply in zip(asked.items(), pipeline.execute(raise_on_error=False)):
            if isinstance(reply, redis_py.ResponseError):
                raise reply
            if version == 0 and key not in unsure:
                assert reply == (self.versions[key] != 0), f"DEL {key} says {reply}; version {self.versions[key]}"
            self.versions[key] = version
        self.pending = {}

    def overwrite(self, client, rounds):
        for _ in range(rounds):
            self.write(client, self.rng.choices(list(self.versions), k=len(self.versions)))

    def check(self, client):
        """Every key has its value, or one that was asked for and not answered; the node counts them right."""
        keys, present = list(self.versions), 0
        for begin in range(0, len(keys), BATCH):
            chunk = keys[begin : begin + BATCH]
            for key, found in zip(chunk, client.mget(chunk)):
                allowed = {self.versions[key], self.pending.get(key, self.versions[key])}
                match = [version for version in allowed if found == (value_of(key, version) if version else None)]
                assert match, f"{key}: found {found and found[:30]}, allowed versions {allowed}"
                self.versions[key] = match[0]
                present += found is not None
        self.pending, self.unsure = {}, {}
        # A blind overwrite may count its key twice until its old record was read.
        wait_for(lambda: client.info("stats")["settling"] == 0, "the end of settling")
        if client.info("stats")["settles_skipped"] == 0:
            assert client.dbsize() == present


def segments_on_disk(node):
    return sum(1 for name in os.listdir(node.data_dir) if name.endswith(".seg"))


def at_rest(client):
    """Waits until compaction has nothing to do; returns its section of INFO."""
    wait_for(lambda: client.info("compaction")["compaction_running"] == 0, "the end of compaction")
    return client.info("compaction")


def bound(live_bytes, percent, threads):
    """Segments that may be on disk: what the share allows, with an eighth of files kept free, and a fixed number for what
    each log and compaction have in hand, twice over for files kept free."""
    return live_bytes * percent / 100 / SEGMENT * 8 / 7 + 5 * threads + 10


# ---- space -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads, percent", [pytest.param(1, 200, marks=heavy), (3, 200), pytest.param(2, 130, marks=heavy)])
def test_overwrites_keep_the_disk_bounded(start_node, threads, percent):
    node = start_node(*SMALL, "--threads", threads, "--space-percent", percent)
    client, book = client_of(node), Book(4000)
    book.write(client, book.versions)
    book.overwrite(client, 6)  # until compaction has found its speed
    most = 0
    for _ in range(6):
        book.overwrite(client, 1)
        most = max(most, segments_on_disk(node))
    live = book.live_bytes()
    # The background may be slower than the writers for a while. Without it there would be twelve times what is live.
    written = client.info("stats")["bytes_appended"] / SEGMENT
    assert most <= bound(live, percent, threads) + written / 4, f"{most} segments for {live / MIB:.1f} MiB at percent {percent}"
    compaction = at_rest(client)
    assert segments_on_disk(node) <= bound(live, percent, threads)

    def figures_and_files_agree():  # a file may be on its way out
        return client.info("persistence")["disk_bytes"] == segments_on_disk(node) * SEGMENT

    wait_for(figures_and_files_agree, "disk_bytes that agree with the directory")
    persistence = client.info("persistence")
    assert persistence["segments"] * SEGMENT == persistence["disk_bytes"] and persistence["disk_limit"] == 0
    assert persistence["disk_free_segments"] + persistence["disk_sealed_segments"] <= persistence["segments"]
    assert 0.8 * live < persistence["live_bytes"] < 1.25 * live
    assert persistence["background_failed"] == 0

    assert compaction["compacted_segments"] > 20 and compaction["records_moved"] > 0
    assert compaction["compaction_urgency"] == 0 and compaction["compaction_failed"] == 0
    assert compaction["damaged_segments"] == 0 and "compaction_trouble" not in compaction
    assert compaction["compaction_read_bytes"] > compaction["compaction_written_bytes"] > 0
    assert compaction["deletes_kept"] == compaction["deletes_dropped"] == 0
    assert 1 < compaction["write_amplification"] < (2.2 if percent == 200 else 5)
    assert 1 < compaction["space_amplification"] <= percent / 100 + (4 * threads + 4) * SEGMENT / live
    stats = client.info("stats")
    amplification = 1 + compaction["compaction_written_bytes"] / stats["bytes_written"]
    assert abs(amplification - compaction["write_amplification"]) < 0.02
    book.check(client)
    node.stop()
    node = start_node(*SMALL, "--threads", 4 - threads, data_dir=node.data_dir)
    book.check(client_of(node))


def test_compaction_is_in_the_default_section_and_in_one_of_its_own(node):
    client = client_of(node)
    for section in [(), ("compaction",), ("COMPACTION",), ("all",)]:
        info = client.info(*section)
        assert {"compaction_running", "compaction_urgency", "write_amplification"} <= set(info), section
    assert "write_amplification" not in client.info("persistence")
    assert "redis_version" not in client.info("compaction")


def test_the_memory_engine_has_nothing_to_compact(start_node):
    client = client_of(start_node("--engine", "memory"))
    client.set("a", "b")
    compaction = client.info("compaction")
    assert compaction["compacted_segments"] == 0 and compaction["write_amplification"] == 0


@pytest.mark.parametrize("threads", [pytest.param(1, marks=heavy), 2])
def test_deletes_give_space_back(start_node, threads):
    node = start_node(*SMALL, "--threads", threads)
    client, book = client_of(node), Book(8000)
    book.write(client, book.versions)
    full = segments_on_disk(node)
    assert full > book.live_bytes() / SEGMENT
    keys = list(book.versions)
    book.rng.shuffle(keys)
    kept, gone = keys[: len(keys) // 10], keys[len(keys) // 10 :]
    book.remove(client, gone)
    # Deletes are small: compaction looks at the state of things when a quarter of a segment was written.
    book.write(client, kept * 2)
    wanted = bound(book.live_bytes(), 200, threads)
    assert wanted < full * 0.7
    wait_for(lambda: segments_on_disk(node) <= wanted, f"{full} segments becoming {wanted:.0f}")
    assert at_rest(client)["deletes_dropped"] > 0
    book.check(client)
    node.kill9()
    node = start_node(*SMALL, "--threads", 3, data_dir=node.data_dir)
    book.check(client_of(node))


def test_restarts_do_not_grow_the_directory(start_node, tmp_path):
    """Whatever a start begins anew, an earlier one's is given back."""
    data_dir, book, sizes = tmp_path / "data", Book(500), []
    for round_number in range(16):
        threads = [1, 2, 4][round_number % 3]
        node = start_node(*SMALL, "--threads", threads, data_dir=data_dir)
        client = client_of(node)
        book.overwrite(client, 1)
        book.check(client)
        at_rest(client)
        client.close()
        if round_number % 2 == 0:
            node.kill9()
        else:
            node.stop()
        sizes.append(segments_on_disk(node))
    assert max(sizes[10:]) <= max(sizes[:6]) + 6, sizes # some may be about to be given back
    assert max(sizes) <= bound(book.live_bytes(), 200, 4) + 4, sizes


# ---- crashes -----------------------------------------------------------------------------------------------------


class Overwriter(threading.Thread):
    """Overwrites and deletes the keys of a book until the connection breaks."""

    def __init__(self, book, port):
        super().__init__(daemon=True)
        self.book, self.client = book, redis_py.Redis(port=port, socket_timeout=PATIENCE_SECONDS)
        self.unexpected = None

    def run(self):
        rng, keys = self.book.rng, list(self.book.versions)
        try:
            while True:
                if rng.random() < 0.2:
                    self.book.remove(self.client, rng.sample(keys, 50))
                self.book.write(self.client, rng.sample(keys, 200))
        except (redis_py.ConnectionError, redis_py.TimeoutError):
            pass
        except Exception as error:
            self.unexpected = error


def test_kill_9_in_the_middle_of_compaction(start_node, tmp_path):
    rng = random.Random(5)
    data_dir, book, compacted = tmp_path / "data", Book(3000), 0
    node = start_node(*SMALL, "--threads", 2, "--space-percent", "150", data_dir=data_dir)
    book.write(client_of(node), book.versions)
    for round_number in range(6):
        writer = Overwriter(book, node.port)
        writer.start()
        client = client_of(node)
        begin = client.info("compaction")["compacted_segments"]

        def in_the_middle():
            compaction = client.info("compaction")
            return compaction["compaction_running"] == 1 and compaction["compacted_segments"] > begin + 3

        wait_for(in_the_middle, "compaction at work")
        time.sleep(rng.uniform(0, 0.05))
        compacted += client.info("compaction")["compacted_segments"]
        node.kill9()
        writer.join(PATIENCE_SECONDS)
        assert not writer.is_alive() and writer.unexpected is None
        threads = [1, 4, 2][round_number % 3]
        node = start_node(*SMALL, "--threads", threads, "--space-percent", "150", data_dir=data_dir)
        book.check(client_of(node))
    assert compacted > 20
    assert segments_on_disk(node) <= bound(book.live_bytes(), 200, 4) + 16


def test_what_the_load_generator_wrote_survives_compaction_and_a_crash(start_node, run_loadgen):
    keys = ["--keys", 6000, "--value-size", 3000, "--connections", 8, "--pipeline", 16]
    node = start_node(*SMALL, "--threads", 2)
    done = run_loadgen("--fill", *keys, "--read-share", 0.2, "--requests", 40000, "--warmup", 0, "--verify", server=node)
    assert done.returncode == 0, done.stdout + done.stderr
    client = client_of(node)
    wait_for(lambda: client.info("compaction")["compacted_segments"] > 20, "compaction")
    node.kill9()
    node = start_node(*SMALL, "--threads", 3, data_dir=node.data_dir)
    done = run_loadgen(*keys, "--read-share", 1, "--requests", 12000, "--warmup", 0, "--verify", server=node)
    assert done.returncode == 0 and "0 mismatches" in done.stdout, done.stdout + done.stderr
    assert client_of(node).dbsize() == 6000


# ---- a limit -----------------------------------------------------------------------------------------------------

LIMIT = 32


def no_space(error):
    text = str(error)
    assert text.startswith("MISCONF") and "no disk space left for writes; reads and deletes go on" in text, text
    return True


def is_taken(write):
    """Whether a write was taken, rather than refused for lack of space."""
    try:
        write()
        return True
    except redis_py.ResponseError as error:
        return not no_space(error)


def soon(action, client, keys):
    """Repeats what was refused for lack of space: compaction takes a moment to see that there is something to gain."""
    for begin in range(0, len(keys), BATCH):
        some = keys[begin : begin + BATCH]
        wait_for(lambda: is_taken(lambda: action(client, some)), f"keys {begin}… of {len(keys)}")


def fill_up(client, book, keys):
    """Writes new keys until one is refused, and tells whether one was."""
    try:
        for begin in range(0, len(keys), 10):
            book.write(client, keys[begin : begin + 10])
    except redis_py.ResponseError as error:
        return no_space(error)
    return False


@pytest.mark.parametrize("threads", [pytest.param(1, marks=heavy), 3])
def test_a_disk_limit_is_kept_and_writing_resumes_by_itself(start_node, threads):
    flags = [*SMALL, "--threads", threads, "--disk-limit", f"{LIMIT}M"]
    node = start_node(*flags)
    client, book = client_of(node), Book(12000)
    keys = list(book.versions)
    for round_number in range(3):
        refused = fill_up(client, book, [key for key in keys if book.versions[key] == 0])
        assert refused, f"{book.live_bytes() / MIB:.1f} MiB under a limit of {LIMIT} MiB"
        assert book.live_bytes() > (LIMIT - 5 * threads - 6) * SEGMENT * 0.9, book.live_bytes() / MIB
        assert segments_on_disk(node) <= LIMIT
        persistence = client.info("persistence")
        assert persistence["disk_limit"] == LIMIT * MIB and persistence["disk_bytes"] <= LIMIT * MIB
        assert persistence["failed_shards"] == persistence["background_failed"] == 0
        book.check(client)
        present = [key for key in keys if book.versions[key]]
        gone = book.rng.sample(present, len(present) // 2)
        book.remove(client, gone)
        book.check(client)
        if round_number == 1:
            node.kill9()
            node = start_node(*flags, data_dir=node.data_dir)
            client = client_of(node)
            book.check(client)
        soon(book.write, client, gone[:BATCH])
        soon(book.write, client, gone[BATCH : len(gone) // 2])
        assert segments_on_disk(node) <= LIMIT
    book.check(client)
    node.stop()
    node = start_node(*flags, data_dir=node.data_dir)
    book.check(client_of(node))


class Remover(threading.Thread):
    """Deletes keys, one after the other, each when the one before is acknowledged."""

    def __init__(self, port, keys):
        super().__init__(daemon=True)
        self.client, self.keys = redis_py.Redis(port=port, socket_timeout=PATIENCE_SECONDS), keys
        self.removed, self.errors = 0, {}

    def run(self):
        for key in self.keys:
            try:
                self.removed += self.client.delete(key)
            except redis_py.RedisError as error:
                self.errors[str(error)] = self.errors.get(str(error), 0) + 1


@pytest.mark.parametrize(
    "threads, limit, size",
    [pytest.param(1, 16, 1000, marks=heavy), pytest.param(1, 14, 30, marks=heavy), (2, 20, 300), pytest.param(4, 32, 1000, marks=heavy)],
)
def test_every_single_delete_succeeds_on_a_full_store(start_node, threads, limit, size):
    """A delete of its own takes a block of 4 KiB in the log: all of them take many times the limit."""
    flags = [*SMALL, "--threads", threads, "--disk-limit", f"{limit}M"]
    node = start_node(*flags)
    client, keys, refused = client_of(node), [], 0
    while refused < 3 * BATCH:  # in a row: every shard is full
        pipeline = client.pipeline(transaction=False)
        names = [f"{len(keys)}:{refused}:{i}" for i in range(BATCH)]
        for name in names:
            pipeline.set(name, "v" * size)
        replies = pipeline.execute(raise_on_error=False)
        taken = [name for name, reply in zip(names, replies) if reply is True]
        assert all(reply is True or no_space(reply) for reply in replies)
        keys += taken
        refused = 0 if taken else refused + BATCH
    for name in keys[:20]:
        with pytest.raises(redis_py.ResponseError, match="no disk space left for writes"):
            client.set(name, "w" * size)
    if threads != 2:
        node.kill9()
        node = start_node(*flags, data_dir=node.data_dir)
        client = client_of(node)
    assert client.dbsize() == len(keys)
    random.Random(3).shuffle(keys)
    if size == 30:
        keys = keys[:12000]  # far more than all that is held back could take in
    removers = [Remover(node.port, keys[i::4]) for i in range(4)]
    before = client.dbsize()
    for remover in removers:
        remover.start()
    for remover in removers:
        remover.join()
    assert [remover.errors for remover in removers] == [{}] * 4
    assert sum(remover.removed for remover in removers) == len(keys)
    assert client.dbsize() == before - len(keys)
    assert segments_on_disk(node) <= limit
    if size != 30:
        for i in range(1000):
            wait_for(lambda: is_taken(lambda: client.set(f"again:{i}", "v" * size)), "a write that is taken")


def test_overwriting_goes_on_for_ever_under_a_limit(start_node):
    """What is live fits well; what is written is many times the limit. No write is ever refused."""
    node = start_node(*SMALL, "--threads", 2, "--disk-limit", f"{LIMIT}M", "--space-percent", "1000")
    client, book = client_of(node), Book(3000)
    book.write(client, book.versions)
    for _ in range(10):
        book.overwrite(client, 1)
        assert segments_on_disk(node) <= LIMIT
    book.check(client)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_limit_that_is_too_small_is_refused_and_what_is_asked_for_is_enough(start_node, tmp_path, threads):
    flags = [*SMALL, "--threads", threads]
    refused = start_node(*flags, "--disk-limit", "5M", wait=False)
    assert refused.wait() == 1
    found = re.search(r"at least (\d+) KiB \(--disk-limit (\d+)K\)", refused.log_text())
    assert found and found.group(1) == found.group(2), refused.log_text()
    assert f"{threads} threads" in refused.log_text() and "5120 KiB is too small" in refused.log_text()
    enough = int(found.group(1))
    refused = start_node(*flags, "--disk-limit", f"{enough - 1}K", wait=False)
    assert refused.wait() == 1 and f"--disk-limit {enough}K" in refused.log_text()
    node = start_node(*flags, "--disk-limit", f"{enough}K")
    client, book = client_of(node), Book(300)
    for _ in range(10 * threads):
        soon(book.write, client, list(book.versions))
        assert segments_on_disk(node) * SEGMENT <= enough * 1024
    book.check(client)
