"""Fixtures for the tests that crash a real node on real file systems.

  disks(object)          remembers a thing of disks.py (or anything with close()) and closes it at the end, last one first
  start_node(data_dir, *flags, wait=True, …) -> NodeProcess
  scratch                a tmpfs of the test's own, in memory: fast, and gone with the test process

A test file says what it needs of the machine: `pytestmark = needs("loop", "ext4")`. What lacks is said loudly: the tests are
skipped, with a line at the end of the output that ctest takes for "skipped" too. With KVS_REQUIRE_ALL=1 they fail.
The folder of the programs is in KVS_BIN.
"""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from disks import mount_tmpfs, what_is_missing
from node_process import NodeProcess

REQUIRE_ALL = os.environ.get("KVS_REQUIRE_ALL", "") not in ("", "0")


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(*things): what the machine must offer, see disks.what_is_missing")


def pytest_runtest_setup(item):
    for marker in item.iter_markers("needs"):
        missing = what_is_missing(*marker.args)
        if missing is not None:
            (pytest.fail if REQUIRE_ALL else pytest.skip)(missing)


def pytest_terminal_summary(terminalreporter):
    stats = terminalreporter.stats
    for report in stats.get("skipped", []):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"NOT RUN: {report.nodeid}: {reason}")
    if stats.get("skipped") and not stats.get("failed") and not stats.get("error"):
        terminalreporter.write_line("KVS-TESTS-SKIPPED")


@pytest.fixture
def disks():
    """See the head of this file."""
    opened = []

    def remember(thing):
        opened.append(thing)
        return thing

    yield remember
    errors = []
    while opened:
        try:
            opened.pop().close()
        except Exception as error:  # the others must be closed all the same
            errors.append(error)
    assert errors == []


@pytest.fixture
def scratch(disks, tmp_path):
    return disks(mount_tmpfs(tmp_path / "scratch", "2g")).path


@pytest.fixture
def start_node(disks, tmp_path):
    """Depends on `disks`, so that nodes end before their disks do."""
    nodes = []

    def start(data_dir, *flags, wait=True, **options):
        node = NodeProcess(data_dir, tmp_path / "node.log", *flags, **options)
        nodes.append(node)
        return node.wait_until_serving() if wait else node

    yield start
    for node in nodes:
        node.kill()
