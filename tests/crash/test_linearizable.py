"""Whatever happens to the node, what its clients saw can be explained.

kvs-witness contends for a few keys over several pipelining connections and records all it asks and is told, while the node
is killed (SIGKILL), started again on the same directory with another number of threads, and halted for a moment (SIGSTOP).
At the end every key is read once more, and kvs-witness --check looks for an order of all operations that explains every
answer: with durable writes across all kills, with relaxed ones within each life of the node.

The last tests are about the check itself: a record in which one answer was altered must be found impossible.
"""

import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import time
from collections import defaultdict

import pytest
from patience import BIN, PATIENCE_SECONDS, wait_for

ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
KEYS = 8
SECONDS = 2
DEATHS_MIN = 3
RIGHT, WRONG = 0, 1


class Node:
    """A kvs-node on one data directory and one port, that can be killed and started again."""

    def __init__(self, folder):
        self.data = folder / "data"
        self.log_path = folder / "node.log"
        self.marks = folder / "marks"
        self.marks.touch()
        self.port = 0
        self.process = None
        self.deaths = 0

    def start(self, threads):
        with open(self.log_path, "ab") as log:
            offset = log.tell()
            self.process = subprocess.Popen(
                [BIN / "kvs-node", "--data-dir", self.data, "--addr", f"127.0.0.1:{self.port}", "--threads", str(threads)]
                + ["--memory", "256M", "--segment-size", "4M"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

        def serves():
            alive = self.process.poll() is None
            served = self._serves(offset)
            assert served or alive, f"kvs-node ended by itself:\n{self.log()}"
            return served

        wait_for(serves, lambda: f"kvs-node does not serve:\n{self.log()}")

    def _serves(self, offset):
        if self.port == 0:
            found = ADDRESS.search(self.log_path.read_bytes()[offset:].decode("utf-8", "replace"))
            if found is None:
                return False
            self.port = int(found.group(1))
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64) == b"+PONG\r\n"  # else it is loading still
        except OSError:
            return False

    def wait_for_records(self, count):
        """Until clients have had so many records written in this life of the node."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as connection:
            stream = connection.makefile("rb")

            def are_there():
                connection.sendall(b"INFO stats\r\n")
                text = stream.read(int(stream.readline()[1:]) + 2)
                return int(re.search(rb"records_appended:(\d+)", text).group(1)) >= count

            wait_for(are_there, f"{count} records")

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def kill(self):
        """SIGKILL; the moment after which it was gone goes into the record."""
        self.process.kill()
        self.process.wait()
        self.deaths += 1
        with open(self.marks, "a") as marks:
            marks.write(f"node-down {time.monotonic_ns()}\n")

    def halt(self, seconds):
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def log(self):
        return self.log_path.read_text(errors="replace")[-4000:]


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    if node.process is not None and node.process.poll() is None:
        node.process.kill()
        node.process.wait()


def witness(*arguments):
    program = BIN / "kvs-witness"
    assert program.exists(), f"{program} does not exist: build the project, or set KVS_BIN to the folder of its programs"
    return subprocess.Popen(
        [program] + [str(argument) for argument in arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    try:
        output, _ = process.communicate(timeout=3 * PATIENCE_SECONDS)
    finally:
        process.kill()
    return process.returncode, output


def check(*paths):
    return finish(witness("--check", *paths))


def number(output, name):
    return int(re.search(name + r" (\d+)", output).group(1))


@pytest.mark.parametrize(
    "threads, durability, connections, pipeline",
    [(1, "durable", 4, 8), (2, "durable", 8, 16), (2, "relaxed", 6, 4)],
)
def test_every_answer_can_be_explained(node, tmp_path, threads, durability, connections, pipeline):
    rng = random.Random(threads * 100 + connections)
    record = tmp_path / "record"
    node.start(threads)
    client = witness(
        *["--addr", node.address, "--history", record, "--seconds", 10000, "--connections", connections],
        *["--keys", KEYS, "--pipeline", pipeline, "--durability", durability, "--seed", rng.randrange(1000)],
    )
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or node.deaths < DEATHS_MIN:
            node.wait_for_records(30)
            time.sleep(rng.uniform(0, 0.3))
            if rng.random() < 0.3:
                node.halt(rng.uniform(0.05, 0.2))
            else:
                node.kill()
                node.start(rng.choice([threads, 3 - threads, 3]))
        client.terminate()
        code, output = finish(client)
    finally:
        client.kill()
    assert code == RIGHT, output
    node.kill()
    node.start(threads)
    survey = witness(*["--addr", node.address, "--history", record, "--keys", KEYS, "--survey", "--seconds", PATIENCE_SECONDS])
    code, survey = finish(survey)
    assert code == RIGHT, survey
    node.kill()

    code, verdict = check(record, node.marks)
    assert code == RIGHT, f"{verdict}\n{node.log()}"
    # It has been a test: much was asked, in every life of the node, and some answers were lost with it.
    assert number(verdict, "operations") > 300
    assert number(verdict, "unanswered") > 0
    assert number(verdict, "sessions") > connections
    assert number(verdict, "node down") == node.deaths
    assert "refused" not in verdict


# ---- the check itself ----


def read_record(path):
    """Lines, and for each operation: kind, key, value written, moment of asking, line and words of its answer."""
    lines = path.read_text().splitlines()
    operations = {}
    for place, line in enumerate(lines):
        words = line.split()
        if words[0] == "ask":
            operations[words[1]] = {"kind": words[4], "key": words[3], "value": words[5], "asked": int(words[6]), "answer": None}
        elif words[0] == "answer":
            operations[words[1]].update(line=place, answered=int(words[2]), answer=words[3:])
    return lines, operations


def write_altered(lines, operation, answer, path):
    altered = list(lines)
    altered[operation["line"]] = " ".join(lines[operation["line"]].split()[:3] + answer)
    path.write_text("\n".join(altered) + "\n")
    return path


def stale_reads(operations):
    """Reads, each with a value that was surely overwritten before: its write had ended when that of the read began."""
    writes = defaultdict(list)
    for operation in operations.values():
        if operation["kind"] == "w" and operation["answer"] == ["ok"]:
            writes[operation["key"]].append(operation)
    for operation in operations.values():
        if operation["kind"] != "r" or operation["answer"] is None or operation["answer"][0] != "value":
            continue
        for newer in writes[operation["key"]]:
            if newer["answered"] >= operation["asked"]:
                continue
            for older in writes[operation["key"]]:
                if older["answered"] < newer["asked"]:
                    yield operation, older["value"]
                    break
            else:
                continue
            break


def test_an_older_value_is_found_out(node, tmp_path):
    record = tmp_path / "record"
    node.start(2)
    client = witness("--addr", node.address, "--history", record, "--seconds", 10000, "--connections", 4, "--keys", 4)
    node.wait_for_records(500)
    node.kill()
    node.start(1)
    node.wait_for_records(500)
    client.terminate()
    code, output = finish(client)
    assert code == RIGHT, output
    assert check(record, node.marks)[0] == RIGHT
    lines, operations = read_record(record)
    candidates = list(stale_reads(operations))
    assert len(candidates) > 20
    for operation, value in random.Random(1).sample(candidates, 5):
        altered = write_altered(lines, operation, ["value", value], tmp_path / "altered")
        code, verdict = check(altered, node.marks)
        assert code == WRONG, verdict
        assert f"READ of value {value}" in verdict


def test_a_lost_write_is_found_out(node, tmp_path):
    """One client, one operation at a time: every answer follows from the one before."""
    record = tmp_path / "record"
    node.start(1)
    client = witness(
        *["--addr", node.address, "--history", record, "--seconds", 10000, "--connections", 1],
        *["--keys", 2, "--pipeline", 1, "--protocol", "resp"],
    )
    node.wait_for_records(200)
    client.terminate()
    code, output = finish(client)
    assert code == RIGHT, output
    code, verdict = check(record)
    assert code == RIGHT, verdict
    lines, operations = read_record(record)
    opposite = {"there": "absent", "absent": "there"}
    rng = random.Random(2)
    for kind, name in (("d", "REMOVE"), ("e", "EXISTS")):
        for answer in opposite:
            some = [operation for operation in operations.values() if operation["kind"] == kind and operation["answer"] == [answer]]
            altered = write_altered(lines, rng.choice(some), [opposite[answer]], tmp_path / "altered")
            code, verdict = check(altered)
            assert code == WRONG, verdict
            assert name in verdict
    read = [operation for operation in operations.values() if operation["kind"] == "r" and operation["answer"][0] == "value"]
    altered = write_altered(lines, read[-1], ["absent"], tmp_path / "altered")
    code, verdict = check(altered)
    assert code == WRONG and "READ of nothing" in verdict, verdict


def test_a_write_that_survives_its_node_unseen_and_appears_later_is_found_out(tmp_path):
    """Asked before the node went down, not there after the restart, there later: no order explains it."""
    events = [
        "run 1",
        "open 1 100 durable",
        "ask 11 1 0 w 11 200",
        "node-down 300",
        "open 2 400 durable",
        "ask 12 2 0 r 0 500",
        "answer 12 600 absent",
        "ask 13 2 0 r 0 700",
        "answer 13 800 value 11",
    ]
    record = tmp_path / "record"
    record.write_text("\n".join(events) + "\n")
    code, verdict = check(record)
    assert code == WRONG and "#8 READ of value 11" in verdict, verdict
    # Had the node not been down, it could have been late.
    record.write_text("\n".join(event for event in events if "down" not in event) + "\n")
    code, verdict = check(record)
    assert code == RIGHT, verdict
    # With relaxed durability, too, nothing comes back that was gone.
    record.write_text("\n".join(events).replace("durable", "relaxed") + "\n")
    code, verdict = check(record)
    assert code == WRONG, verdict


def test_wrong_bytes_are_found_out(tmp_path):
    record = tmp_path / "record"
    record.write_text("run 1\nopen 1 100 durable\nask 11 1 0 r 0 200\nanswer 11 300 wrong key 0: damaged bytes in value 7\n")
    code, verdict = check(record)
    assert code == WRONG and "damaged bytes" in verdict, verdict
