"""Users, passwords and connections, as redis-cli, redis-py and kvs-client see them."""

import os
import re
import socket
import stat
import subprocess
import time

import pytest
from conftest import PATIENCE_SECONDS, wait_for

redis_py = pytest.importorskip("redis")


def connect(node, **options):
    return redis_py.Redis(port=node.port, socket_timeout=PATIENCE_SECONDS, **options)


def redis_cli(node, *words, environment=None):
    """Standard output of redis-cli; the password may be in REDISCLI_AUTH."""
    command = ["redis-cli", "-p", str(node.port), *words]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, env={**os.environ, **(environment or {})}
    )
    return result.stdout.strip()


def test_a_password_is_asked_for(start_node, run_client):
    node = start_node("--requirepass", "open sesame")
    assert redis_cli(node, "PING") == "NOAUTH Authentication required."
    assert redis_cli(node, "PING", environment={"REDISCLI_AUTH": "open sesame"}) == "PONG"
    with pytest.raises(redis_py.exceptions.RedisError):
        connect(node).ping()
    with pytest.raises(redis_py.exceptions.RedisError):
        connect(node, password="wrong").ping()
    assert connect(node, password="open sesame").ping()
    assert connect(node, username="default", password="open sesame").ping()

    refused = run_client("ping", node=node)
    assert refused.returncode == 1 and b"authentication required" in refused.stderr
    refused = run_client("--password", "wrong", "ping", node=node)
    assert refused.returncode == 1 and b"invalid username-password pair" in refused.stderr
    assert run_client("--password", "open sesame", "ping", node=node).stdout == b"PONG\n"
    assert run_client("--user", "default", "--password", "open sesame", "set", "k", "v", node=node).returncode == 0
    environment = {**os.environ, "KVS_PASSWORD": "open sesame"}
    assert run_client("get", "k", node=node, env=environment).stdout == b"v\n"
    assert run_client("--user", "x", "ping", node=node).returncode == 2


def test_the_password_is_not_in_the_list_of_processes(start_node):
    node = start_node("--requirepass", "open-sesame")
    with open(f"/proc/{node.process.pid}/cmdline", "rb") as file:
        words = file.read()
    assert b"--requirepass" in words and b"open-sesame" not in words
    assert "open-sesame" not in node.log_text()


def test_two_users_with_different_rights(node):
    root = connect(node)
    root.set("news:1", "hello")
    root.set("secret:1", "x")
    root.execute_command("ACL", "SETUSER", "reader", "on", ">r", "~news:*", "+@read", "+@connection", "-@dangerous", "+acl|whoami")
    root.execute_command("ACL", "SETUSER", "writer", "on", ">w", "~news:*", "%R~secret:*", "+@all", "-@admin")
    reader = connect(node, username="reader", password="r")
    writer = connect(node, username="writer", password="w")
    denied = redis_py.exceptions.NoPermissionError
    assert reader.get("news:1") == b"hello"
    with pytest.raises(denied, match="No permissions to access a key"):
        reader.get("secret:1")
    with pytest.raises(denied, match="User reader has no permissions to run the 'set' command"):
        reader.set("news:1", "bye")
    assert writer.set("news:1", "bye")
    assert writer.get("secret:1") == b"x"
    with pytest.raises(denied, match="No permissions to access a key"):
        writer.set("secret:1", "y")
    with pytest.raises(denied, match="acl|setuser"):
        writer.execute_command("ACL", "SETUSER", "writer", "+@admin")
    assert root.acl_whoami() == "default"
    assert reader.acl_whoami() == "reader"
    reasons = [(entry["reason"], entry["object"], entry["username"]) for entry in root.acl_log()]
    assert ("command", "acl|setuser", "writer") in reasons
    assert ("key", "secret:1", "reader") in reasons
    assert root.execute_command("ACL", "DRYRUN", "reader", "SET", "news:1", "x") == (
        b"User reader has no permissions to run the 'set' command"
    )
    # Rights that are taken away are gone from the next command on, on a connection that is there already.
    root.execute_command("ACL", "SETUSER", "reader", "-get")
    with pytest.raises(denied):
        reader.get("news:1")


