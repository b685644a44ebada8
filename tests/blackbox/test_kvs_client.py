"""kvs-client: every documented line of its behaviour, against a real kvs-node."""

import os
import socket
import subprocess
import time

import pytest

from conftest import PATIENCE_SECONDS, binary, free_port


def expect(result, code=0, stdout=b"", stderr=b""):
    """stderr=None: something must be there."""
    assert result.returncode == code, result
    assert result.stdout == stdout, result
    if stderr is None:
        assert result.stderr, result
    else:
        assert result.stderr == stderr, result


# ---- the three commands ----------------------------------------------------------------------------------------------


def test_set_prints_nothing_and_get_prints_the_value(node, run_client):
    expect(run_client("set", "colour", "blue", node=node))
    expect(run_client("get", "colour", node=node), stdout=b"blue\n")
    expect(run_client("set", "colour", "red", node=node))
    expect(run_client("get", "colour", node=node), stdout=b"red\n")


def test_get_of_a_missing_key_says_so_on_stdout_and_exits_0(node, run_client):
    expect(run_client("get", "nobody", node=node), stdout=b"Key not found\n")


def test_rm_prints_nothing_and_the_key_is_gone(node, run_client):
    expect(run_client("set", "k", "v", node=node))
    expect(run_client("rm", "k", node=node))
    expect(run_client("get", "k", node=node), stdout=b"Key not found\n")


def test_rm_of_a_missing_key_says_so_on_stderr_and_exits_1(node, run_client):
    expect(run_client("rm", "nobody", node=node), code=1, stderr=b"Key not found\n")


def test_options_stand_before_or_after_the_command(node, run_client):
    expect(run_client("set", "k", "v", "--addr", node.address))
    expect(run_client("get", "--addr", node.address, "k"), stdout=b"v\n")
    expect(run_client("--addr=" + node.address, "get", "k"), stdout=b"v\n")
    expect(run_client("get", "k", "--addr=" + node.address, "--timeout", "50"), stdout=b"v\n")


def test_keys_and_values_are_byte_exact(node, run_client):
    nasty = ["two\nlines\n", " blanks ", "\r\n$5\r\n", "ünïcödé", "*", "%s%n", "\x01\x7f", "x" * 60000]
    for text in nasty:
        expect(run_client("set", text, text, node=node))
    for text in nasty:
        expect(run_client("get", text, node=node), stdout=text.encode() + b"\n")
    raw = b"\xff\xfe\x80not utf-8"
    expect(run_client("set", raw, raw, node=node))
    expect(run_client("get", raw, node=node), stdout=raw + b"\n")


def test_empty_value(node, run_client):
    expect(run_client("set", "k", "", node=node))
    expect(run_client("get", "k", node=node), stdout=b"\n")


def test_words_that_look_like_options_go_behind_two_dashes(node, run_client):
    expect(run_client("set", "--", "-k", "-5", node=node))
    expect(run_client("get", "--", "-k", node=node), stdout=b"-5\n")
    expect(run_client("set", "k", "-", node=node))
    expect(run_client("get", "k", node=node), stdout=b"-\n")


def test_value_from_standard_input(node, run_client):
    value = bytes(range(256)) * 4096  # 1 MiB, zeros included
    expect(run_client("set", "k", "--stdin", node=node, stdin=value))
    expect(run_client("get", "k", node=node), stdout=value + b"\n")


def test_relaxed_writes_are_seen(node, run_client):
    expect(run_client("set", "k", "v", "--relaxed", node=node))
    expect(run_client("get", "k", node=node), stdout=b"v\n")
    expect(run_client("rm", "k", "--relaxed", node=node))
    expect(run_client("get", "k", node=node), stdout=b"Key not found\n")


def test_values_survive_a_restart(start_node, run_client):
    first = start_node()
    expect(run_client("set", "k", "kept", node=first))
    expect(run_client("set", "gone", "v", node=first))
    expect(run_client("rm", "gone", node=first))
    first.stop()
    second = start_node(data_dir=first.data_dir)
    expect(run_client("get", "k", node=second), stdout=b"kept\n")
    expect(run_client("get", "gone", node=second), stdout=b"Key not found\n")
    second.kill9()
    third = start_node(data_dir=first.data_dir)
    expect(run_client("get", "k", node=third), stdout=b"kept\n")


def test_unix_socket(start_node, run_client, tmp_path):
    path = str(tmp_path / "kvs.sock")
    start_node("--unix", path)
    expect(run_client("--unix", path, "set", "k", "v"))
    expect(run_client("get", "k", "--unix", path), stdout=b"v\n")


def test_ping_and_stats(node, run_client):
    expect(run_client("ping", node=node), stdout=b"PONG\n")
    everything = run_client("stats", node=node)
    assert everything.returncode == 0 and everything.stderr == b""
    assert b"# Server" in everything.stdout and everything.stdout.endswith(b"\n")
    section = run_client("stats", "server", node=node)
    assert section.returncode == 0
    assert section.stdout.startswith(b"# Server") and len(section.stdout) < len(everything.stdout)


