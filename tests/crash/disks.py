"""Disks for tests that pull the plug: loop devices, file systems on them, a recording disk, and what they need of the machine.

Everything is mounted in a mount namespace of the test process alone (`enter_private_mounts`), and loop devices clear
themselves with their last user, so even a killed test leaves nothing mounted and nobody else ever sees these mounts. Closing in
order is still the rule: every object here has close(), and the fixture `disks` calls it.

    Image      a file with an ext4 in it
    Loop       a loop device over a file
    Mount      a mounted file system: ext4 over a Loop, or tmpfs
    Recorder   the program flushlog (flushlog.c): a file that logs the writes and flushes it gets
    Recording  the log of a Recorder, and the images a power cut at any of its positions would have left
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import pathlib
import shutil
import struct
import subprocess
import time

from patience import BIN, PATIENCE_SECONDS

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = 16
LOOP_CONFIG_BYTES = 304  # struct loop_config: fd, block size, struct loop_info64 of 232 bytes, 64 reserved
LOOP_CONFIG_FLAGS = 8 + 52

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NOLOGFLUSH = 2  # what is not on the disk yet, the journal's own transaction included, is lost

CLONE_NEWNS = 0x00020000

# A process that must not outlive the test process, even a killed one. setpriv is part of util-linux.
DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"]


def what_is_missing(*needs):
    """Why the tests cannot run here, or None. Needs: "mount" (implied by the next), "loop", "ext4", "fuse"; none: processes."""
    for program in ["setpriv", "prlimit"]:
        if shutil.which(program) is None:
            return f"needs {program} (package util-linux)"
    if not needs:
        return None
    if os.geteuid() != 0:
        return "needs root (mounts)"
    if "loop" in needs and not os.path.exists("/dev/loop-control"):
        return "needs loop devices (/dev/loop-control; modprobe loop)"
    if "ext4" in needs and shutil.which("mkfs.ext4") is None:
        return "needs mkfs.ext4 (package e2fsprogs)"
    if "fuse" in needs and not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse (modprobe fuse)"
    if "fuse" in needs and not (BIN / "flushlog").exists():
        return f"needs {BIN / 'flushlog'} (package libfuse3-dev, then configure and build again)"
    return enter_private_mounts()


_private = None


def enter_private_mounts():
    """Gives this process a mount namespace of its own, once. Returns what is missing, or None."""
    global _private
    if _private is None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNS) != 0:
            return f"needs a mount namespace of its own (CAP_SYS_ADMIN): {os.strerror(ctypes.get_errno())}"
        run("mount", "--make-rprivate", "/")
        _private = True
    return None


def run(*command):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


class Loop:
    """A loop device over a file. It clears itself when this object is closed and nobody has it mounted."""

    def __init__(self, path, direct_io=False):
        self.fd = -1
        backing = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            config = bytearray(LOOP_CONFIG_BYTES)
            struct.pack_into("<I", config, 0, backing)
            flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_DIRECT_IO if direct_io else 0)
            struct.pack_into("<I", config, LOOP_CONFIG_FLAGS, flags)
            self._claim(config)
        finally:
            os.close(backing)

    def _claim(self, config):
        # Another process may take the free device first; then the next one is asked for.
        for _ in range(100):
            control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
            try:
                number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            finally:
                os.close(control)
            self.device = f"/dev/loop{number}"
            fd = os.open(self.device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, LOOP_CONFIGURE, bytes(config))
                self.fd = fd
                return
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:
                    raise
                time.sleep(0.01)
        raise OSError("no free loop device in 100 attempts")

    def direct_io(self):
        return pathlib.Path(f"/sys/block/{os.path.basename(self.device)}/loop/dio").read_text().strip() == "1"

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Mount:
    """A mounted file system; `path` is where. Use the functions below to make one."""

    def __init__(self, kind, source, path, options):
        missing = enter_private_mounts()
        assert missing is None, missing
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", kind, "-o", options, source, self.path)
        self.mounted = True

    def close(self):
        """Unmounts. A ring of a process that was killed keeps its files for a moment longer than the process lives."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.mounted:
            try:
                run("umount", self.path)
                self.mounted = False
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def cut_power(self):
        """From now on nothing reaches the disk, and what had not reached it never will."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("<I", NOLOGFLUSH))
        finally:
            os.close(fd)


def mount_tmpfs(path, size):
    return Mount("tmpfs", "kvs-test", path, f"size={size},mode=700")


def mount_ext4(image, path, direct_io=False):
    """Mounts an image; a journal is replayed. The loop device lives as long as the mount."""
    loop = Loop(image, direct_io)
    try:
        return Mount("ext4", loop.device, path, "nodiscard")
    finally:
        loop.close()


class Image:
    """A sparse file with an empty ext4, removed when it is closed: the test's folder outlives the test for a while."""

    def __init__(self, path, size_bytes, *options):
        self.path = pathlib.Path(path)
        with open(path, "xb") as file:
            file.truncate(size_bytes)
        # Nothing is left for the kernel to initialise in the background.
        lazy = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
        run("mkfs.ext4", "-q", "-F", "-b", 4096, "-m", 0, "-E", lazy, *options, path)

    def close(self):
        self.path.unlink()


