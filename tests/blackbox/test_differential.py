"""The node and a real redis-server, side by side: thousands of random command lines, each with the same reply.

KVS_DIFFERENTIAL: how many lines (5,000, sanitized a fifth; 200,000 take a minute). KVS_DIFFERENTIAL_SEED: which ones.
"""

import os
import random
import re

import pytest
from conftest import SLOW
from differential import KNOWN, Difference, Differential, Generator, payload, plain_body, shown
from wire import Wire

LINES = int(os.environ.get("KVS_DIFFERENTIAL", 5000 // SLOW))
SEED = int(os.environ.get("KVS_DIFFERENTIAL_SEED", "1"))
VALUE_MAX = 1 << 20  # as small as Redis allows, so that its limit is met


def start_both(start_node, redis, threads):
    node = start_node("--threads", threads, "--value-max", "1M")
    with Wire(node.port) as ours, Wire(redis.port) as theirs:
        limit = [b"CONFIG", b"GET", b"proto-max-bulk-len"]
        assert theirs.ask(b"CONFIG", b"SET", b"proto-max-bulk-len", b"%d" % VALUE_MAX) == b"+OK\r\n"
        assert theirs.ask(b"CONFIG", b"SET", b"rdbcompression", b"no") == b"+OK\r\n"
        assert ours.ask(*limit) == theirs.ask(*limit)
    return node


@pytest.mark.parametrize("threads, resp", [(1, 2), (3, 3)])
def test_random_lines_are_answered_as_by_redis(start_node, redis, threads, resp):
    node = start_both(start_node, redis, threads)
    with Wire(node.port) as ours, Wire(redis.port) as theirs:
        for wire in (ours, theirs):
            wire.ask("HELLO", resp)
        differential = Differential(ours, theirs)
        seed = SEED * 100 + threads
        try:
            differential.run(Generator(seed, VALUE_MAX), LINES)
        except Difference as difference:
            pytest.fail(f"seed {seed}, RESP{resp}, after {differential.compared} lines:\n{difference}", pytrace=False)
    assert differential.compared >= LINES


def large_lines(key, rng):
    """What there is to do with a value of some MiB, which has a file of its own: inside, at its edges, beyond its end."""
    size = 5 * VALUE_MAX + 3
    bits = 8 * size
    yield [b"SET", key, b"\0" * (size - 9) + rng.randbytes(9)]
    for at in (0, 1, 7, 8, bits // 2 + 5, bits - 80, bits - 1):
        yield [b"BITPOS", key, b"1", b"%d" % at, b"-1", b"BIT"]
        yield [b"SETBIT", key, b"%d" % at, b"1"]
        yield [b"BITPOS", key, b"1", b"%d" % (at // 8), b"-1"]
        yield [b"BITCOUNT", key, b"%d" % (at - 3), b"%d" % (at + 400), b"BIT"]
    yield [b"SETRANGE", key, b"12345", b"\xff" * VALUE_MAX]
    yield [b"BITPOS", key, b"0", b"12345", b"-1"]
    yield [b"BITCOUNT", key]
    yield [b"PEXPIREAT", key, b"33177117420499"]
    yield [b"APPEND", key, rng.randbytes(VALUE_MAX)]
    yield [b"PEXPIRETIME", key]
    yield [b"STRLEN", key]
    yield [b"BITFIELD", key, b"GET", b"u63", b"%d" % (bits - 31), b"INCRBY", b"i64", b"%d" % (bits - 3), b"99"]
    yield [b"GETRANGE", key, b"%d" % (size - 40), b"%d" % (size + 40)]
    yield [b"GETEX", key, b"PERSIST"]
    yield [b"PEXPIRETIME", key]
    yield [b"SET", key, b"x", b"NX"]
    yield [b"SET", key, rng.randbytes(2 * VALUE_MAX), b"XX", b"GET", b"EXAT", b"33177117420"]
    yield [b"OBJECT", b"ENCODING", key]
    yield [b"DUMP", key]
    yield [b"INCR", key]
    yield [b"RESTORE", key, b"0", payload(plain_body(b"y" * 10000), 10)]
    yield [b"GETSET", key, rng.randbytes(3 * VALUE_MAX)]
    yield [b"PEXPIRETIME", key]
    other = key + b" again"
    yield [b"MSET", key, rng.randbytes(2 * VALUE_MAX), other, rng.randbytes(VALUE_MAX), b"small", b"x"]
    yield [b"GET", other]
    yield [b"MSETNX", b"none", rng.randbytes(VALUE_MAX), key, rng.randbytes(VALUE_MAX)]
    yield [b"EXPIREAT", key, b"33177117420"]
    yield [b"COPY", key, other]
    yield [b"COPY", key, other, b"REPLACE"]
    yield [b"EXPIRETIME", other]
    yield [b"GET", other]
    yield [b"RENAMENX", key, other]
    yield [b"RENAME", key, b"moved"]
    yield [b"GET", b"moved"]
    yield [b"RENAME", b"moved", key]
    yield [b"GET", key]
    for operation in (b"AND", b"OR", b"XOR", b"NOT"):
        sources = [key] if operation == b"NOT" else [key, b"small", key, other]
        yield [b"BITOP", operation, other] + sources
        yield [b"GET", other]
    yield [b"BITOP", b"OR", other, b"none"]
    yield [b"GETDEL", key]
    yield [b"EXISTS", key, other, b"small", b"none", b"moved"]


@pytest.mark.parametrize("threads", [1, 2])
def test_large_values_are_dealt_with_as_by_redis(start_node, redis, threads):
    node = start_node("--threads", threads, "--memory", "512M")
    with Wire(node.port) as ours, Wire(redis.port) as theirs:
        theirs.ask(b"CONFIG", b"SET", b"rdbcompression", b"no")
        differential = Differential(ours, theirs)
        for key in (b"a", b"b", b"c"):
            for line in large_lines(key, random.Random(3)):
                differential.send([line])


class Parrot:
    """A server that answers what it is told to."""

    def __init__(self, replies):
        self.replies = list(replies)

    def send_all(self, lines):
        pass

    def read(self):
        return self.replies.pop(0)


def test_a_difference_is_told_with_the_lines_of_its_key():
    lines = [[b"SET", b"a", b"1"], [b"SET", b"b", b"\xff"], [b"INCR", b"a"], [b"GET", b"a"]]
    same = [b"+OK\r\n", b"+OK\r\n", b":2\r\n"]
    differential = Differential(Parrot(same + [b"$1\r\n2\r\n"]), Parrot(same + [b"$1\r\n3\r\n"]))
    with pytest.raises(Difference) as told:
        differential.send(lines)
    text = str(told.value)
    assert text.startswith('  "SET" "a" "1"\n  "INCR" "a"\n  "GET" "a"\nreplies') and '"b"' not in text
    assert shown([b"SET", b'\xff"']) == '"SET" "\\xff\\x22"'
    assert shown([b"x" * 100]) == '"' + "x" * 60 + '"...(100 bytes)'


@pytest.mark.parametrize(
    "line, ours, theirs, known",
    [
        ([b"TTL", b"a"], b":100\r\n", b":99\r\n", True),
        ([b"TTL", b"a"], b":100\r\n", b":-1\r\n", False),
        ([b"TTL", b"a"], b":1000\r\n", b":100\r\n", False),
        ([b"pttl", b"a"], b":100000\r\n", b":99000\r\n", True),
        ([b"STRLEN", b"a"], b":100\r\n", b":99\r\n", False),
        ([b"OBJECT", b"encoding", b"a"], b"$6\r\nembstr\r\n", b"$3\r\nraw\r\n", True),
        ([b"OBJECT", b"encoding", b"a"], b"$3\r\nraw\r\n", b"$6\r\nembstr\r\n", False),
        ([b"MEMORY", b"USAGE", b"a"], b":61\r\n", b":56\r\n", True),
        ([b"MEMORY", b"USAGE", b"a"], b"_\r\n", b":56\r\n", True),
        ([b"MEMORY", b"USAGE", b"a"], b":61\r\n", b"_\r\n", False),
        ([b"DUMP", b"a"], b"$14\r\n\0\x02ab" + b"1" * 10 + b"\r\n", b"$14\r\n\0\x02ab" + b"2" * 10 + b"\r\n", True),
        ([b"KEYS", b"*"], b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*2\r\n$1\r\nb\r\n$1\r\na\r\n", True),
        ([b"KEYS", b"*"], b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*2\r\n$1\r\nb\r\n$1\r\nb\r\n", False),
        ([b"KEYS", b"*"], b"*1\r\n$1\r\na\r\n", b"*0\r\n", False),
        (
            [b"SCAN", b"0"],
            b"*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n",
            b"*2\r\n$1\r\n0\r\n*2\r\n$1\r\nb\r\n$1\r\na\r\n",
            True,
        ),
        ([b"SCAN", b"0"], b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n", b"*2\r\n$1\r\n7\r\n*1\r\n$1\r\na\r\n", False),
        ([b"RANDOMKEY"], b"$1\r\na\r\n", b"$1\r\nb\r\n", True),
        ([b"RANDOMKEY"], b"$-1\r\n", b"$1\r\nb\r\n", False),
        ([b"DUMP", b"a"], b"$14\r\n\0\x02ab" + b"1" * 10 + b"\r\n", b"$14\r\n\0\x02ac" + b"2" * 10 + b"\r\n", False),
    ],
)
def test_known_differences_are_no_wider_than_they_are(line, ours, theirs, known):
    assert any(applies(line, ours, theirs) for _, applies in KNOWN) == known


@pytest.mark.parametrize(
    "ours, theirs, known",
    [
        (b"*2\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n:1\r\n", b"*2\r\n*2\r\n$1\r\nb\r\n$1\r\na\r\n:1\r\n", True),
        (b"*2\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n:1\r\n", b"*2\r\n*2\r\n$1\r\nb\r\n$1\r\na\r\n:2\r\n", False),
        (b"*2\r\n*1\r\n$1\r\na\r\n:1\r\n", b"*2\r\n*1\r\n$1\r\nb\r\n:1\r\n", False),
        (b"*1\r\n*1\r\n$1\r\na\r\n", b"*2\r\n*1\r\n$1\r\na\r\n:1\r\n", False),
        (b"*-1\r\n", b"*2\r\n*1\r\n$1\r\na\r\n:1\r\n", False),
    ],
)
def test_replies_of_an_exec_are_compared_one_by_one(ours, theirs, known):
    lines = [[b"MULTI"], [b"KEYS", b"*"], [b"INCR", b"a"], [b"EXEC"]]
    same = [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n"]
    differential = Differential(Parrot(same + [ours]), Parrot(same + [theirs]))
    try:
        differential.send(lines)
    except Difference:
        assert not known
    else:
        assert known


def test_payloads_of_redis_are_restored_packed_or_not(node, redis):
    values = [b"", b"1", b"-129", b"70000", b"2147483648", b"abc", b"x" * 63, b"x" * 64, b"ab" * 9000, bytes(range(256)) * 80]
    with Wire(node.port) as ours, Wire(redis.port) as theirs:
        for packed in (b"yes", b"no"):
            theirs.ask(b"CONFIG", b"SET", b"rdbcompression", packed)
            for value in values:
                theirs.ask(b"SET", b"a", value)
                theirs.send(b"DUMP", b"a")
                data = theirs.read().split(b"\r\n", 1)[1][:-2]
                assert ours.ask(b"RESTORE", b"a", b"0", data, b"REPLACE") == b"+OK\r\n", (packed, value[:20])
                assert ours.ask(b"GET", b"a") == theirs.ask(b"GET", b"a")
                assert packed == b"no" or len(value) < 1000 or len(data) < len(value) / 2


def test_payloads_of_both_versions_are_taken_and_later_ones_refused(node):
    with Wire(node.port) as ours:
        for version, reply in [(10, b"+OK\r\n"), (11, b"+OK\r\n"), (12, b"-ERR DUMP payload version or checksum are wrong\r\n")]:
            assert ours.ask(b"RESTORE", b"a", b"0", payload(plain_body(b"value"), version), b"REPLACE") == reply
        data = ours.ask(b"DUMP", b"a").split(b"\r\n", 1)[1][:-2]
        assert data == payload(plain_body(b"value"), 11)


def test_what_valkey_has_and_redis_has_not(start_node):
    node = start_node("--threads", "2")
    with Wire(node.port) as ours:
        for key in (b"a", b"b", b"c", b"d"):
            for line, reply in [
                ([b"SET", key, b"new", b"IFEQ", b"old"], b"$-1\r\n"),
                ([b"SET", key, b"old"], b"+OK\r\n"),
                ([b"SET", key, b"new", b"IFEQ", b"ol"], b"$-1\r\n"),
                ([b"SET", key, b"new", b"IFEQ", b"old", b"EX", b"1000"], b"+OK\r\n"),
                ([b"TTL", key], b":1000\r\n"),
                ([b"set", key, b"newer", b"get", b"ifeq", b"new", b"keepttl"], b"$3\r\nnew\r\n"),
                ([b"SET", key, b"newest", b"GET", b"IFEQ", b"new"], b"$5\r\nnewer\r\n"),
                ([b"SET", key, b"x", b"IFEQ"], b"-ERR syntax error\r\n"),
                ([b"SET", key, b"x", b"IFEQ", b"a", b"IFEQ", b"a"], b"-ERR syntax error\r\n"),
                ([b"SET", key, b"x", b"NX", b"IFEQ", b"a"], b"-ERR syntax error\r\n"),
                ([b"SET", key, b"x", b"IFEQ", b"a", b"XX"], b"-ERR syntax error\r\n"),
                ([b"SET", key, b"", b"IFEQ", b"newer"], b"+OK\r\n"),
                ([b"SET", key, b"w", b"IFEQ", b""], b"+OK\r\n"),
                ([b"DELIFEQ", key, b"newer"], b":0\r\n"),
                ([b"DELIFEQ", key, b"w"], b":1\r\n"),
                ([b"DELIFEQ", key, b"w"], b":0\r\n"),
                ([b"EXISTS", key], b":0\r\n"),
            ]:
                assert ours.ask(*line) == reply, line


def test_large_values_are_compared(start_node):
    node = start_node("--threads", "2", "--memory", "512M")
    values = [random.Random(seed).randbytes(5 * VALUE_MAX) for seed in range(3)]
    with Wire(node.port) as ours:
        for key in (b"a", b"b", b"c", b"d"):
            for line, reply in [
                ([b"SET", key, values[0]], b"+OK\r\n"),
                ([b"SET", key, values[2], b"IFEQ", values[1]], b"$-1\r\n"),
                ([b"SET", key, values[1], b"IFEQ", values[0]], b"+OK\r\n"),
                ([b"DELIFEQ", key, values[0]], b":0\r\n"),
                ([b"GET", key], b"$%d\r\n%s\r\n" % (len(values[1]), values[1])),
                ([b"DELIFEQ", key, values[1]], b":1\r\n"),
            ]:
                assert ours.ask(*line) == reply, [word[:20] for word in line]


def test_debug_object_says_what_redis_does(start_node, redis):
    """But for the address, and what Redis knows of the past."""
    node = start_node("--threads", "2", "--enable-debug-command", "local")
    values = [b"", b"1", b"-129", b"70000", b"2147483648", b"abc", b"x" * 44, b"x" * 45, b"x" * 63, b"y" * 64, b"z" * 20000]
    past = re.compile(rb"at:0x[0-9a-f]+|lru:\d+|refcount:\d+")
    with Wire(node.port) as ours, Wire(redis.port) as theirs:
        theirs.ask(b"CONFIG", b"SET", b"rdbcompression", b"no")
        for i, value in enumerate(values):
            lines = [
                [b"SET", b"key:%d" % i, value],
                [b"DEBUG", b"OBJECT", b"key:%d" % i],
                [b"MULTI"],
                [b"DEBUG", b"OBJECT", b"key:%d" % i],
                [b"EXEC"],
                [b"DEBUG", b"OBJECT", b"none"],
            ]
            for line in lines:
                assert past.sub(b"", ours.ask(*line)) == past.sub(b"", theirs.ask(*line)), (line, value[:50])
            whole = ours.ask(b"DEBUG", b"OBJECT", b"key:%d" % i, b"slow")
            assert ours.ask(b"debug", b"object", b"key:%d" % i, b"FAST") == re.sub(rb"serializedlength:\d+ ", b"", whole)  # since 7.2
