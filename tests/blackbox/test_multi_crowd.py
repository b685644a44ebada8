"""MULTI, WATCH and EXEC of many connections on the same keys, on threads of their own: everybody gets his answers."""

import random
import threading

from wire import Wire

CLIENTS = 8
ROUNDS = 300


def block(rng):
    """Something watched, something that others watch, and a transaction that may look at all keys."""

    def key():
        return b"key:%d" % rng.randrange(12)

    def gone():
        return b"gone:%d" % rng.randrange(4)

    commands = [
        lambda: [b"KEYS", b"*"],
        lambda: [b"SCAN", b"0"],
        lambda: [b"RANDOMKEY"],
        lambda: [b"LCS", key(), key()],
        lambda: [b"SET", key(), b"abcdefgh" * rng.randrange(60)],
        lambda: [b"APPEND", key(), b"zz"],
        lambda: [b"DEL", key()],
        lambda: [b"RENAME", key(), key()],
        lambda: [b"MSET", key(), b"1", key(), b"2"],
        lambda: [b"WAITAOF", b"1", b"0", b"1"],
    ]
    lines = [[b"WATCH", key(), key(), gone()]] if rng.random() < 0.6 else []
    lines += [[b"SET", gone(), b"x", b"PX", b"3"]] if rng.random() < 0.4 else []
    lines += [[b"DEL", gone()]] if rng.random() < 0.3 else []
    lines += [[b"MULTI"]] + [rng.choice(commands)() for _ in range(rng.randrange(5))]
    return lines + [[b"DISCARD" if rng.random() < 0.2 else b"EXEC"]]


def test_everybody_gets_his_answers(start_node):
    """What a connection waits for before it looks at all keys may wait for a key of another one, which does likewise."""
    node = start_node("--threads", "3")
    replies = [[] for _ in range(CLIENTS)]

    def run(client):
        rng = random.Random(client)
        with Wire(node.port) as wire:
            for _ in range(ROUNDS):
                lines = block(rng)
                wire.send_all(lines)
                replies[client].append([wire.read()[:1] for _ in lines][-1])

    threads = [threading.Thread(target=run, args=(client,), daemon=True) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(each) for each in replies] == [ROUNDS] * CLIENTS
    assert {reply for each in replies for reply in each} == {b"*", b"+"}
