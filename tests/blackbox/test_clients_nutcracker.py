"""Two nodes behind nutcracker (twemproxy), which spreads keys over them by consistent hashing and splits commands of many
keys: what its users have who outgrow one server."""

import random
import shutil
import subprocess

import pytest
from client_session import PASSWORD, Host, held_port
from conftest import PATIENCE_SECONDS, free_port, wait_for

redis_py = pytest.importorskip("redis")

POOL = """
pool:
  listen: 127.0.0.1:%d
  redis: true
  hash: fnv1a_64
  hash_tag: "{}"
  distribution: ketama
  timeout: %d
  auto_eject_hosts: false
  server_connections: 2
  redis_auth: %s
  servers:
    - 127.0.0.1:%d:1 one
    - 127.0.0.1:%d:1 two
"""


class Proxied:
    """nodes (two Hosts) and client (of redis-py, to the proxy)."""

    def __init__(self, nodes, port):
        self.nodes = nodes
        self.client = redis_py.Redis(port=port, password=PASSWORD, socket_timeout=PATIENCE_SECONDS)

    def direct(self, number):
        return redis_py.Redis(port=self.nodes[number].port, password=PASSWORD, socket_timeout=PATIENCE_SECONDS)


@pytest.fixture
def proxied(start_node, tmp_path):
    if shutil.which("nutcracker") is None:
        pytest.skip("nutcracker is not installed: scripts/install-dependencies.sh test")
    with held_port() as one, held_port() as two:
        flags = ("--threads", 2, "--requirepass", PASSWORD)
        nodes = [Host(start_node, tmp_path / name, port, *flags) for name, port in (("one", one), ("two", two))]
        port, stats = free_port(), free_port()
        pool = tmp_path / "pool.yml"
        pool.write_text(POOL % (port, PATIENCE_SECONDS * 1000, PASSWORD, one, two))
        command = ["nutcracker", "-c", pool, "-o", tmp_path / "nutcracker.log", "-a", "127.0.0.1", "-s", stats]
        proxy = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found = Proxied(nodes, port)
            wait_for(lambda: answers(found.client), lambda: (tmp_path / "nutcracker.log").read_text())
            yield found
            found.client.close()
        finally:
            proxy.kill()
            proxy.wait(PATIENCE_SECONDS)


def answers(client):
    try:
        return client.ping()
    except redis_py.ConnectionError:
        return False


def test_keys_are_spread_and_commands_of_many_keys_split(proxied):
    client = proxied.client
    pairs = {b"key:%d" % i: random.Random(i).randbytes(i % 3000) for i in range(1000)}
    pipeline = client.pipeline(transaction=False)
    for key, value in pairs.items():
        pipeline.set(key, value)
    assert all(pipeline.execute())
    counts = [proxied.direct(i).dbsize() for i in range(2)]
    assert sum(counts) == 1000 and min(counts) > 200
    assert client.mget([*pairs, "none"]) == [*pairs.values(), None]
    assert client.mset({key: value for key, value in list(pairs.items())[:50]})
    assert client.exists("key:1") == 1 and client.delete(*list(pairs)[:300], "none") == 300
    assert client.unlink(*list(pairs)[300:400]) == 100
    assert client.mget(list(pairs)) == [None] * 400 + list(pairs.values())[400:]
    assert [proxied.direct(i).dbsize() for i in range(2)] != counts
    for i in range(50):
        client.set("{tag}%d" % i, i)
    there = [sum(proxied.direct(i).exists("{tag}%d" % j) for j in range(50)) for i in range(2)]
    assert sorted(there) == [0, 50]


def test_what_else_users_of_the_proxy_use(proxied):
    client = proxied.client
    assert client.set("text", b"\r\n$3\r\n\0", ex=1000) and client.get("text") == b"\r\n$3\r\n\0"
    assert 900 < client.ttl("text") <= 1000 and client.persist("text") and client.ttl("text") == -1
    assert client.set("large", b"x" * (4 << 20)) and client.get("large") == b"x" * (4 << 20)
    assert client.incrby("n", 41) == 41 and client.incr("n") == 42 and client.incrbyfloat("n", 0.5) == 42.5
    assert client.append("log", "one") == 3 and client.getrange("log", 0, 1) == b"on" and client.strlen("log") == 3
    assert client.setbit("bits", 100, 1) == 0 and client.getbit("bits", 100) == 1 and client.bitcount("bits") == 1
    assert client.getset("text", "new") == b"\r\n$3\r\n\0" and client.setnx("text", "x") is False
    assert client.type("text") == b"string"
    with pytest.raises(redis_py.ResponseError, match="value is not an integer or out of range"):
        client.incr("text")
    replies = client.pipeline(transaction=False).get("text").incr("log").get("none").execute(raise_on_error=False)
    assert replies[0] == b"new" and isinstance(replies[1], redis_py.ResponseError) and replies[2] is None


def test_a_node_that_crashes_comes_back_with_its_data(proxied):
    client = proxied.client
    keys = [b"key:%d" % i for i in range(200)]
    for key in keys:
        assert client.set(key, key)
    proxied.nodes[0].crash()

    # The proxy learns of it from the connections that have ended; until then it answers with errors of its own.
    def whole():
        try:
            return client.mget(keys) == keys
        except redis_py.RedisError:
            return False

    wait_for(whole, "all keys, through the proxy")
    assert client.delete(*keys) == 200
