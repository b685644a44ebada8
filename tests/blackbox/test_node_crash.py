"""kill -9 under load: every acknowledged write is found again, and no deleted key comes back."""

import random
import threading
import time

import pytest
from conftest import PATIENCE_SECONDS, wait_for

redis_py = pytest.importorskip("redis")

ROUNDS = 10
WRITERS = 4
KEYS_PER_WRITER = 200
ACKNOWLEDGED_MIN = 100  # writes, in each round


class Writer(threading.Thread):
    """Writes and deletes keys of its own until the connection breaks, and keeps books.

    known    key -> value that was acknowledged last, or None for an acknowledged delete
    pending  key -> value (or None) that was asked for since and not acknowledged: either may be found
    """

    def __init__(self, number, known, port, seed):
        super().__init__(daemon=True)
        self.number, self.known, self.pending = number, known, {}
        self.port, self.rng = port, random.Random(seed)
        self.acknowledged = 0
        self.unexpected = None

    def run(self):
        client = redis_py.Redis(port=self.port, socket_timeout=PATIENCE_SECONDS)
        try:
            while True:
                pipeline = client.pipeline(transaction=False)
                asked = {}
                for index in self.rng.sample(range(KEYS_PER_WRITER), self.rng.choice([1, 4, 16])):
                    key = b"%d:%d" % (self.number, index)
                    if self.rng.random() < 0.3:
                        asked[key] = None
                        pipeline.delete(key)
                    else:
                        asked[key] = self.rng.randbytes(self.rng.choice([10, 100, 3000]))
                        pipeline.set(key, asked[key])
                self.pending = asked
                for reply in pipeline.execute(raise_on_error=False):
                    if isinstance(reply, Exception):
                        raise reply
                self.known.update(asked)
                self.pending = {}
                self.acknowledged += len(asked)
        except (redis_py.ConnectionError, redis_py.TimeoutError):
            pass
        except Exception as error:
            self.unexpected = error


def check(client, writers):
    for writer in writers:
        assert writer.unexpected is None
        keys = [b"%d:%d" % (writer.number, index) for index in range(KEYS_PER_WRITER)]
        for key, found in zip(keys, client.mget(keys)):
            allowed = [writer.known.get(key)]
            if key in writer.pending:
                allowed.append(writer.pending[key])
            assert found in allowed, f"{key}: found {found and found[:20]}, allowed {[value and value[:20] for value in allowed]}"
            writer.known[key] = found


def acknowledged(writers):
    return sum(writer.acknowledged for writer in writers)


def all_alive(writers):
    return all(writer.is_alive() for writer in writers)


@pytest.mark.parametrize("threads", [1, 2])
def test_kill_9_under_load(start_node, tmp_path, threads):
    rng = random.Random(threads)
    books = [{} for _ in range(WRITERS)]
    node = start_node("--threads", threads, data_dir=tmp_path / "data")
    for round_number in range(ROUNDS):
        writers = [Writer(i, books[i], node.port, rng.random()) for i in range(WRITERS)]
        for writer in writers:
            writer.start()
        wait_for(lambda: acknowledged(writers) > ACKNOWLEDGED_MIN or not all_alive(writers), "acknowledged writes")
        time.sleep(rng.uniform(0, 0.5))
        node.kill9()
        for writer in writers:
            writer.join(PATIENCE_SECONDS)
            assert not writer.is_alive()
        assert acknowledged(writers) > ACKNOWLEDGED_MIN
        # Sometimes with another number of threads: the log is the same.
        node = start_node("--threads", rng.choice([1, 2, 4]), data_dir=tmp_path / "data")
        client = redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS)
        check(client, writers)
        client.close()
