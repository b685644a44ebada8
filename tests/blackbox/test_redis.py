"""The node as Redis clients see it: redis-cli, redis-benchmark, redis-py, and byte for byte beside a real redis-server."""

import random
import shutil
import socket
import subprocess
import time

import pytest
from conftest import PATIENCE_SECONDS, wait_for
from wire import Wire, encode

redis_py = pytest.importorskip("redis")

MIB = 1 << 20
VALUE_BYTES_MAX = 16 * MIB
KEY_BYTES_MAX = 65535
VALKEYS = [b"delifeq"]  # commands that Redis does not have


@pytest.fixture
def client(start_node):
    node = start_node("--threads", "2")
    with redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS) as connection:
        yield connection


# ---- beside a real server ----

SAME_REPLIES = [
    [("PING",)],
    [("ping", "x")],
    [("PING", "a", "b")],
    [("ECHO", "x")],
    [("ECHO",)],
    [("foo",)],
    [("foo", "a", "b\r\nc")],
    [("x" * 200, "y" * 200, "z" * 5)],
    [("foo", "a" * 100, "b" * 100, "c")],
    [(b"fo\0o", b"a\0b")],
    [("GET",)],
    [("get", "a", "b")],
    [("SET", "a")],
    [("SET", "a", "b", "c")],
    [("SET", "a", "b", "c", "d")],
    [("SET", "k", "v"), ("GET", "k"), ("EXISTS", "k", "k"), ("DEL", "k", "k"), ("EXISTS", "k", "k"), ("GET", "k")],
    [("SET", "a", "b", "EX")],
    [("SET", "a", "b", "EX", "10", "PX")],
    [("SET", "a", "b", "EX", "10", "PX", "10")],
    [("SET", "a", "b", "EX", "x")],
    [("SET", "a", "b", "EX", " 1")],
    [("SET", "a", "b", "EX", "+1")],
    [("SET", "a", "b", "EX", "01")],
    [("SET", "a", "b", "EX", "1.5")],
    [("SET", "a", "b", "EX", "")],
    [("SET", "a", "b", "EX", "0")],
    [("SET", "a", "b", "EX", "-1")],
    [("SET", "a", "b", "PX", "-9223372036854775808")],
    [("SET", "a", "b", "EX", "9223372036854775807")],
    [("SET", "a", "b", "EX", "9223372036854775")],
    [("SET", "a", "b", "PX", "9223372036854775807")],
    [("SET", "a", "b", "PX", "9223372036854775808")],
    [("SET", "a", "b", "EXAT", "0")],
    [("SET", "a", "b", "PXAT", "-5")],
    [("SETEX", "a", "10")],
    [("SETEX", "a", "0", "v")],
    [("SETEX", "a", "x", "v")],
    [("PSETEX", "a", "-1", "v")],
    [("psetex", "a", "9223372036854775807", "v")],
    [("EXPIRE", "k", "100", "a\r\nb")],
    [("EXPIRE", "k", "100", "a\r\n\n")],
    [("TTL",)],
    [("PTTL", "a", "b")],
    [("TTL", "none"), ("PTTL", "none"), ("EXPIRETIME", "none"), ("PEXPIRETIME", "none")],
    [("SET", "k", "v"), ("TTL", "k"), ("PTTL", "k"), ("EXPIRETIME", "k"), ("PEXPIRETIME", "k"), ("DEL", "k")],
    [("SET", "k", "v", "EX", "100"), ("TTL", "k"), ("SET", "k", "w"), ("TTL", "k"), ("DEL", "k")],
    [("set", "k", "v", "ex", "1", "EX", "200"), ("TTL", "k"), ("DEL", "k")],
    [("SETEX", "k", "100", "v"), ("TTL", "k"), ("GET", "k"), ("DEL", "k"), ("TTL", "k")],
    [("PSETEX", "k", "100400", "v"), ("TTL", "k"), ("DEL", "k")],
    [("SET", "k", "v", "EXAT", "33177117420"), ("EXPIRETIME", "k"), ("PEXPIRETIME", "k"), ("DEL", "k")],
    [("SET", "k", "v", "PXAT", "33177117420499"), ("EXPIRETIME", "k"), ("PEXPIRETIME", "k"), ("DEL", "k")],
    [("SET", "k", "v", "PXAT", "33177117420500"), ("EXPIRETIME", "k"), ("DEL", "k")],
    [("SET", "k", "v"), ("SET", "k", "w", "PXAT", "1"), ("GET", "k"), ("EXISTS", "k"), ("TTL", "k"), ("DBSIZE",)],
    [("SET", "k", "v", "EXAT", "1"), ("GET", "k"), ("DEL", "k")],
    [("SET", "", ""), ("GET", ""), ("UNLINK", ""), ("GET", "")],
    [("SeT", "k", b"\0\r\n\xff"), ("gEt", "k"), ("dEL", "k")],
    [("MGET",)],
    [("SET", "a", 1), ("SET", "c", 3), ("MGET", "a", "b", "c", "a"), ("DEL", "a", "b", "c")],
    [("DEL",)],
    [("EXISTS",)],
    [("UNLINK",)],
    [("UNLINK", "none")],
    [("SELECT", "0")],
    [("SELECT", "abc")],
    [("SELECT", "16")],
    [("SELECT", "-1")],
    [("SELECT", "00")],
    [("SELECT", "99999999999999999999")],
    [("SELECT",)],
    [("HELLO", "4")],
    [("HELLO", "abc")],
    [("HELLO", "1")],
    [("HELLO", "3", "FOO")],
    [("HELLO", "2", "AUTH", "default")],
    [("HELLO", "2", "AUTH", "x", "y")],
    [("HELLO", "2", "SETNAME", "a b")],
    [("AUTH", "x")],
    [("AUTH", "default", "x")],
    [("AUTH", "u", "x")],
    [("AUTH",)],
    [("AUTH", "a", "b", "c")],
    [("CLIENT",)],
    [("CLIENT", "FOO")],
    [("CLIENT", "SETNAME")],
    [("CLIENT", "SETNAME", "a\nb")],
    [("CLIENT", "SETNAME", "ok"), ("client", "getname")],
    [("CLIENT", "GETNAME")],
    [("CLIENT", "GETNAME", "x")],
    [("CLIENT", "SETNAME", "")],
    [("CLIENT", "ID", "x")],
    [("CONFIG",)],
    [("CONFIG", "FOO")],
    [("CONFIG", "GET")],
    [("CONFIG", "GET", "save")],
    [("CONFIG", "GET", "nonesuch")],
    [("COMMAND", "FOO")],
    [("COMMAND", "COUNT", "x")],
    [("COMMAND", "INFO", "nonesuch")],
    [("COMMAND", "DOCS", "nonesuch")],
    [("DBSIZE", "x")],
    [("INFO", "nonesuch")],
    [("QUIT",)],
    [("HELLO", "3", "FOO"), ("GET", "none")],
]

