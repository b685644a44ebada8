"""redis-py as services use it: a pool of connections, threads, trying again. What single commands say to it is in
test_redis.py and test_access.py."""

import threading
import time

import pytest
from client_session import PASSWORD, host  # noqa: F401 (a fixture)
from conftest import PATIENCE_SECONDS, wait_for

redis_py = pytest.importorskip("redis")


@pytest.fixture
def connect(host):  # noqa: F811
    opened = []

    def one(**options):
        opened.append(redis_py.Redis(port=host.port, **{"password": PASSWORD, "socket_timeout": PATIENCE_SECONDS, **options}))
        return opened[-1]

    yield one
    for each in opened:
        each.close()


def test_names_and_health(connect):
    client = connect(client_name="worker", health_check_interval=1, socket_keepalive=True, decode_responses=True)
    assert client.client_getname() == "worker"
    assert any(one["name"] == "worker" for one in client.client_list())
    assert client.set("text", "grüße", keepttl=True) and client.get("text") == "grüße"
    assert client.getex("text", ex=1000) == "grüße" and client.ttl("text") > 900
    with pytest.raises(redis_py.ResponseError, match="value is not an integer or out of range"):
        client.incr("text")
    with pytest.raises(redis_py.ResponseError, match="WRONGPASS"):
        connect(password="wrong").ping()
    with pytest.raises(redis_py.AuthenticationError):
        connect(password=None).ping()


def test_transactions(connect):
    client, other = connect(decode_responses=True), connect()
    assert client.mset({"a": "1", "b": "2"}) and not client.msetnx({"b": "3", "c": "4"})
    with client.pipeline(transaction=True) as pipeline:
        assert pipeline.incr("a").get("b").delete("b").get("b").execute() == [2, "2", 1, None]
    with client.pipeline() as pipeline:
        pipeline.watch("a")
        other.set("a", "7")
        pipeline.multi()
        pipeline.incr("a")
        with pytest.raises(redis_py.WatchError):
            pipeline.execute()

    def add(pipeline):
        number = int(pipeline.get("a"))
        pipeline.multi()
        pipeline.set("a", number + 1)

    assert client.transaction(add, "a") == [True]
    assert client.rename("a", "d") and client.copy("d", "a") and client.mget("a", "d") == ["8", "8"]


def test_scans(connect):
    client = connect(decode_responses=True)
    names = {f"key:{i}" for i in range(500)}
    client.mset({name: "x" for name in names})
    assert set(client.scan_iter(count=7)) == names
    assert set(client.scan_iter(match="key:1?", count=100)) == set(client.keys("key:1?")) == {f"key:1{i}" for i in range(10)}
    assert client.randomkey() in names


def test_a_killed_connection_is_replaced(connect):
    client, other = connect(single_connection_client=True), connect()
    number = client.client_id()
    assert other.client_kill_filter(_id=number) == 1
    with pytest.raises(redis_py.ConnectionError):
        client.set("a", "1")
    assert client.set("a", "1") and client.client_id() != number


def test_threads_of_a_pool_count_on_over_a_crash(connect, host):  # noqa: F811
    """Every INCR that was acknowledged counts; one that was not may have, and is sent again."""
    client, counts, go_on, lost = connect(), [0] * 8, threading.Event(), []
    failed = []

    def work(number):
        again = True
        while again:
            try:
                value = client.incr(f"count:{number}")
            except redis_py.ConnectionError as error:
                lost.append(error)
                time.sleep(0.02)
                continue
            assert value > counts[number]
            counts[number] = value
            again = value < 50 or not go_on.is_set()  # never after an error: it may have counted

    def run(number):
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 (told by the thread that waits for it)
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: min(counts) > 5 or failed, "some counting")
    host.crash()
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert failed == [] and lost != []
    assert [int(client.get(f"count:{number}")) for number in range(8)] == counts