class Recorder:
    """A running flushlog: `disk` is the file to put a loop device on, `position()` the size of its log in bytes."""

    def __init__(self, image, log, path):
        missing = enter_private_mounts()
        assert missing is None, missing
        self.log = pathlib.Path(log)
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True)
        self.disk = self.path / "disk"
        command = [str(BIN / "flushlog"), str(image), str(log), str(path)]
        self.process = subprocess.Popen(DIES_WITH_US + command, stdin=subprocess.DEVNULL)
        self.log_fd = -1
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.disk.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise OSError(f"flushlog did not start: {command}")
            time.sleep(0.005)
        self.log_fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)

    def position(self):
        """What has been asked of the disk so far is in the log below this position."""
        return os.fstat(self.log_fd).st_size

    def close(self):
        if self.process.poll() is None:
            with contextlib.suppress(OSError):
                run("umount", self.path)
            try:
                self.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(PATIENCE_SECONDS)
                with contextlib.suppress(OSError):
                    run("umount", self.path)
        if self.log_fd >= 0:
            os.close(self.log_fd)
            self.log_fd = -1


class Entry:
    """A request in a recording: `end` is its position, kind WRITE or FLUSH; offset and data for a write."""

    __slots__ = ("kind", "offset", "size", "at", "end")


WRITE, FLUSH = 1, 2
ENTRY_BYTES = 24
CHUNK_BYTES = 65536
SECTOR_BYTES = 512
BLOCK_BYTES = 4096


class Recording:
    """The log of a recorder, and the image from before it.

    build(cut, rng, to) makes the image that a power cut right after entries[:cut] could have left: all that was written
    before the last flush, and of the writes behind it a random part; of a write, sometimes, only some sectors.
    """

    def __init__(self, before, log):
        # The log may still grow behind what is read here.
        with open(log, "rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.entries = []
        at = 0
        while at + ENTRY_BYTES <= len(self.bytes):
            entry = Entry()
            entry.kind, entry.offset, entry.size = struct.unpack_from("<QQQ", self.bytes, at)
            entry.at, entry.end = at + ENTRY_BYTES, at + ENTRY_BYTES + entry.size
            if entry.end > len(self.bytes):
                break
            self.entries.append(entry)
            at = entry.end
        self.before = pathlib.Path(before)
        self.size_bytes = self.before.stat().st_size
        self.first = bytearray(self.before.read_bytes())
        zeros = bytes(CHUNK_BYTES)
        self.used_first = {
            chunk for chunk in range(self.size_bytes // CHUNK_BYTES) if self._chunk(self.first, chunk) != zeros
        }
        self.rewind()

    def rewind(self):
        """Cuts must be built in ascending order; this goes back to the beginning."""
        self.base = bytearray(self.first)
        self.used = set(self.used_first)
        self.applied = 0

    @staticmethod
    def _chunk(image, chunk):
        return image[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]

    def flush_cuts(self):
        """The cuts at which nothing is open: right behind a flush."""
        return [i + 1 for i, entry in enumerate(self.entries) if entry.kind == FLUSH]

    def position(self, cut):
        return self.entries[cut - 1].end if cut > 0 else 0

    def _write(self, image, used, entry, begin, end):
        data = self.bytes[entry.at + begin : entry.at + end]
        offset = entry.offset + begin
        image[offset : offset + len(data)] = data
        used.update(range(offset // CHUNK_BYTES, (offset + len(data) - 1) // CHUNK_BYTES + 1))

    def _torn(self, image, used, entry, rng):
        sectors = range(0, entry.size, SECTOR_BYTES)
        if rng.random() < 0.5:  # a beginning
            kept = sectors[: rng.randrange(len(sectors) + 1)]
        else:
            kept = [sector for sector in sectors if rng.random() < 0.5]
        for sector in kept:
            self._write(image, used, entry, sector, min(sector + SECTOR_BYTES, entry.size))

    def build(self, cut, rng, to, lost=()):
        """Writes the image of a cut to the file `to`. Writes whose index is in `lost` never happened, flush or not."""
        flushed = max((i for i in range(cut) if self.entries[i].kind == FLUSH), default=-1) + 1
        if self.applied > flushed:
            self.rewind()
        for i in range(self.applied, flushed):
            if self.entries[i].kind == WRITE and i not in lost:
                self._write(self.base, self.used, self.entries[i], 0, self.entries[i].size)
        self.applied = flushed
        open_writes = [i for i in range(flushed, cut) if self.entries[i].kind == WRITE and i not in lost]
        with open(to, "w+b") as file:
            file.truncate(self.size_bytes)
            with mmap.mmap(file.fileno(), self.size_bytes) as image:
                for chunk in self.used:
                    image[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES] = self._chunk(self.base, chunk)
                used = set()
                for i in open_writes:
                    fate = rng.random()
                    if fate < 0.45:
                        self._write(image, used, self.entries[i], 0, self.entries[i].size)
                    # The file system's superblock lies across two sectors: ext4 cannot be mounted with half of one.
                    elif fate < 0.65 and self.entries[i].offset >= BLOCK_BYTES:
                        self._torn(image, used, self.entries[i], rng)
        return len(open_writes)

    def close(self):
        self.bytes.close()
