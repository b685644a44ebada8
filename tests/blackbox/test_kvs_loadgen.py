"""kvs-loadgen: what it sends, what it counts, what it says when something is wrong."""

import json
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import PATIENCE_SECONDS, binary, free_port, wait_for

redis_py = pytest.importorskip("redis")

SMALL = ["--keys", 2000, "--connections", 6]


def run_json(run_loadgen, server, *arguments, code=0):
    result = run_loadgen("--json", *SMALL, *arguments, server=server)
    assert result.returncode == code, result
    assert result.stderr == "", result
    return json.loads(result.stdout)


def check_latency(part):
    names = ("p50_us", "p90_us", "p99_us", "p99_9_us", "p99_99_us", "max_us")
    assert 0 < part["p50_us"] and [part[name] for name in names] == sorted(part[name] for name in names)


# ---- against Redis, which nobody here wrote --------------------------------------------------------------------------


def test_counts_agree_with_the_server(redis, run_loadgen):
    found = run_json(run_loadgen, redis, "--fill", "--requests", 3000, "--pipeline", 7, "--threads", 2)
    assert found["fill"]["operations"] == found["fill"]["writes"]["operations"] == 2000
    run = found["run"]
    assert run["operations"] == run["reads"]["operations"] + run["writes"]["operations"] == 3000
    assert 1200 < run["reads"]["operations"] < 1800
    assert run["hits"] == run["reads"]["operations"] and run["misses"] == run["errors"] == 0
    check_latency(run["reads"])
    check_latency(run["writes"])
    assert run["client_cpu_us_per_operation"] > 0
    assert redis.command("DBSIZE") == b":2000\r\n"
    stats = redis.command("INFO", "commandstats").decode()
    calls = {line.split(":")[0]: int(line.split("calls=")[1].split(",")[0]) for line in stats.splitlines() if "calls=" in line}
    assert calls["cmdstat_get"] == run["reads"]["operations"]
    assert calls["cmdstat_set"] == run["writes"]["operations"] + 2000


def test_read_share(redis, run_loadgen):
    for share, reads in (("0", 0), ("1", 1000), ("0%", 0), ("100%", 1000)):
        run = run_json(run_loadgen, redis, "--requests", 1000, "--read-share", share)["run"]
        assert run["reads"]["operations"] == reads
        assert run["writes"]["operations"] == 1000 - reads


def test_keys_and_values_have_the_sizes_asked_for(redis, run_loadgen):
    run_json(run_loadgen, redis, "--fill", "--seconds", 0, "--key-size", 30, "--value-size", 777)
    assert redis.command("STRLEN", "key:" + "%026d" % 1999) == b":777\r\n"
    run_json(run_loadgen, redis, "--fill", "--seconds", 0, "--value-size", 0)
    assert redis.command("GET", "key:000000000007") == b"$0\r\n\r\n"


def test_verify_finds_a_changed_value(redis, run_loadgen):
    reads = ["--verify", "--read-share", 1, "--requests", 4000, "--value-size", 100]
    assert run_json(run_loadgen, redis, "--fill", *reads)["run"]["mismatches"] == 0
    for number in range(0, 2000, 10):
        redis.command("SETRANGE", "key:%012d" % number, 99, "?")
    found = run_json(run_loadgen, redis, *reads, code=1)["run"]
    assert 0 < found["mismatches"] < 1000 and found["errors"] == 0
    # Another seed means other values.
    assert run_json(run_loadgen, redis, *reads, "--seed", 2, code=1)["run"]["mismatches"] == 4000


def test_misses_are_counted(redis, run_loadgen):
    run = run_json(run_loadgen, redis, "--read-share", 1, "--requests", 500, "--verify")["run"]
    assert run["misses"] == 500 and run["hits"] == 0 and run["mismatches"] == 0


def test_errors_are_counted_and_the_first_is_shown(redis, run_loadgen):
    for number in range(2000):
        redis.command("LPUSH", "key:%012d" % number, "x") if number % 2 == 0 else None
    run = run_json(run_loadgen, redis, "--read-share", 1, "--requests", 1000, code=1)["run"]
    assert run["errors"] > 0 and run["errors"] + run["operations"] == 1000
    assert "WRONGTYPE" in run["first_error"]


def test_large_values_and_deep_pipelines(redis, run_loadgen):
    big = ["--keys", 20, "--fill", "--verify", "--value-size", 1000000, "--pipeline", 16, "--requests", 200]
    run = run_json(run_loadgen, redis, *big)["run"]
    assert run["operations"] == 200 and run["mismatches"] == 0
    run = run_json(run_loadgen, redis, "--pipeline", 1000, "--requests", 20000, "--fill", "--verify")["run"]
    assert run["operations"] == 20000 and run["mismatches"] == 0


