"""Power cuts at every point of a run: a disk that records writes and flushes, its recording cut, mounted and started on.

One run is recorded: a new store under load, a kill -9, a start with other threads, an orderly stop, a start in between; values
so large, and so little dead space allowed, that compaction is at work most of the time. Every
operation notes the position of the recording when it was asked for and when it was acknowledged. A cut disk then holds all
that was written before the last flush, and a random part of what came behind it. The node must start on it and must find
exactly what had been acknowledged by then, or something asked for since.
"""

import os
import random
import time

import pytest
from disks import FLUSH, WRITE
from recorded_run import Recorded, check_cut

pytestmark = pytest.mark.needs("loop", "ext4", "fuse")

SEED = int(os.environ.get("KVS_SEED", "1"))
CUTS = int(os.environ.get("KVS_CUTS", "0"))  # 0: as many as fit into
SECONDS = 60
CUTS_MIN = 100
# Threads, acknowledged operations, how it ends.
PHASES = [(1, 600, "kill"), (4, 900, "stop"), (2, 600, "kill"), (1, 1, "kill"), (2, 500, "stop")]
SIZES = [100, 3000, 10000, 30000]
COMPACTED_MIN = 12  # segments


@pytest.fixture
def recorded(disks, start_node, scratch):
    print(f"seed {SEED}; another one: KVS_SEED=n")
    return Recorded(disks, start_node, scratch)


def passes(recording, rng):
    """Cuts in ascending order, as a recording is read, pass after pass: a sample of all, all, and all again for ever, each
    time with other writes lost."""
    everywhere = range(1, len(recording.entries) + 1)
    yield sorted(rng.sample(everywhere, min(CUTS_MIN, len(everywhere))))
    while True:
        yield everywhere


def test_a_flush_of_the_file_system_arrives_in_the_recording(recorded):
    """What all the others here rest upon."""
    position = recorded.recorder.position()
    path = recorded.mount.path / "file"
    with open(path, "wb") as file:
        file.write(b"x" * 5000)
        file.flush()
        os.fsync(file.fileno())
    kinds = [entry.kind for entry in recorded.recording().entries if entry.end > position]
    assert WRITE in kinds and kinds[-1] == FLUSH, kinds
    position = recorded.recorder.position()
    fd = os.open(path, os.O_WRONLY | os.O_DSYNC)
    os.pwrite(fd, b"y" * 4096, 0)
    os.close(fd)
    entries = [entry for entry in recorded.recording().entries if entry.end > position]
    assert [entry.kind for entry in entries][-1] == FLUSH
    written = [recorded.recording().bytes[entry.at : entry.at + 4096] for entry in entries if entry.kind == WRITE]
    assert b"y" * 4096 in written


def enough(done, begin):
    return done >= CUTS if CUTS else done >= CUTS_MIN and time.monotonic() > begin + SECONDS


def test_every_cut_keeps_the_promises(recorded):
    rng = random.Random(SEED)
    segments = recorded.record(PHASES, rng, "--space-percent", "120", sizes=SIZES)
    assert segments >= COMPACTED_MIN, f"{segments} segments compacted"
    recording = recorded.recording()
    begin, done, failed = time.monotonic(), 0, []
    for cuts in passes(recording, rng):
        recording.rewind()
        for cut in cuts:
            if enough(done, begin) or len(failed) >= 10:
                break
            complaints = check_cut(recorded, recording, cut, rng, rng.choice([1, 2, 4]), again=rng.random() < 0.2)
            done += 1
            if complaints:
                failed.append(f"cut {cut}: " + "\n   ".join(complaints[:5]))
        if enough(done, begin) or failed:
            break
    flushes = len(recording.flush_cuts())
    print(f"{segments} segments compacted; {done} cuts; {len(recording.entries)} entries, {flushes} flushes; {time.monotonic() - begin:.0f} s")
    assert failed == [], f"{len(failed)} of {done} cuts broke a promise, seed {SEED}:\n" + "\n".join(failed)