def test_users_survive_a_restart_in_their_file(start_node, tmp_path):
    path = tmp_path / "users.acl"
    path.write_text("# people\nuser default on >root ~* &* +@all\nuser bob on >bobs ~b* +get +set\n")
    path.chmod(0o644)
    node = start_node("--aclfile", path, data_dir=tmp_path / "data")
    assert any("holds passwords" in line for line in node.log)
    root = connect(node, password="root")
    root.execute_command("ACL", "SETUSER", "amy", "on", ">amys", "~a*", "+@all", "-@dangerous")
    assert root.execute_command("ACL", "SAVE") in (True, b"OK")
    rules = root.execute_command("ACL", "LIST")
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not re.search(r"root[^ ]*>|bobs|amys|>", text)
    assert [line.encode() for line in text.splitlines()] == rules
    assert os.listdir(tmp_path).count("users.acl.tmp") == 0
    node.kill9()

    again = start_node("--aclfile", path, data_dir=tmp_path / "data")
    assert connect(again, password="root").execute_command("ACL", "LIST") == rules
    assert connect(again, username="bob", password="bobs").set("b", "1")
    amy = connect(again, username="amy", password="amys")
    with pytest.raises(redis_py.exceptions.NoPermissionError):
        amy.get("b")
    with pytest.raises(redis_py.exceptions.RedisError):
        connect(again, username="amy", password="bobs").ping()

    # Whoever changes the file by hand has it read; who is not in it any more is gone at once.
    path.write_text("".join(line for line in path.read_text().splitlines(True) if " amy " not in line))
    assert amy.execute_command("PING")
    assert connect(again, password="root").execute_command("ACL", "LOAD")
    amy.connection_pool.connection_kwargs["retry_on_error"] = []
    with pytest.raises((redis_py.exceptions.ConnectionError, redis_py.exceptions.RedisError)):
        amy.get("a")
    path.write_text("user default on nopass +@all\nuser x +nosuch\n")
    with pytest.raises(redis_py.exceptions.ResponseError, match="line 2, at .\\+nosuch.: Unknown command"):
        connect(again, password="root").execute_command("ACL", "LOAD")


@pytest.mark.parametrize(
    "text, words",
    [
        ("user default on nopass ~* +@all\nuser bob on +nosuch\n", ["line 2", "+nosuch", "Unknown command", "mend that line"]),
        ("nonsense\n", ["line 1", "nonsense", "begins with the word user"]),
        (None, ["no such file", "make an empty one"]),
    ],
)
def test_a_file_that_is_wrong_is_refused_at_the_start(start_node, tmp_path, text, words):
    path = tmp_path / "users.acl"
    if text is not None:
        path.write_text(text)
    node = start_node("--aclfile", path, wait=False)
    assert node.wait() == 1
    for word in [str(path), *words]:
        assert word.lower() in node.log_text().lower()


def test_protected_mode_looks_at_the_users(start_node, tmp_path):
    path = tmp_path / "users.acl"
    path.write_text("")
    node = start_node("--aclfile", path, address="0.0.0.0:0", wait=False)
    assert node.wait() == 1 and "protected mode" in node.log_text() and str(path) in node.log_text()
    path.write_text("user default on >x ~* &* +@all\n")
    node = start_node("--aclfile", path, address="0.0.0.0:0", wait=False)
    wait_for(lambda: "listening on 0.0.0.0" in node.log_text(), "the node's address")
    node.stop()
    node = start_node("--requirepass", "x", address="0.0.0.0:0", wait=False)
    wait_for(lambda: "listening on 0.0.0.0" in node.log_text(), "the node's address")
    node.stop()
    both = start_node("--requirepass", "x", "--aclfile", path, wait=False)
    assert both.wait() == 2 and "cannot be combined" in both.log_text()


