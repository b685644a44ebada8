"""kvs-sim from outside: options, plans as files, summaries, exit codes, and that nothing is left behind.

What it finds in the node is not the matter here: plans that pass are short and without faults, and the failure that can
be had of any plan at will is to give it too little time (--run-seconds).
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

from conftest import PATIENCE_SECONDS, SLOW, binary, wait_for

SETTINGS = """plan 1
seed 5
threads 2
segment_kib 256
memory_segments 4
keys 10
value_bytes 100
hash_bits 64
direct_align 4096
socket_bytes 0
disk_segments 0
preempt_every 0
"""
SHORT = SETTINGS + "work 0 20 0 1\nsettle 0 0 0 2\ncheck 0 0 0 3\n"
# Takes half a second, where SHORT takes milliseconds.
LONG = SETTINGS.replace("keys 10", "keys 2000") + "".join(f"work {i % 6} 2000 0 {i}\nsettle 0 0 0 {i}\n" for i in range(250))
TOO_LITTLE = ("--run-seconds", "0.001")

# Whatever seeds find: none takes long, and none ends the tour.
TOUR = ("--run-seconds", str(5 * SLOW), "--max-failures", "1000000")

FAULTS = {"read-error", "write-error", "sync-error", "reset", "stall"}


def sim(*arguments, stdin=None):
    return subprocess.run(
        [binary("kvs-sim"), *arguments], input=stdin, capture_output=True, text=True, timeout=3 * PATIENCE_SECONDS, check=False
    )


@pytest.fixture
def plan(tmp_path):
    """Makes a file of a plan."""

    def make(text, name="some.plan"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return make


# ---- the command line ------------------------------------------------------------------------------------------------


def test_help_names_every_option():
    result = sim("--help")
    assert result.returncode == 0 and result.stderr == ""
    for option in """seed seeds minutes plan regress trace shrink shrink-seconds print-plan jobs max-failures json
                     run-seconds help""".split():
        assert f"--{option} " in result.stdout.replace(",", " ").replace("\n", " "), option


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--nonsense"],
        ["--seed"],
        ["--seed", "x"],
        ["--seed", "-1"],
        ["--seed", "18446744073709551616"],
        ["--seed", "1", "2"],
        ["--seeds", "5"],
        ["--seeds", "5..4"],
        ["--seeds", "1-5"],
        ["--seeds", "1..5x"],
        ["--seeds", "..5"],
        ["--seeds", "1.."],
        ["--minutes", "0"],
        ["--minutes", "-1"],
        ["--minutes", "long"],
        ["--seed", "1", "--seeds", "1..2"],
        ["--seed", "1", "--minutes", "1"],
        ["--seed", "1", "--plan", "x"],
        ["--plan", "x", "--regress", "y"],
        ["--seeds", "1..2", "--trace"],
        ["--seeds", "1..2", "--shrink"],
        ["--seeds", "1..2", "--print-plan"],
        ["--seed", "1", "--trace", "--shrink"],
        ["--seed", "1", "--shrink-seconds", "5"],
        ["--seed", "1", "--json"],
        ["--seed", "1", "--jobs", "2"],
        ["--seeds", "1..2", "--jobs", "0"],
        ["--seeds", "1..2", "--jobs", "100000"],
        ["--seeds", "1..2", "--max-failures", "0"],
        ["--seeds", "1..2", "--run-seconds", "soon"],
    ],
    ids=" ".join,
)
def test_senseless_command_lines_are_refused(arguments):
    result = sim(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert "kvs-sim" in result.stderr and "--help" in result.stderr


# ---- plans as text ---------------------------------------------------------------------------------------------------


def test_printed_plan_is_the_same_plan_when_read(plan):
    printed = sim("--seed", "77", "--print-plan")
    assert printed.returncode == 0 and printed.stdout.startswith("plan 1\nseed 77\n")
    for text in [printed.stdout, "seed 77\n", "# a comment\n\n" + printed.stdout]:
        again = sim("--plan", plan(text), "--print-plan")
        assert again.returncode == 0 and again.stdout == printed.stdout
    assert sim("--plan", "-", "--print-plan", stdin=printed.stdout).stdout == printed.stdout


@pytest.mark.parametrize(
    "text, line", [("", 1), ("plan 2\n", 1), (SHORT + "sleep 1 2 3 4\n", 16), (SETTINGS + "keys 5\n", 13), ("seed 1\nseed 2", 2)]
)
def test_bad_plan_is_refused_with_its_line(plan, text, line):
    path = plan(text)
    result = sim("--plan", path)
    assert result.returncode == 2 and result.stdout == ""
    assert f"{path}:{line}: " in result.stderr


def test_plan_that_is_not_there_or_no_text_is_refused(plan, tmp_path):
    for path in [str(tmp_path / "nothing"), str(tmp_path), plan("plan 1\n\0")]:
        result = sim("--plan", path)
        assert result.returncode == 2 and path in result.stderr


# ---- one run ---------------------------------------------------------------------------------------------------------


def test_plan_that_passes_leaves_the_same_trace_every_time(plan):
    path = plan(SHORT)
    results = [sim("--plan", path) for _ in range(3)]
    traces = {re.search(r"trace ([0-9a-f]{16})", result.stdout).group(1) for result in results}
    assert [result.returncode for result in results] == [0, 0, 0] and len(traces) == 1
    assert results[0].stdout.startswith("passed: ") and re.search(r"\b[1-9]\d* operations", results[0].stdout)
    other = sim("--plan", plan(SHORT.replace("seed 5", "seed 6")))
    assert other.returncode == 0 and traces.pop() not in other.stdout


def test_trace_tells_the_story_on_stderr(plan):
    quiet, told = sim("--plan", plan(SHORT)), sim("--plan", plan(SHORT), "--trace")
    assert told.returncode == 0
    assert len(told.stderr.splitlines()) > len(quiet.stderr.splitlines())


def test_run_over_its_time_fails(plan):
    result = sim("--plan", plan(LONG), *TOO_LITTLE)
    assert result.returncode == 1
    assert result.stdout.startswith("FAILED: ") and "took longer than 0.001 s" in result.stdout


def test_shrinking_prints_a_smaller_plan_that_can_be_read(plan):
    result = sim("--plan", plan(LONG), *TOO_LITTLE, "--shrink", "--shrink-seconds", "2")
    assert result.returncode == 1
    assert "of 500 steps are left" in result.stderr
    assert result.stdout.startswith("# found: killed: took longer\nplan 1\nseed 5\n")
    assert len(result.stdout.splitlines()) < len(LONG.splitlines())
    again = sim("--plan", "-", "--print-plan", stdin=result.stdout)
    assert result.stdout.endswith("\n" + again.stdout)


def test_there_is_nothing_to_shrink_in_a_plan_that_passes(plan):
    result = sim("--plan", plan(SHORT), "--shrink")
    assert result.returncode == 0 and result.stdout == "" and "does not fail" in result.stderr


# ---- many ------------------------------------------------------------------------------------------------------------


def test_summary_counts_what_was_run(plan, tmp_path):
    for i in range(5):
        plan(SHORT, f"{i}.plan")
    (tmp_path / "README.md").write_text("not a plan")
    (tmp_path / ".hidden").write_text("not a plan")
    result = sim("--regress", str(tmp_path), "--jobs", "2")
    assert result.returncode == 0, result
    assert result.stdout.startswith("5 files: 5 runs in ") and "on each of 2 cores" in result.stdout
    operations = int(re.search(r"^operations +(\d+)$", result.stdout, re.M).group(1))
    assert operations > 0 and operations % 5 == 0
    for fault in FAULTS:
        assert re.search(rf"^  {fault} +0$", result.stdout, re.M), fault
    assert "passed: 0 of 5 runs failed" in result.stdout
    assert result.stderr == "" # no progress line where nobody looks


def test_failures_are_named_by_file_with_the_command_to_see_them_again(plan, tmp_path):
    plan(SHORT, "short.plan")
    long = plan(LONG, "long.plan")
    # However slow the machine, there is a time that is enough for the short one, and not for the long one.
    seconds = 0.1
    result = sim("--regress", str(tmp_path), "--run-seconds", str(seconds))
    while "short.plan" in result.stdout and seconds < 10:
        seconds *= 2
        result = sim("--regress", str(tmp_path), "--run-seconds", str(seconds))
    assert result.returncode == 1
    assert f"FAILED: {long}\n" in result.stdout and "FAILED: 1 of 2 runs failed" in result.stdout
    again = re.search(r"again: +(.*)", result.stdout).group(1)
    assert again == f"{binary('kvs-sim')} --plan '{long}'"
    assert f"{again} --shrink\n" in result.stdout
    seen = subprocess.run(again + " --run-seconds 0.001", shell=True, capture_output=True, check=False)
    assert seen.returncode == 1


def test_json_summary(plan, tmp_path):
    long = plan(LONG, 'a "long" one.plan')
    result = sim("--regress", str(tmp_path), *TOO_LITTLE, "--json")
    assert result.returncode == 1
    summary = json.loads(result.stdout)
    assert summary["runs"] == 1 and summary["jobs"] == 1 and not summary["interrupted"]
    assert FAULTS <= summary["faults"].keys()
    for counter in """operations acknowledged refused unanswered boots crashes kills stops refusals rotten_boots checks
                      steps simulated_ns seconds runs_per_second runs_per_second_and_core""".split():
        assert summary[counter] >= 0, counter
    [failure] = summary["failures"]
    assert failure["file"] == long
    assert failure["reason"] == "killed: took longer than 0.001 s" and failure["class"] == "killed: took longer"


def test_folder_without_plans_passes_and_a_folder_that_is_not_there_is_refused(tmp_path):
    result = sim("--regress", str(tmp_path))
    assert result.returncode == 0 and "no plans" in result.stdout
    missing = sim("--regress", str(tmp_path / "nothing"))
    assert missing.returncode == 2 and "nothing" in missing.stderr


def test_one_bad_file_of_a_folder_is_named_and_nothing_is_run(plan, tmp_path):
    plan(SHORT, "a.plan")
    bad = plan("seed\n", "b.plan")
    result = sim("--regress", str(tmp_path))
    assert result.returncode == 2 and result.stdout == "" and f"{bad}:1: " in result.stderr


def test_max_failures_ends_it_early(plan, tmp_path):
    for i in range(6):
        plan(LONG, f"{i}.plan")
    result = sim("--regress", str(tmp_path), *TOO_LITTLE, "--max-failures", "2", "--jobs", "1")
    assert result.returncode == 1
    assert "FAILED: 2 of 2 runs failed" in result.stdout and "too many failures" in result.stdout


def test_minutes_end_it():
    result = sim("--minutes", "0.02", "--json", *TOUR)
    summary = json.loads(result.stdout)
    assert summary["runs"] > 0 and not summary["interrupted"]
    assert result.returncode == (1 if summary["failures"] else 0)
    other = json.loads(sim("--minutes", "0.01", "--json", *TOUR).stdout)
    assert other["first"] != summary["first"]


def test_seeds_from_a_given_one_on():
    result = sim("--seeds", "123456..", "--minutes", "0.01", *TOUR)
    assert result.stdout.startswith("seeds from 123456 on: ")


# ---- its processes ---------------------------------------------------------------------------------------------------


def children(pid):
    try:
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def running():
    """Starts a kvs-sim that has enough to do; returns it and its workers."""
    process = subprocess.Popen(
        [binary("kvs-sim"), "--seeds", "1..", "--minutes", "10", "--jobs", "2", *TOUR],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: len(children(process.pid)) == 2, "two workers")
        time.sleep(0.5 * SLOW)
        yield process, children(process.pid)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("send", [os.kill, os.killpg])  # a terminal and timeout(1) send to all of them
def test_signal_prints_what_was_reached(running, number, send):
    process, workers = running
    send(process.pid, number)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode in (0, 1)
    assert re.match(r"seeds from 1 on: \d+ runs in ", output) and "interrupted by a signal" in output
    assert "killed by" not in output
    assert not any(is_running(worker) for worker in workers)


def test_workers_do_not_outlive_their_parent(running):
    process, workers = running
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not any(is_running(worker) for worker in workers), "the end of the workers")