def test_unix_socket(redis, run_loadgen):
    result = run_loadgen("--unix", redis.unix_path, "--requests", 100, *SMALL)
    assert result.returncode == 0 and "100 operations" in result.stdout


def test_time_limit_and_text(redis, run_loadgen):
    begin = time.monotonic()
    result = run_loadgen("--seconds", "0.5", "--warmup", "0.3", *SMALL, server=redis)
    assert time.monotonic() - begin >= 0.8
    assert result.returncode == 0 and result.stderr == ""
    for word in ("reads", "writes", "p99.9 ms", "hits", "errors:  0", "of a core", redis.address):
        assert word in result.stdout


def test_interrupt_ends_early_and_prints(redis):
    process = start_loadgen(redis, "--json", "--seconds", 1000)
    wait_for_writes(redis)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0 and err == b""
    run = json.loads(out)["run"]
    assert run["errors"] == 0 and run["operations"] > 0 and run["seconds"] < 900


# ---- open loop -------------------------------------------------------------------------------------------------------


def run_open_loop(run_loadgen, server, *arguments):
    """As run_json. A machine that stands still for as long as a schedule takes leaves requests unsent: then once more."""
    for _ in range(5):
        result = run_loadgen("--json", *SMALL, *arguments, server=server)
        if json.loads(result.stdout)["run"]["unsent"] == 0:
            break
    assert result.returncode == 0 and result.stderr == "", result
    return json.loads(result.stdout)


@pytest.mark.parametrize("threads", [1, 2])
def test_open_loop_keeps_to_its_schedule(redis, run_loadgen, threads):
    arguments = ["--rate", 2000, "--requests", 2000, "--warmup", "0.2", "--fill", "--verify", "--threads", threads]
    found = run_open_loop(run_loadgen, redis, *arguments)
    assert found["loop"] == "open" and found["rate"] == 2000
    run = found["run"]
    assert run["operations"] == 2000 and run["mismatches"] == run["unsent"] == 0
    last_due = 0.9995
    assert run["seconds"] >= last_due - 0.001
    if threads == 1:  # of several, one may have begun later than another
        assert run["seconds"] <= last_due + max(run["reads"]["max_us"], run["writes"]["max_us"]) / 1e6 + 0.001
    assert run["send_delays"]["operations"] == 2000


def test_open_loop_as_text(redis, run_loadgen):
    text = run_loadgen("--rate", 1000, "--seconds", "0.5", "--warmup", 0, *SMALL, server=redis).stdout
    assert "open loop of 1000 per second" in text and "sending:" in text
    sent = int(re.search(r"measured: (\d+) operations", text).group(1))
    unsent = int(re.search(r"(\d+) were never sent", text).group(1))
    assert sent + unsent == 500