def test_list_and_kill_from_another_connection(start_node):
    node = start_node("--threads", "4")
    root = connect(node)
    others = [connect(node, client_name=f"other{i}") for i in range(12)]
    for other in others:
        assert other.ping()
    shown = root.client_list()
    by_name = {client["name"]: client for client in shown}
    assert [int(client["id"]) for client in shown] == sorted(int(client["id"]) for client in shown)
    assert len(shown) == 13 and set(by_name) == {""} | {f"other{i}" for i in range(12)}
    for name in ("addr", "laddr", "fd", "age", "idle", "flags", "qbuf", "argv-mem", "obl", "oll", "omem", "tot-mem"):
        assert all(name in client for client in shown)
    assert by_name["other3"]["cmd"] == "ping" and by_name["other3"]["user"] == "default"
    assert by_name[""]["cmd"] == "client|list" and by_name[""]["laddr"] == f"127.0.0.1:{node.port}"
    with socket.create_connection(("127.0.0.1", node.port)) as plain:
        addr = "%s:%d" % plain.getsockname()
        wait_for(lambda: any(client["addr"] == addr for client in root.client_list()), "the plain connection in the list")
        assert root.client_kill(addr)
        assert plain.recv(1) == b""
    assert root.client_kill_filter(_id=by_name["other3"]["id"]) == 1
    assert len(root.client_list()) == 12
    assert others[3].ping()  # redis-py connects anew
    with pytest.raises(redis_py.exceptions.ResponseError, match="No such client"):
        root.client_kill("1.2.3.4:5")
    assert redis_cli(node, "CLIENT", "KILL", "TYPE", "normal") == "13"
    assert redis_cli(node, "CLIENT", "LIST").count("id=") == 1


def test_pause_holds_writes_of_others(node):
    root, other = connect(node), connect(node)
    assert other.set("k", "1")
    root.execute_command("CLIENT", "PAUSE", "700", "WRITE")
    begin = time.monotonic()
    assert other.get("k") == b"1"
    assert time.monotonic() - begin < 0.6
    assert other.set("k", "2")
    assert time.monotonic() - begin > 0.5


def test_idle_connections_and_settings(start_node):
    node = start_node("--timeout", "1", "--tcp-keepalive", "100")
    parameters = connect(node).config_get("t*")
    assert parameters["timeout"] == "1" and parameters["tcp-keepalive"] == "100"
    with socket.create_connection(("127.0.0.1", node.port), timeout=PATIENCE_SECONDS) as idle:
        begin = time.monotonic()
        assert idle.recv(1) == b""
        assert time.monotonic() - begin > 0.9


def test_wrong_passwords_do_not_keep_others_waiting(start_node):
    """Twenty connections guess as fast as they can; requests of another one still take milliseconds."""
    node = start_node("--requirepass", "right", "--threads", "1")
    user = connect(node, password="right")
    user.set("k", "v")
    guessing = []
    for _ in range(20):
        guess = socket.create_connection(("127.0.0.1", node.port))
        guess.sendall(b"*2\r\n$4\r\nAUTH\r\n$5\r\nwrong\r\n" * 50)
        guessing.append(guess)
    worst = 0.0
    for _ in range(300):
        begin = time.monotonic()
        assert user.get("k") == b"v"
        worst = max(worst, time.monotonic() - begin)
    for guess in guessing:
        guess.close()
    assert connect(node, password="right").ping()
    assert worst < 1.0, f"{worst * 1000:.1f} ms"


def ask(port, *words):
    """Everything a server says to one command, and to QUIT behind it."""
    request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(request + b"*1\r\n$4\r\nQUIT\r\n")
        reply = b""
        while more := connection.recv(1 << 16):
            reply += more
    return reply