SAME_REPLIES_RESP3 = [
    ("GET", "none"),
    ("MGET", "none", "none"),
    ("CLIENT", "GETNAME"),
    ("COMMAND", "INFO", "nonesuch"),
    ("COMMAND", "DOCS", "nonesuch"),
    ("CONFIG", "GET", "timeout"),
    ("FOO",),
    ("EXISTS", "none"),
    ("PING",),
    ("INFO", "nonesuch"),
]


def replies_of_both(node, redis, requests):
    """Pairs of replies, and the seconds from the first to the last."""
    with Wire(node.port) as ours, Wire(redis.port) as theirs:
        begin = time.monotonic()
        return [(ours.ask(*request), theirs.ask(*request)) for request in requests], time.monotonic() - begin


@pytest.mark.parametrize("threads", [1, 3])
def test_replies_are_those_of_redis(start_node, redis, threads):
    node = start_node("--threads", threads)
    for requests in SAME_REPLIES:
        replies, took = replies_of_both(node, redis, requests)
        while took > 0.2 and any(mine != yours for mine, yours in replies):
            replies, took = replies_of_both(node, redis, requests)  # while that took, what has an expiry got older
        for request, (mine, yours) in zip(requests, replies):
            assert mine == yours, request


def test_replies_are_those_of_redis_in_resp3(node, redis):
    with Wire(node.port) as ours, Wire(redis.port) as theirs:
        assert ours.ask("HELLO", "3").startswith(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n")
        assert theirs.ask("HELLO", "3").startswith(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n")
        for request in SAME_REPLIES_RESP3:
            assert ours.ask(*request) == theirs.ask(*request), request


def parsed(data, at=0):
    """A RESP2 reply as lists, and where it ends."""
    end = data.index(b"\r\n", at)
    kind, word = data[at : at + 1], data[at + 1 : end]
    if kind == b"*":
        items, at = [], end + 2
        for _ in range(int(word)):
            item, at = parsed(data, at)
            items.append(item)
        return items, at
    if kind == b"$":
        return data[end + 2 : end + 2 + int(word)].decode(), end + 4 + int(word)
    return int(word) if kind == b":" else word.decode(), end + 2


def pairs(flat):
    """A map of RESP2, and the maps in it."""
    return {flat[i]: flat[i + 1] for i in range(0, len(flat), 2)}


def entries(wire, name):
    """What COMMAND INFO tells of a command and its subcommands, without order where none is meant."""
    (entry,), _ = parsed(wire.ask("COMMAND", "INFO", name))
    told = {}
    for one in [entry] + entry[9]:
        specs = [pairs(spec) for spec in one[8]]
        for spec in specs:
            spec.pop("notes", None)
            spec["flags"] = sorted(spec["flags"])
        told[one[0]] = [one[1], sorted(one[2]), one[3:6], sorted(one[6]), one[7], specs]
    return told


def docs(wire, name):
    """Arguments, version and group, as COMMAND DOCS tells them: without the words for people."""
    (_, flat), _ = parsed(wire.ask("COMMAND", "DOCS", name))
    told = {}
    subs = pairs(flat).get("subcommands", [])
    for one, fields in [(name.decode(), flat)] + [(subs[i], subs[i + 1]) for i in range(0, len(subs), 2)]:
        known = pairs(fields)
        told[one] = [known["since"], known["group"], plain(known.get("arguments", []))]
    return told


def plain(arguments):
    """Without display_text, which is of Redis 7.2."""
    told = []
    for argument in map(pairs, arguments):
        argument.pop("display_text", None)
        argument.pop("deprecated_since", None)
        if "arguments" in argument:
            argument["arguments"] = plain(argument["arguments"])
        told.append(argument)
    return told


# Of Redis 7.2, not of the one that is compared; and what is said otherwise.
SINCE_7_2 = {"waitaof", "client|no-touch", "client|setinfo"}
OTHER_ENTRY = {"wait"}  # blocks, in Redis 7.2
OTHER_DOCS = {"set", "client|kill", "bitop"}  # IFEQ is Valkey's; a name with a colon; BITOP's operation has words in Redis 7.2


def test_command_tells_what_redis_tells(node, redis):
    with Wire(node.port) as ours, Wire(redis.port) as theirs:
        count = int(ours.ask("COMMAND", "COUNT")[1:])
        assert count > 10
        names = redis_py.Redis(port=node.port).execute_command("COMMAND LIST")
        assert len(names) == count
        compared = 0
        for name in names:
            if name.startswith(b"kvs.") or name in VALKEYS or name.decode() in SINCE_7_2:
                continue
            for tell, others in [(entries, OTHER_ENTRY), (docs, OTHER_DOCS)]:
                mine, yours = tell(ours, name), tell(theirs, name)
                for one, told in mine.items():
                    if one not in SINCE_7_2:
                        assert (told == yours[one]) == (one not in others), (one, told, yours[one])
                        compared += 1
        assert compared > 200


def test_hello_3_and_back(node):
    with Wire(node.port) as wire:
        assert wire.ask("GET", "none") == b"$-1\r\n"
        assert b"proto\r\n:3\r\n" in wire.ask("HELLO", "3", "SETNAME", "me")
        assert wire.ask("GET", "none") == b"_\r\n"
        assert wire.ask("CLIENT", "GETNAME") == b"$2\r\nme\r\n"
        assert wire.ask("INFO", "keyspace").startswith(b"=")
        assert b"proto\r\n:2\r\n" in wire.ask("HELLO", "2")
        assert wire.ask("GET", "none") == b"$-1\r\n"


# ---- its tools ----


def test_redis_cli(node):
    def cli(*words, stdin=None):
        command = ["redis-cli", "-p", str(node.port), *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True).stdout

    if shutil.which("redis-cli") is None:
        pytest.skip("redis-cli is not installed")
    assert cli("SET", "a", "1") == "OK\n"
    assert cli("GET", "a") == "1\n"
    assert cli("-3", "GET", "none") == "\n"
    assert cli(stdin="PING\nDBSIZE\nDEL a\n") == "PONG\n1\n1\n"
    assert "kvs_version:" in cli("INFO")
    assert "Subcommands are:" in cli("CLIENT", "HELP")
    assert "Get the value of a key" in cli("COMMAND", "DOCS", "GET")


def test_redis_benchmark(start_node):
    if shutil.which("redis-benchmark") is None:
        pytest.skip("redis-benchmark is not installed")
    node = start_node("--threads", "2")
    command = ["redis-benchmark", "-p", str(node.port), "-q", "-n", "3000", "-r", "500", "-P", "8", "-t", "ping,set,get"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
    assert "Error" not in done.stdout + done.stderr and "WARN" not in done.stdout + done.stderr
    assert done.stdout.count("requests per second") == 4
    assert 400 <= redis_py.Redis(port=node.port).dbsize() <= 501


# ---- through redis-py ----


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_random_pipelines_agree_with_a_model(start_node, threads):
    """Mixed commands, pipelined on several connections with keys of their own, over all shards."""
    node = start_node("--threads", threads)
    rng = random.Random(threads)
    connections = [redis_py.Redis(port=node.port) for _ in range(4)]
    models = [{} for _ in connections]
    for _ in range(40):
        for number, connection in enumerate(connections):
            model, expected = models[number], []
            pipeline = connection.pipeline(transaction=False)
            keys = [b"%d:%d" % (number, rng.randrange(40)) for _ in range(100)]
            for key in keys:
                action = rng.randrange(6)
                some = [b"%d:%d" % (number, rng.randrange(40)) for _ in range(rng.randrange(1, 9))]
                if action <= 1:
                    value = rng.randbytes(rng.choice([0, 5, 64, 300, 5000]))
                    pipeline.set(key, value)
                    model[key] = value
                    expected.append(True)
                elif action == 2:
                    pipeline.get(key)
                    expected.append(model.get(key))
                elif action == 3:
                    pipeline.delete(*some)
                    expected.append(sum(model.pop(one, None) is not None for one in some))
                elif action == 4:
                    pipeline.exists(*some)
                    expected.append(sum(one in model for one in some))
                else:
                    pipeline.mget(*some)
                    expected.append([model.get(one) for one in some])
            assert pipeline.execute() == expected
    assert connections[0].dbsize() == sum(len(model) for model in models)


def test_a_pipelined_get_sees_the_set_before_it(client):
    """One connection, keys of all shards: the order of its requests is kept wherever they go."""
    pipeline = client.pipeline(transaction=False)
    for i in range(2000):
        pipeline.set(f"key{i % 50}", i)
        pipeline.get(f"key{i % 50}")
    replies = pipeline.execute()
    assert replies[1::2] == [str(i).encode() for i in range(2000)]


def test_mget_and_del_of_many_keys(client):
    keys = [f"k{i}" for i in range(3000)]
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.set(key, key)
    pipeline.execute()
    assert client.mget(keys) == [key.encode() for key in keys]
    assert client.mget(keys[:100] + ["none"]) == [key.encode() for key in keys[:100]] + [None]
    assert client.exists(*keys, *keys) == 6000
    assert client.delete(*keys, *keys) == 3000
    assert client.mget(keys) == [None] * 3000


def test_a_bulk_delete_is_over_before_the_next_pipelined_set(client):
    keys = [f"k{i}" for i in range(2000)]
    client.mget(keys)
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.set(key, "old")
    pipeline.delete(*keys)
    pipeline.set(keys[-1], "new")
    pipeline.mget(keys)
    replies = pipeline.execute()
    assert replies[-3:-1] == [2000, True]
    assert replies[-1] == [None] * 1999 + [b"new"]


def test_binary_keys(client):
    keys = [b"\0", b"\r\n", bytes(range(256)), b"", b"\xff" * 1000, b"$1\r\na\r\n", b"k" * KEY_BYTES_MAX]
    for key in keys:
        client.set(key, key[::-1])
    assert client.mget(keys) == [key[::-1] for key in keys]


@pytest.mark.parametrize("size", [65536, MIB, VALUE_BYTES_MAX - 1, VALUE_BYTES_MAX])
def test_big_values(start_node, size):
    # A record lies in one segment, so the largest values need segments of their own size at least.
    node = start_node("--threads", "2", "--segment-size", "64M", "--memory", "1G")
    client = redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS)
    values = [random.Random(seed).randbytes(size) for seed in range(3)]
    for i, value in enumerate(values):
        assert client.set(f"big{i}", value)
    for i, value in enumerate(values):
        assert client.get(f"big{i}") == value
    assert client.mget("big0", "big1", "big2") == values
    assert client.delete("big0", "big1", "big2") == 3


def test_sizes_over_the_limits_are_refused_and_the_connection_goes_on(client):
    # An eighth of the memory, which these tests have little of.
    limit = int(client.config_get("proto-max-bulk-len")["proto-max-bulk-len"])
    assert limit <= 512 * MIB
    with pytest.raises(redis_py.ResponseError, match=f"value of {limit + 1} bytes is too large; the limit is {limit}"):
        client.set("a", b"x" * (limit + 1))
    assert client.set("a", b"x" * limit)
    assert len(client.get("a")) == limit
    for command in ["GET", "DEL", "MGET", "EXISTS"]:
        with pytest.raises(redis_py.ResponseError, match="key of 65536 bytes is too long; the limit is 65535"):
            client.execute_command(command, b"k" * (KEY_BYTES_MAX + 1))
    with pytest.raises(redis_py.ResponseError, match="key of 65536 bytes is too long; the limit is 65535"):
        client.set(b"k" * (KEY_BYTES_MAX + 1), "v")
    assert client.ping()


def test_durability_is_chosen_per_connection(node):
    with Wire(node.port) as wire, Wire(node.port) as other:
        assert wire.ask("KVS.DURABILITY") == b"+durable\r\n"
        assert wire.ask("KVS.DURABILITY", "relaxed") == b"+OK\r\n"
        assert wire.ask("KVS.DURABILITY") == b"+relaxed\r\n"
        assert other.ask("KVS.DURABILITY") == b"+durable\r\n"
        assert wire.ask("SET", "a", "1") == b"+OK\r\n"
        assert other.ask("GET", "a") == b"$1\r\n1\r\n"
        assert wire.ask("KVS.DURABILITY", "DURABLE") == b"+OK\r\n"
        assert wire.ask("KVS.DURABILITY", "x").startswith(b"-ERR unknown durability class")


def test_info_and_config(client):
    client.set("a", "1")
    client.get("a")
    client.get("none")
    info = client.info()
    assert info["loading"] == 0 and info["failed_shards"] == 0
    assert info["keyspace_hits"] == 1 and info["keyspace_misses"] == 1
    assert info["db0"]["keys"] == 1 and info["connected_clients"] == 1
    assert info["total_commands_processed"] >= 3 and info["used_memory"] > 0 and info["commits"] >= 1
    assert info["kvs_version"] and info["threads"] == 2 and len(info["run_id"]) == 40
    assert set(client.info("keyspace")) == {"db0"}
    assert "shard1" in client.info("shards")
    assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert set(client.config_get("max*")) == {"maxclients", "maxmemory", "maxmemory-clients", "maxmemory-policy"}
    with pytest.raises(redis_py.ResponseError, match="can't set immutable config"):
        client.config_set("save", "")


@pytest.mark.parametrize("engine", ["kvs", "memory"])
def test_keys_expire_by_themselves(start_node, engine):
    node = start_node("--threads", "2", "--engine", engine)
    with redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS) as client:
        with client.pipeline(transaction=False) as pipeline:
            for i in range(2000):
                pipeline.set(f"key:{i}", i, ex=3600 if i % 2 else None)
            pipeline.execute()
            assert client.info()["db0"] == {"keys": 2000, "expires": 1000, "avg_ttl": 0}
            assert 0 < client.pttl("key:1") <= 3600000 and client.ttl("key:2") == -1
            begin = time.monotonic()
            for i in range(1, 2000, 2):
                pipeline.set(f"key:{i}", i, px=1500)
            pipeline.execute()
        wait_for(lambda: client.dbsize() <= 1000, "the end of what expires")
        took_ms = (time.monotonic() - begin) * 1000
        info = client.info()
        assert info["db0"] == {"keys": 1000, "expires": 0, "avg_ttl": 0} and info["expired_keys"] == 1000
        assert took_ms >= 1500 and info["expiry_lag_ms"] <= took_ms - 1500
        assert client.get("key:1") is None and client.get("key:2") == b"2"


def test_what_has_expired_stays_so_over_a_restart(start_node, tmp_path):
    node = start_node("--threads", "2", data_dir=tmp_path / "data")
    with redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS) as client:
        client.set("older", "1")
        client.set("older", "2", px=300)
        begin = time.monotonic()
        client.set("later", "3", ex=3600)
        time.sleep(0.4)
        assert client.get("older") is None
    node.kill9()
    node = start_node("--threads", "1", data_dir=tmp_path / "data")
    with redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS) as client:
        assert client.get("older") is None and client.dbsize() == 1
        assert client.get("later") == b"3"
        assert 3600 - (time.monotonic() - begin) - 1 <= client.ttl("later") <= 3600


