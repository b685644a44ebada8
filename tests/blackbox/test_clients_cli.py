"""redis-cli and redis-benchmark as their users use them, with both versions of the protocol."""

import json
import os
import re
import shutil
import subprocess

import pytest
from client_session import PASSWORD, host  # noqa: F401 (a fixture)
from conftest import PATIENCE_SECONDS, SLOW
from wire import encode

pytestmark = pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")


class Cli:
    """cli(word, …, stdin=…) -> what redis-cli prints."""

    def __init__(self, host, protocol):
        self.command = ["redis-cli", f"-{protocol}", "-p", str(host.port)]

    def __call__(self, *words, stdin=None, password=PASSWORD):
        environment = {**os.environ, "REDISCLI_AUTH": password}
        stdin = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run([*self.command, *words], input=stdin, capture_output=True, env=environment, timeout=PATIENCE_SECONDS)
        return done.stdout


@pytest.fixture(params=[2, 3])
def cli(host, request):  # noqa: F811
    return Cli(host, request.param)


def test_words_and_standard_input(cli):
    assert cli("SET", "text", "hello world") == b"OK\n"
    assert cli("GET", "text") == b"hello world\n"
    assert cli("--no-raw", "GET", "none") == b"(nil)\n"
    assert cli("--no-raw", "INCR", "n") == b"(integer) 1\n"
    assert cli("--no-raw", "MGET", "text", "none") == b'1) "hello world"\n2) (nil)\n'
    assert cli("--csv", "MGET", "text", "n") == b'"hello world","1"\n'
    assert cli("--no-raw", "INCR", "text") == b"(error) ERR value is not an integer or out of range\n"
    assert cli("nosuch") == b"ERR unknown command 'nosuch', with args beginning with: \n\n"
    assert cli("-e", "nosuch") == b""
    binary = bytes(range(256)) + b"\r\n$3\r\n"
    assert cli("-x", "SET", "binary", stdin=binary) == b"OK\n"
    assert cli("GET", "binary") == binary + b"\n"
    assert cli("-x", "SET", "large", stdin=b"x" * (4 << 20)) == b"OK\n"
    assert cli("STRLEN", "large") == b"%d\n" % (4 << 20)
    assert cli("-r", "5", "INCR", "counter") == b"1\n2\n3\n4\n5\n"
    assert cli(stdin='SET "a b" "\\x00\\x01"\nSTRLEN "a b"\nEXPIRE "a b" 1000\nCLIENT SETNAME me\nCLIENT GETNAME\n') == b"OK\n2\n1\nOK\nme\n"
    assert b"redis_version:" in cli("INFO", "server")
    assert b"Get the value of a key" in cli("COMMAND", "DOCS", "GET")
    assert cli("GET", "text", password="wrong").strip() == b"NOAUTH Authentication required."


def test_json_and_the_types_of_the_protocol(cli):
    assert cli("CONFIG", "GET", "maxclients").split() == [b"maxclients", b"10000"]
    if "-3" in cli.command:
        assert json.loads(cli("--json", "CONFIG", "GET", "maxclients")) == {"maxclients": "10000"}
        assert cli("--no-raw", "CONFIG", "GET", "maxclients") == b'1# "maxclients" => "10000"\n'
    assert json.loads(cli("--json", "MGET", "none")) == [None]


def test_masses_through_a_pipe(cli):
    lines = b"".join(encode("SET", f"key:{i}", f"value {i}") for i in range(20000)) + encode("INCR", "key:1")
    assert cli("--pipe", stdin=lines).endswith(b"errors: 1, replies: 20001\n")
    assert cli("DBSIZE") == b"20000\n"
    assert cli("GET", "key:19999") == b"value 19999\n"


def test_transactions_and_scans(cli):
    assert cli(stdin="MSET a 1 b 2\nMULTI\nINCR a\nRENAME b c\nGET c\nEXEC\n") == b"OK\nOK\nQUEUED\nQUEUED\nQUEUED\n2\nOK\n2\n"
    cli("--pipe", stdin=b"".join(encode("SET", f"key:{i}", "x" * i) for i in range(300)))
    assert sorted(cli("--scan", "--pattern", "key:*").split()) == sorted(b"key:%d" % i for i in range(300))
    assert b"Biggest string found '\"key:299\"' has 299 bytes" in cli("--bigkeys")
    assert cli("--raw", "KEYS", "?").split() in ([b"a", b"c"], [b"c", b"a"])


def test_a_command_line_that_stays_open_over_a_crash(cli, host):  # noqa: F811
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = ["stdbuf", "-oL", *cli.command, "--no-auth-warning", "-a", PASSWORD]  # or it keeps replies back in a pipe
    with subprocess.Popen(command, text=True, bufsize=1, **pipes) as process:

        def ask(line):
            process.stdin.write(line + "\n")
            return process.stdout.readline().strip()

        try:
            assert ask("SET kept yes") == "OK"
            host.crash()
            assert ask("PING").startswith("Error: ")  # the end of the connection; the next command gets a new one
            assert ask("GET kept") == "yes"
            assert ask("INCR n") == "1"
        finally:
            process.kill()


@pytest.mark.parametrize("flags", [("-P", "16"), ("-3",), ("--threads", "2", "-c", "20"), ("-d", "70000", "-k", "0")])
def test_redis_benchmark(host, flags):  # noqa: F811
    def benchmark(*words):
        command = ["redis-benchmark", "-p", str(host.port), "-a", PASSWORD, "-q", "-n", str(2000 // SLOW**2), *flags, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
        assert not re.search("error|could not", done.stdout + done.stderr, re.IGNORECASE), done.stdout + done.stderr
        return done.stdout

    assert benchmark("-r", "500", "-t", "ping,set,get,incr,mset").count("requests per second") == 6
    assert benchmark("-r", "100", "APPEND", "log:__rand_int__", "x").count("requests per second") == 1
    assert benchmark("SETBIT", "bits", "1000", "1").count("requests per second") == 1