SAID_ALIKE = [
    ["AUTH", "x"], ["AUTH", "a", "b"], ["AUTH", "default", "x"], ["AUTH", "a", "b", "c"], ["RESET"], ["RESET", "x"],
    ["HELLO", "4"], ["HELLO", "x"], ["HELLO", "3", "AUTH", "a", "b"], ["HELLO", "3", "AUTH", "a"], ["HELLO", "3", "SETNAME", "a b"],
    ["ACL"], ["ACL", "NOPE"], ["ACL", "WHOAMI"], ["ACL", "USERS"], ["ACL", "CAT"], ["ACL", "CAT", "nope"], ["ACL", "GENPASS", "0"],
    ["ACL", "GENPASS", "x"], ["ACL", "GENPASS", "5000"], ["ACL", "DELUSER", "default"], ["ACL", "DELUSER", "a", "b"],
    ["ACL", "LOG", "x"], ["ACL", "LOG", "RESET"], ["ACL", "DRYRUN", "nobody", "get", "a"], ["ACL", "DRYRUN", "default", "nocmd"],
    ["ACL", "DRYRUN", "default", "get"], ["ACL", "DRYRUN", "default", "get", "a"], ["ACL", "SAVE"], ["ACL", "LOAD"],
    ["ACL", "GETUSER", "nobody"], ["ACL", "SETUSER", "b b"], ["ACL", "SETUSER", "u", "foo"], ["ACL", "SETUSER", "u", "#abc"],
    ["ACL", "SETUSER", "u", "+nocmd"], ["ACL", "SETUSER", "u", "+@nocat"], ["ACL", "SETUSER", "u", "%X~a"],
    ["ACL", "SETUSER", "u", "allkeys", "~foo"], ["ACL", "SETUSER", "u", "+config|get|x"], ["ACL", "SETUSER", "u", "-get|x"],
    ["CLIENT", "NOPE"], ["CLIENT", "ID", "x"], ["CLIENT", "LIST", "TYPE", "foo"], ["CLIENT", "LIST", "TYPE", "pubsub"],
    ["CLIENT", "LIST", "ID", "x"], ["CLIENT", "LIST", "ID"], ["CLIENT", "LIST", "foo", "bar"], ["CLIENT", "LIST", "ID", "99999"],
    ["CLIENT", "KILL", "1.2.3.4:5"], ["CLIENT", "KILL", "ID", "9999"], ["CLIENT", "KILL", "ID", "x"], ["CLIENT", "KILL", "ID", "0"],
    ["CLIENT", "KILL", "foo", "bar"], ["CLIENT", "KILL", "TYPE", "x"], ["CLIENT", "KILL", "USER", "nobody"],
    ["CLIENT", "KILL", "SKIPME", "maybe"], ["CLIENT", "KILL", "ID", "1", "foo"], ["CLIENT", "KILL", "ADDR", "1:2", "LADDR", "3:4"],
    ["CLIENT", "REPLY", "foo"], ["CLIENT", "NO-EVICT", "maybe"], ["CLIENT", "NO-EVICT", "on"], ["CLIENT", "PAUSE", "x"],
    ["CLIENT", "PAUSE", "-1"], ["CLIENT", "PAUSE", "1", "foo"], ["CLIENT", "UNPAUSE"], ["CLIENT", "UNBLOCK", "x"],
    ["CLIENT", "UNBLOCK", "1"], ["CLIENT", "UNBLOCK", "1", "foo"], ["CLIENT", "TRACKING", "foo"], ["CLIENT", "TRACKING", "off"],
    ["CLIENT", "TRACKINGINFO"], ["CLIENT", "GETREDIR"], ["CLIENT", "CACHING", "yes"],
]


def test_as_a_real_redis_says_it(node, redis):
    """The same words to both, byte for byte."""
    differences = []
    for words in SAID_ALIKE:
        ours, theirs = ask(node.port, *words), ask(redis.port, *words)
        if ours != theirs:
            differences.append((words, ours, theirs))
    assert differences == []
