"""Ordinary clients beside others that do a node no good: every reply is right and comes, and nobody is ended who keeps to the
rules. What it costs in latency is measured by bench/attacks.py, which has the same attackers."""

import json
import pathlib
import random
import subprocess
import sys
import threading

import pytest
from conftest import PATIENCE_SECONDS, SLOW
from wire import Wire

ATTACKERS = pathlib.Path(__file__).resolve().parents[2] / "bench" / "attackers.py"
ROUNDS = 800 // SLOW
CROWD = {"idle": 1000, "slow": 200, "dribble": 200, "flood": 500}


class Attack:
    """Attackers at work; end() -> what became of them."""

    def __init__(self, kind, node):
        command = [sys.executable, ATTACKERS, kind, node.host, node.port, CROWD[kind]]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._watch = threading.Timer(PATIENCE_SECONDS, self.process.kill)
        self._watch.start()
        assert self.process.stdout.readline() == "ready\n"

    def end(self):
        out, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        self._watch.cancel()
        assert self.process.returncode == 0
        return json.loads(out)


@pytest.fixture
def attack():
    begun = []

    def begin(kind, node):
        begun.append(Attack(kind, node))
        return begun[-1]

    yield begin
    for one in begun:
        one._watch.cancel()
        one.process.kill()
        one.process.wait(PATIENCE_SECONDS)


def ordinary_client(node, seed, failed):
    """Writes and reads keys of its own, some pipelined, and knows what each reply has to be."""
    rng, model = random.Random(seed), {}
    try:
        with Wire(node.port) as wire:
            for number in range(ROUNDS):
                lines, expected = [], []
                for _ in range(rng.choice([1, 1, 20])):
                    key = b"%d:%d" % (seed, rng.randrange(20))
                    if rng.random() < 0.5:
                        model[key] = b"%d" % number
                        lines.append(("SET", key, model[key]))
                        expected.append(b"+OK\r\n")
                    else:
                        value = model.get(key)
                        lines.append(("GET", key))
                        expected.append(b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value))
                wire.send_all(lines)
                assert [wire.read() for _ in lines] == expected
    except BaseException as error:  # noqa: BLE001 (told by the thread that waits for it)
        failed.append(error)


@pytest.mark.parametrize("kind", CROWD)
def test_ordinary_clients_are_served_beside(start_node, attack, kind):
    node = start_node("--threads", "2")
    attackers, failed = attack(kind, node), []
    clients = [threading.Thread(target=ordinary_client, args=(node, seed, failed), daemon=True) for seed in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(PATIENCE_SECONDS)
        assert not client.is_alive()
    assert failed == []
    became = attackers.end()
    assert node.alive()
    with Wire(node.port) as wire:
        assert wire.ask("PING") == b"+PONG\r\n"
    if kind == "flood":
        assert became["total"] > 0 and became["failed"] == 0
    elif kind != "slow":  # those may be ended; who is quiet, or slow to ask, may not
        assert became["connections"] == became["alive"] == CROWD[kind]
    else:
        assert became["connections"] == CROWD[kind]