def test_quit_answers_and_closes(node):
    with Wire(node.port) as wire:
        wire.socket.sendall(encode("SET", "a", "1") + encode("QUIT") + encode("SET", "a", "2"))
        assert [wire.read(), wire.read(), wire.file.read()] == [b"+OK\r\n", b"+OK\r\n", b""]
    with Wire(node.port) as wire:
        assert wire.ask("GET", "a") == b"$1\r\n1\r\n"


def test_a_connection_that_vanishes_with_requests_under_way(start_node):
    node = start_node("--threads", "3")
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", node.port)) as connection:
            connection.sendall(b"".join(encode("SET", f"k{i}", i) + encode("DEL", f"k{i}", f"k{i + 1}") for i in range(200)))
    client = redis_py.Redis(port=node.port)
    assert client.ping()
    client.set("k", "v")
    assert client.get("k") == b"v" and node.alive()


def test_too_many_clients_are_told_so(start_node):
    node = start_node("--max-clients", "3", "--threads", "2")
    connections = [Wire(node.port) for _ in range(3)]
    assert [wire.ask("PING") for wire in connections] == [b"+PONG\r\n"] * 3
    with Wire(node.port) as wire:
        wire.send("PING")
        assert wire.read() == b"-ERR max number of clients reached\r\n"
        assert wire.file.read() == b""
    connections.pop().__exit__()

    def let_in():
        with Wire(node.port) as wire:
            return wire.ask("PING") == b"+PONG\r\n"

    wait_for(let_in, "a connection after another has ended")


