"""kvs-check, against data that a real kvs-node has written: what it says, what it saves, and that it changes nothing."""

import json
import os
import pty
import struct
import subprocess

import pytest

from conftest import PATIENCE_SECONDS, binary

KEYS = 3000


def value_of(key, version=1):
    return (f"{key}.{version}." * 150).encode()


@pytest.fixture
def run_check():
    """Runs kvs-check to its end; output is text."""

    def run(*arguments, timeout=PATIENCE_SECONDS):
        command = [binary("kvs-check")] + [str(argument) for argument in arguments]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)

    return run


def ask(node, commands):
    """Sends RESP commands in one go and returns the raw replies, one for each (bulk or one line)."""
    with node.connect() as connection:
        request = b""
        for words in commands:
            request += b"*%d\r\n" % len(words)
            for word in words:
                request += b"$%d\r\n%s\r\n" % (len(word), word)
        replies, stream = [], connection.makefile("rb")
        connection.sendall(request)
        for _ in commands:
            line = stream.readline()
            if line.startswith(b"$") and line != b"$-1\r\n":
                size = int(line[1:])
                replies.append(stream.read(size + 2)[:-2])
            else:
                replies.append(line.strip())
        return replies


def put(node, keys, version=1):
    replies = ask(node, [(b"SET", b"key:%d" % key, value_of(key, version)) for key in keys])
    assert set(replies) == {b"+OK"}


def get(node, keys):
    return ask(node, [(b"GET", b"key:%d" % key) for key in keys])


def fill(node):
    """Keys 0..KEYS-1, those below 1000 twice, every seventh removed; several segments of 1 MiB."""
    for first in range(0, KEYS, 500):
        put(node, range(first, first + 500))
    put(node, range(0, 1000), version=2)
    removed = range(0, KEYS, 7)
    assert set(ask(node, [(b"DEL", b"key:%d" % key) for key in removed])) == {b":1"}


def expected(key):
    if key % 7 == 0:
        return b"$-1"
    return value_of(key, 2 if key < 1000 else 1)


FLAGS = ("--segment-size", "1M", "--threads", "2")


@pytest.fixture
def data(start_node, tmp_path):
    """A data directory that a killed node has left."""
    node = start_node(*FLAGS, data_dir=tmp_path / "data")
    fill(node)
    node.kill9()
    return tmp_path / "data"