# ---- help and version ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(run_client, flag):
    result = run_client(flag)
    assert result.returncode == 0 and result.stderr == b""
    name, version = result.stdout.decode().split()
    assert name == "kvs-client" and version[0].isdigit()


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(run_client, flag):
    result = run_client(flag)
    assert result.returncode == 0 and result.stderr == b""
    text = result.stdout.decode()
    for word in ["get KEY", "set KEY VALUE", "rm KEY", "ping", "stats", "--addr", "--unix", "127.0.0.1:4000"]:
        assert word in text
    for command in ["get", "set", "rm", "ping", "stats"]:
        for words in ([command, flag], [flag, command]):
            result = run_client(*words)
            assert result.returncode == 0 and result.stderr == b""
            assert f"Usage: kvs-client [OPTIONS] {command}" in result.stdout.decode()


# ---- a command line that makes no sense ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, named",
    [
        ([], "no command"),
        (["frobnicate"], "frobnicate"),
        (["get"], "too few"),
        (["get", "a", "b"], "too many"),
        (["set", "a"], "too few"),
        (["set", "a", "b", "c"], "too many"),
        (["set", "a", "b", "--stdin"], "too many"),
        (["rm"], "too few"),
        (["rm", "a", "b"], "too many"),
        (["ping", "x"], "too many"),
        (["stats", "a", "b"], "too many"),
        (["get", "a", "--stdin"], "--stdin"),
        (["get", "a", "--unknown"], "--unknown"),
        (["get", "-x", "a"], "x"),
        (["get", "a", "--addr"], "addr"),
        (["get", "a", "--addr", "localhost"], "localhost"),
        (["get", "a", "--addr", "127.0.0.1"], "127.0.0.1"),
        (["get", "a", "--addr", "127.0.0.1:99999"], "127.0.0.1:99999"),
        (["get", "a", "--addr", "127.0.0.1:0"], "127.0.0.1:0"),
        (["get", "a", "--addr", ""], "address"),
        (["get", "a", "--addr", "127.0.0.1:4000", "--unix", "/s"], "exclude"),
        (["get", "a", "--timeout", "soon"], "soon"),
        (["get", "a", "--timeout", "0"], "--timeout"),
    ],
)
def test_usage_errors_name_what_is_wrong_and_exit_2(run_client, words, named):
    result = run_client(*words)
    assert result.returncode == 2
    assert result.stdout == b""
    assert named in result.stderr.decode()


# ---- no server, no disk, no output -----------------------------------------------------------------------------------


def test_no_server(run_client, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    for words in (["get", "k"], ["set", "k", "v"], ["rm", "k"], ["ping"], ["stats"]):
        result = run_client("--addr", address, *words)
        assert result.returncode == 1 and result.stdout == b""
        assert address in result.stderr.decode() and "refused" in result.stderr.decode()
    missing = str(tmp_path / "no.sock")
    result = run_client("--unix", missing, "get", "k")
    assert result.returncode == 1 and missing in result.stderr.decode()
    result = run_client("--unix", "/" + "x" * 200, "get", "k")
    assert result.returncode in (1, 2) and "107" in result.stderr.decode()


def test_silent_server_times_out(run_client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        begin = time.monotonic()
        result = run_client("--addr", address, "--timeout", "1", "get", "k")
        assert time.monotonic() - begin >= 1
    assert result.returncode == 1 and result.stdout == b""
    assert address in result.stderr.decode() and "1000 ms" in result.stderr.decode()


def test_server_of_another_kind(redis, run_client):
    result = run_client("--addr", redis.address, "--timeout", "1", "get", "k")
    assert result.returncode == 1 and result.stdout == b"" and redis.address in result.stderr.decode()


def test_output_that_cannot_be_written_is_an_error(node, run_client):
    expect(run_client("set", "k", "v", node=node))
    expect(run_client("set", "big", "v" * 100000, node=node))
    for key in ("k", "big", "missing"):
        with open("/dev/full", "wb") as full:
            result = run_client("get", key, node=node, stdout=full)
        assert result.returncode == 1 and b"standard output" in result.stderr
        closed = subprocess.run(
            ["sh", "-c", '"$0" --addr "$1" get "$2" >&-', binary("kvs-client"), node.address, key],
            stderr=subprocess.PIPE,
            timeout=PATIENCE_SECONDS,
        )
        assert closed.returncode == 1 and b"standard output" in closed.stderr
    # A command that prints nothing needs no output.
    silent = subprocess.run(
        ["sh", "-c", '"$0" --addr "$1" set k2 v2 >&- <&-', binary("kvs-client"), node.address],
        stderr=subprocess.PIPE,
        timeout=PATIENCE_SECONDS,
    )
    assert silent.returncode == 0 and silent.stderr == b""
    expect(run_client("get", "k2", node=node), stdout=b"v2\n")


def test_help_that_cannot_be_written_is_an_error(run_client):
    with open("/dev/full", "wb") as full:
        assert run_client("--help", stdout=full).returncode == 1


def test_output_into_a_closed_pipe_is_an_error(node, run_client):
    expect(run_client("set", "k", "v", node=node))
    reading, writing = os.pipe()
    os.close(reading)
    result = run_client("get", "k", node=node, stdout=writing)
    os.close(writing)
    assert result.returncode == 1 and b"standard output" in result.stderr


def test_too_large_is_refused_and_named(node, run_client):
    result = run_client("set", "k", "--stdin", node=node, stdin=b"x" * (32 * 1024 * 1024 + 1))
    assert result.returncode == 1 and b"too large" in result.stderr
    expect(run_client("get", "k", node=node), stdout=b"Key not found\n")
    result = run_client("set", "x" * 65536, "v", node=node)
    assert result.returncode == 1 and b"too large" in result.stderr
