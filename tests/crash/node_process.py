"""A kvs-node as a process of the test's: started, waited for, stopped, killed."""

import pathlib
import re
import signal
import subprocess
import time

from disks import DIES_WITH_US
from patience import BIN, PATIENCE_SECONDS

LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")


class NodeProcess:
    """Starts at once; wait_until_serving() sets `port`. log_text() is what it has said so far.

    prefix  a command that runs the node, such as prlimit with a limit
    """

    def __init__(self, data_dir, log_path, *flags, threads=1, memory="64M", segment="1M", prefix=()):
        self.log_path = pathlib.Path(log_path)
        self.port = None
        command = [*DIES_WITH_US, *prefix, BIN / "kvs-node", "--data-dir", data_dir, "--addr", "127.0.0.1:0"]
        command += ["--threads", threads, "--memory", memory, "--segment-size", segment, *flags]
        self.command = [str(word) for word in command]
        with open(self.log_path, "ab") as log:
            self.log_begin = log.tell()
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)

    def log_text(self):
        with open(self.log_path, "rb") as log:
            log.seek(self.log_begin)
            return log.read().decode("utf-8", "replace")

    def alive(self):
        return self.process.poll() is None

    def wait_until_serving(self):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            alive = self.alive()
            found = LISTENING.search(self.log_text())
            if found:
                self.port = int(found.group(1))
                return self
            assert alive, f"kvs-node ended with {self.process.returncode}: {self.command}\n{self.log_text()}"
            assert time.monotonic() < deadline, f"kvs-node does not serve: {self.command}\n{self.log_text()}"
            time.sleep(0.002)

    def wait(self):
        return self.process.wait(PATIENCE_SECONDS)

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """In order, with exit code 0."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"kvs-node ended with {code} after SIGTERM\n{self.log_text()}"

    def kill(self):
        """SIGKILL; returns when the process is gone."""
        if self.alive():
            self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