@pytest.mark.parametrize("threads", [1, 3])
def test_data_larger_than_memory(start_node, threads):
    """Keys whose records have left the RAM: every command must wait for the disk, on this shard or another, and keep its order."""
    node = start_node("--memory", "64M", "--segment-size", "1M", "--threads", threads)
    client = redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS)
    rng = random.Random(7)
    model = {}
    for start in range(0, 20000, 500):
        pipeline = client.pipeline(transaction=False)
        for i in range(start, start + 500):
            model[b"k%d" % i] = rng.randbytes(5000)
            pipeline.set(b"k%d" % i, model[b"k%d" % i])
        assert all(pipeline.execute())

    keys = list(model)
    for _ in range(20):
        pipeline, expected = client.pipeline(transaction=False), []
        for key in rng.sample(keys, 100):
            action = rng.randrange(6)
            some = [key] + rng.sample(keys, rng.randrange(6))
            if action == 0:
                pipeline.set(key, key)
                model[key] = key
                expected.append(True)
            elif action == 1:
                pipeline.delete(*some)
                expected.append(sum(model.pop(one, None) is not None for one in some))
            elif action == 2:
                pipeline.exists(*some)
                expected.append(sum(one in model for one in some))
            elif action == 3:
                pipeline.mget(*some)
                expected.append([model.get(one) for one in some])
            else:
                pipeline.get(key)
                expected.append(model.get(key))
        assert pipeline.execute() == expected
    info = client.info()
    assert info["disk_reads"] > 100 and info["used_memory"] < 80 * MIB
    assert client.mget(keys[:300]) == [model.get(key) for key in keys[:300]]