def snapshot(folder):
    """Everything that a program could change: names, bytes, times."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    } | {".": folder.stat().st_mtime_ns}


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def place_of(run_check, data, key):
    """Segment and offset of the newest record of a key."""
    lines = run_check("--dump", data).stdout.splitlines()
    found = [line.split() for line in lines if line.endswith(f' "key:{key}"')]
    newest = max(found, key=lambda words: int(words[2]))
    return newest[0], int(newest[1])


# ---- a sound directory -----------------------------------------------------------------------------------------------


def test_sound_directory_is_reported_and_left_alone(data, run_check):
    before = snapshot(data)
    result = run_check(data)
    assert result.returncode == 0 and result.stderr == "", result
    assert "sound: every record that counts is whole" in result.stdout
    for arguments in [("--json",), ("--dump",), ("--dump", "--keys-only"), ("--no-lock",)]:
        assert run_check(*arguments, data).returncode == 0
    assert snapshot(data) == before


def test_json_has_the_figures(data, run_check):
    report = json.loads(run_check("--json", data).stdout)
    removed = len(range(0, KEYS, 7))
    assert report["sound"] is True and report["refused"] is False
    assert report["keys"] == KEYS - removed and report["deleted_keys"] == removed
    assert report["puts"] >= KEYS and report["engine"] == "kvs" and report["segment_bytes"] == 1 << 20
    assert report["damages"] == [] and report["records_lost_max"] == 0
    assert sum(segment["live_puts"] for segment in report["segments"]) == report["keys"]
    assert report["live_bytes"] + report["dead_bytes"] == report["record_bytes"]
    assert {"log", "sealed"} <= {segment["role"] for segment in report["segments"]}


def test_dump_shows_records_and_keys(data, run_check, start_node):
    node = start_node(*FLAGS, data_dir=data)
    assert ask(node, [(b"SET", b'q"\\\n\xff', b"odd")]) == [b"+OK"]
    node.stop()
    lines = run_check("--dump", data).stdout.splitlines()
    odd = [line for line in lines if "odd" not in line and line.endswith('"q\\"\\\\\\x0a\\xff"')]
    assert len(odd) == 1
    segment, offset, lsn, kind, key_bytes, value_bytes = odd[0].split()[:6]
    assert (kind, key_bytes, value_bytes) == ("put", "5", "3") and int(offset) % 16 == 0 and int(lsn) > 0
    raw = (data / f"{segment}.seg").read_bytes()
    assert struct.unpack_from("<Q", raw, int(offset) + 8)[0] == int(lsn)

    keys = run_check("--dump", "--keys-only", data).stdout.splitlines()
    assert len(keys) == len(lines) and '"key:1"' in keys
    one = run_check("--dump", data, int(segment)).stdout.splitlines()
    assert one == [line for line in lines if line.startswith(segment + " ")]
    assert run_check("--dump", data, 4711).returncode == 2


def test_progress_is_for_terminals_only(data):
    outside, inside = pty.openpty()
    result = subprocess.run([binary("kvs-check"), str(data)], stdout=subprocess.DEVNULL, stderr=inside, timeout=PATIENCE_SECONDS)
    os.close(inside)
    shown = os.read(outside, 65536)
    os.close(outside)
    assert result.returncode == 0 and b"checking: " in shown and shown.endswith(b"\x1b[K")


# ---- damage and salvage ----------------------------------------------------------------------------------------------


def test_flipped_bit_is_found_and_all_other_keys_are_saved(data, run_check, start_node, tmp_path):
    key = 1500
    segment, offset = place_of(run_check, data, key)
    flip(data / f"{segment}.seg", offset + 100)
    before = snapshot(data)

    result = run_check(data)
    assert result.returncode == 1, result
    assert f"damage: {segment}.seg at offset {offset}: " in result.stdout
    assert "kvs-node refuses to start" in result.stdout
    report = json.loads(run_check("--json", data).stdout)
    assert report["refused"] is True and report["records_lost_max"] == 1
    assert [(damage["file"], damage["offset"]) for damage in report["damages"]] == [(f"{segment}.seg", offset)]
    assert report["damages"][0]["lsn_first"] == report["damages"][0]["lsn_last"]

    refused = start_node(*FLAGS, data_dir=data, wait=False)
    assert refused.wait() != 0
    # (A start may tidy up what was being made. Nothing that counts is changed.)
    for name, content in before.items():
        if name.endswith(".seg") or name in ("manifest", "superblock"):
            assert (data / name).read_bytes() == content[0]

    out = tmp_path / "out"
    result = run_check("--salvage", out, "--json", data)
    assert result.returncode == 1, result
    saved = json.loads(result.stdout)["salvage"]
    assert saved["sound"] is True and saved["keys"] == saved["verified_keys"] == KEYS - len(range(0, KEYS, 7)) - 1
    assert run_check(out).returncode == 0

    node = start_node(*FLAGS, data_dir=out)
    replies = get(node, range(KEYS))
    for other in range(KEYS):
        assert replies[other] == (b"$-1" if other == key else expected(other)), other
    node.stop()


def test_salvage_of_a_sound_directory_is_a_copy(data, run_check, start_node, tmp_path):
    result = run_check("--salvage", tmp_path / "new" / "out", data)
    assert result.returncode == 0, result
    assert "the new store was checked: sound" in result.stdout
    node = start_node("--segment-size", "1M", "--threads", "1", data_dir=tmp_path / "new" / "out")
    assert get(node, range(KEYS)) == [expected(key) for key in range(KEYS)]
    node.stop()


def test_salvage_does_not_write_where_something_is(data, run_check, tmp_path):
    before = snapshot(data)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("x")
    for out in [tmp_path / "full", data, data / "inside", data / "in" / "side"]:
        result = run_check("--salvage", out, data)
        assert result.returncode == 2 and result.stderr, (out, result)
    assert snapshot(data) == before
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes"]


@pytest.mark.parametrize("name", ["superblock", "manifest"])
def test_store_without_one_of_its_small_files(name, data, run_check, start_node, tmp_path):
    (data / name).unlink()
    result = run_check(data)
    assert result.returncode == 1 and f"damage: {name}: the file is missing" in result.stdout, result
    assert run_check("--salvage", tmp_path / "out", data).returncode == 1
    node = start_node(*FLAGS, data_dir=tmp_path / "out")
    assert get(node, range(KEYS)) == [expected(key) for key in range(KEYS)]
    node.stop()


def test_snapshot_of_the_indexes_is_verified_and_not_needed(data, run_check, start_node):
    start_node(*FLAGS, data_dir=data).stop()
    file = data / "indexes.snapshot"
    sound = run_check(data)
    assert sound.returncode == 0 and "indexes.snapshot" not in sound.stdout
    flip(file, file.stat().st_size // 2)
    damaged = run_check(data)
    assert "note: indexes.snapshot" in damaged.stdout and "throws it away" in damaged.stdout, damaged
    node = start_node(*FLAGS, data_dir=data)
    assert get(node, range(KEYS)) == [expected(key) for key in range(KEYS)]
    assert not file.exists()
    node.stop()


# ---- what it will not do ---------------------------------------------------------------------------------------------


def test_directory_of_a_running_node_is_refused(start_node, run_check, tmp_path):
    node = start_node(data_dir=tmp_path / "data")
    put(node, range(10))
    result = run_check(tmp_path / "data")
    assert result.returncode == 2 and "is in use by another process" in result.stderr, result
    assert result.stdout == ""
    assert run_check("--no-lock", tmp_path / "data").returncode in (0, 1)
    node.stop()
    assert run_check(tmp_path / "data").returncode == 0


def test_wrong_usage_and_what_is_no_data_directory(run_check, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = [(), ("--what", tmp_path), (tmp_path / "empty",), (tmp_path / "nowhere",), (tmp_path, "1"), ("--keys-only", tmp_path)]
    cases += [("--dump", "--json", tmp_path), ("--dump", tmp_path, "one"), ("--salvage", tmp_path / "out", tmp_path / "empty")]
    for arguments in cases:
        result = run_check(*arguments)
        assert result.returncode == 2 and result.stderr and result.stdout == "", (arguments, result)
    assert list((tmp_path / "empty").iterdir()) == [] and not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "out").exists()
    assert "usage: kvs-check" in run_check("--help").stdout
    assert run_check("--version").stdout.startswith("kvs-check ")


def test_closed_output_is_told(data):
    with open("/dev/full", "w") as full:
        result = subprocess.run([binary("kvs-check"), str(data)], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE_SECONDS)
    assert result.returncode == 1 and b"cannot write to standard output" in result.stderr
