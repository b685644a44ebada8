"""What all tests of the real programs share: where the programs are, and how long to wait for what they do.

The folder of the programs is in the environment variable KVS_BIN (ctest sets it).
"""

import os
import pathlib
import time

BIN = pathlib.Path(os.environ.get("KVS_BIN", "build"))

# How long to wait for what must happen, before it is taken for what never does. A machine with nothing else to do needs a
# hundredth of it, so one that is slow, busy or halted for seconds still passes; only a test that fails waits so long.
PATIENCE_SECONDS = 120


def wait_for(condition, what):
    """Polls until condition() is true and returns its value. `what` says what was waited for, or is a function that does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what() if callable(what) else what}"
        time.sleep(0.005)