def start_loadgen(server, *arguments):
    return subprocess.Popen(
        [binary("kvs-loadgen"), "--addr", server.address, "--warmup", "0"] + [str(word) for word in arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_writes(server):
    """Until the load generator is at work on a server that was empty."""
    client = redis_py.Redis(port=server.port, socket_timeout=PATIENCE_SECONDS)
    wait_for(client.dbsize, "what the load generator writes")
    client.close()


STALL_RUN_SECONDS = 3
STALL_RATE = 1000


def stalled_output(redis, seconds, *arguments):
    """Of a run of 3000 requests in three seconds. Soon after the first the server stands still for some time, during which
    as many are due as can be in that time, or a thousand: else, on a machine that stands still as well, it is made again."""
    for _ in range(10):
        redis.command("FLUSHALL")
        begin = time.monotonic()
        process = start_loadgen(redis, "--rate", STALL_RATE, "--seconds", STALL_RUN_SECONDS, *SMALL, *arguments)
        wait_for_writes(redis)
        redis.process.send_signal(signal.SIGSTOP)
        in_time = time.monotonic() < begin + STALL_RUN_SECONDS - 1
        time.sleep(seconds)
        redis.process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=PATIENCE_SECONDS)
        if in_time:
            break
    return out


def stalled(redis, seconds):
    """The run. One that could not send everything is made again: something stood still for longer than the server."""
    for _ in range(5):
        run = json.loads(stalled_output(redis, seconds, "--json"))["run"]
        if run["unsent"] == 0:
            break
    assert run["operations"] == STALL_RUN_SECONDS * STALL_RATE and run["unsent"] == 0
    return run


def mean_of_all_us(run):
    parts = (run["reads"], run["writes"])
    return sum(part["mean_us"] * part["operations"] for part in parts) / sum(part["operations"] for part in parts)


def test_open_loop_does_not_hide_a_stall(redis):
    """Six requests meet the stall. All those that were due meanwhile have to wait, too, and count. (A slow machine makes
    all of this larger, never smaller.)"""
    run = stalled(redis, 1)
    assert run["crowded"] > 800
    for part in (run["reads"], run["writes"]):
        # Of three seconds one was lost: a third of all waited, half a second on average.
        assert part["max_us"] > 900000 and part["p90_us"] > 500000 and part["mean_us"] > 120000
    # What a request has waited before it was sent is part of its latency.
    delays = run["send_delays"]
    assert delays["operations"] == run["operations"] and delays["p90_us"] > 500000
    assert mean_of_all_us(run) >= delays["mean_us"]
    # The last one tells whether the backlog was gone in the end.
    assert run["kept_up"] is (run["behind_us"] <= 100000)


def test_open_loop_says_when_it_had_too_few_places(redis):
    # What a busy machine does may call for another warning, or for this one, though not every time.
    assert any(b"for want of places" in stalled_output(redis, 0.3) for _ in range(5))
    assert any(b"WARNING" not in stalled_output(redis, 0.3, "--connections", 1000) for _ in range(5))


def test_open_loop_sends_what_was_due_at_its_end(redis):
    run = stalled(redis, 3.5)
    assert run["seconds"] > 3.4 and run["writes"]["max_us"] > 3000000


def test_open_loop_says_when_it_was_not_kept_up_with(redis, run_loadgen):
    run = run_json(run_loadgen, redis, "--rate", 50000000, "--seconds", "0.3", "--warmup", 0, code=1)["run"]
    assert run["kept_up"] is False and run["unsent"] > 0 and run["errors"] == 0
    assert run["operations"] + run["unsent"] == 15000000 and run["behind_us"] > 100000
    text = run_loadgen("--rate", 50000000, "--seconds", "0.1", "--warmup", 0, *SMALL, server=redis)
    assert text.returncode == 1 and "not kept up" in text.stdout


# ---- which keys ------------------------------------------------------------------------------------------------------


def test_distributions_differ_in_how_many_keys_they_reach(redis, run_loadgen):
    reached = {}
    for distribution in ("uniform", "zipfian", "latest"):
        redis.command("FLUSHALL")
        arguments = ["--distribution", distribution, "--read-share", 0, "--requests", 2000, "--threads", 2]
        found = run_json(run_loadgen, redis, *arguments)
        assert found["distribution"] == distribution and found["theta"] == 0.99
        reached[distribution] = int(redis.command("DBSIZE")[1:])
    # Of n keys n uniform draws reach 63 %. Those of latest are new each time.
    assert 1200 < reached["uniform"] < 1330 and 600 < reached["zipfian"] < 1000 and reached["latest"] == 2000
    redis.command("FLUSHALL")
    run_json(run_loadgen, redis, "--distribution", "zipfian", "--theta", 2, "--read-share", 0, "--requests", 2000)
    assert int(redis.command("DBSIZE")[1:]) < 200


def test_latest_reads_what_has_been_written(redis, run_loadgen):
    arguments = ["--distribution", "latest", "--fill", "--verify", "--requests", 20000, "--threads", 2, "--pipeline", 8]
    run = run_json(run_loadgen, redis, *arguments)["run"]
    assert run["misses"] == run["mismatches"] == 0 and run["hits"] > 9000
    assert redis.command("DBSIZE") == b":%d\r\n" % (2000 + run["writes"]["operations"])
    # Only what is new is there: then most reads find something.
    redis.command("FLUSHALL")
    run = run_json(run_loadgen, redis, "--distribution", "latest", "--requests", 20000, "--threads", 2)["run"]
    assert 0 < run["misses"] < run["hits"]


# ---- histogram -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [[], ["--rate", 4000]])
def test_histogram_agrees_with_the_percentiles(redis, run_loadgen, tmp_path, rate):
    path = tmp_path / "latency.csv"
    make_run = run_open_loop if rate else run_json
    run = make_run(run_loadgen, redis, "--requests", 4000, "--histogram", path, "--read-share", "0.8", *rate)["run"]
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#") and "0.79" in lines[0] and lines[1] == "upper_bound_ns,reads,writes"
    rows = [[int(word) for word in line.split(",")] for line in lines[2:]]
    bounds = [row[0] for row in rows]
    assert bounds == sorted(set(bounds)) and all(reads + writes > 0 for _, reads, writes in rows)
    for column, name in ((1, "reads"), (2, "writes")):
        part = run[name]
        assert sum(row[column] for row in rows) == part["operations"]
        for percent, key in ((50, "p50_us"), (99, "p99_us")):
            seen = 0
            for row in rows:
                seen += row[column]
                if seen * 100 >= part["operations"] * percent:
                    break
            assert row[0] / 1000 == pytest.approx(part[key], abs=0.001)


def test_histogram_that_cannot_be_written_is_told(redis, run_loadgen):
    result = run_loadgen("--requests", 10, "--histogram", "/nowhere/h.csv", *SMALL, server=redis)
    assert result.returncode == 1 and "/nowhere/h.csv" in result.stderr and "10 operations" in result.stdout
    result = run_loadgen("--requests", 10, "--histogram", "/dev/full", *SMALL, server=redis)
    assert result.returncode == 1 and "/dev/full" in result.stderr


# ---- against kvs-node ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["resp", "binary"])
@pytest.mark.parametrize("threads", [1, 2])
def test_kvs_node(start_node, run_loadgen, protocol, threads):
    node = start_node("--threads", threads)
    for pipeline in (1, 16):
        arguments = ["--protocol", protocol, "--pipeline", pipeline, "--fill", "--verify", "--requests", 4000]
        run = run_json(run_loadgen, node, *arguments)["run"]
        assert run["operations"] == 4000 and run["mismatches"] == run["errors"] == run["misses"] == 0
    node.stop()


def test_kvs_node_relaxed(node, run_loadgen):
    arguments = ["--protocol", "binary", "--relaxed", "--fill", "--verify", "--requests", 4000, "--pipeline", 16]
    run = run_json(run_loadgen, node, *arguments)["run"]
    assert run["operations"] == 4000 and run["mismatches"] == run["errors"] == 0


def test_kvs_node_large_values(node, run_loadgen):
    for protocol in ("resp", "binary"):
        arguments = ["--keys", 10, "--value-size", 1000000, "--pipeline", 4, "--fill", "--verify", "--requests", 60]
        run = run_json(run_loadgen, node, *arguments, "--protocol", protocol)["run"]
        assert run["operations"] == 60 and run["mismatches"] == run["errors"] == 0


@pytest.mark.parametrize("rate", [[], ["--rate", 1000]])
def test_kvs_node_dies(start_node, rate):
    """The run ends with its server."""
    node = start_node()
    process = start_loadgen(node, "--json", "--seconds", 1000, *rate)
    wait_for_writes(node)
    node.kill9()
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    run = json.loads(out)["run"]
    assert run["operations"] > 0 and run["seconds"] < 900 and node.address in run["first_error"]
    if rate:
        assert run["operations"] + run["unsent"] + run["errors"] >= 1000000
    else:
        assert run["errors"] >= 50


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_no_server(run_loadgen):
    address = f"127.0.0.1:{free_port()}"
    result = run_loadgen("--addr", address)
    assert result.returncode == 1 and result.stdout == ""
    assert address in result.stderr and "refused" in result.stderr


def test_silent_server_is_given_up(run_loadgen):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        kept = []

        def accept():
            for _ in range(3):
                kept.append(listener.accept())

        threading.Thread(target=accept, daemon=True).start()
        result = run_loadgen("--addr", address, "--timeout", 1, "--connections", 3)
        assert result.returncode == 1
        result = run_loadgen("--addr", address, "--timeout", 1, "--connections", 1, "--protocol", "binary")
        assert result.returncode == 1 and address in result.stderr


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--connections", "0"], "--connections"),
        (["--pipeline", "x"], "--pipeline"),
        (["--keys", "-5"], "--keys"),
        (["--threads", "3", "--connections", "2"], "--connections"),
        (["--keys", "1000", "--key-size", "2"], "--key-size 3"),
        (["--read-share", "2"], "--read-share"),
        (["--read-share", "%"], "--read-share"),
        (["--protocol", "http"], "http"),
        (["--relaxed"], "binary"),
        (["--rate", "0"], "--rate"),
        (["--distribution", "normal"], "normal"),
        (["--theta", "-1"], "--theta"),
        (["--distribution", "latest", "--key-size", "8"], "--key-size 12"),
        (["--seconds", "1e"], "--seconds"),
        (["--addr", "nowhere"], "nowhere"),
        (["--addr", "127.0.0.1:1", "--unix", "/s"], "exclude"),
        (["--unix", ""], "--unix"),
        (["--nonsense"], "--nonsense"),
        (["word"], "word"),
    ],
)
def test_usage_errors_name_what_is_wrong_and_exit_2(run_loadgen, arguments, named):
    result = run_loadgen(*arguments)
    assert result.returncode == 2 and result.stdout == "" and named in result.stderr


def test_help_and_version(run_loadgen):
    assert "--read-share" in run_loadgen("--help").stdout
    assert run_loadgen("-V").stdout.startswith("kvs-loadgen ")
