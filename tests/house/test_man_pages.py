"""The manual pages say what the programs do: each option that --help lists is in the page, and no other."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("KVS_BIN", ROOT / "build" / "release"))
PAGES = sorted((ROOT / "docs" / "man").iterdir())

# In --help: of a line that describes options, before what follows two spaces; or anywhere, but not as a part of a word.
LONG_IN_HELP = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SHORT_IN_HELP = re.compile(r"^ +(-[A-Za-z]),", re.MULTILINE)
IN_PAGE = re.compile(r"\bFl (-?[A-Za-z][A-Za-z-]*)")


def options_of_help(text):
    return set(LONG_IN_HELP.findall(text)) | set(SHORT_IN_HELP.findall(text))


def options_of_page(text):
    """Those that have an item of their own."""
    items = "\n".join(line for line in text.splitlines() if line.startswith(".It "))
    return {"-" + option for option in IN_PAGE.findall(items)}


def complaints(page, help_text):
    wanted, found = options_of_help(help_text), options_of_page(page)
    return [f"{option} is not in the page" for option in sorted(wanted - found)] + [
        f"{option} is not in --help" for option in sorted(found - wanted)
    ]


def test_there_is_a_page_for_every_program_that_is_installed():
    installed = re.search(r"install\(TARGETS ([^)]*) RUNTIME", (ROOT / "cmake" / "install.cmake").read_text())
    assert sorted(installed[1].split()) == sorted(page.stem for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_and_help_agree(page):
    program = BIN / page.stem
    if not program.exists():
        pytest.skip(f"{program} is not built")
    help_text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert complaints(page.read_text(), help_text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_is_well_formed(page):
    assert f".Dt {page.stem.upper()} {page.suffix[1:]}\n" in page.read_text()
    checks = []
    if shutil.which("mandoc"):
        checks.append(["mandoc", "-T", "lint", "-W", "warning", page])
    if shutil.which("man") and shutil.which("groff"):
        checks.append(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page])
    if not checks:
        pytest.skip("neither mandoc nor man and groff are installed")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"}
    for check in checks:
        said = subprocess.run(check, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, timeout=60)
        shown = said.stderr.decode() + (said.stdout.decode() if check[0] == "mandoc" else "")
        assert (said.returncode, shown) == (0, "")


def test_the_checks_complain():
    help_text = "Usage: it [OPTION]\n  --fast N   go\n  -h, --help  this\n"
    page = ".It Fl -fast Ar n\nText.\n.It Fl h , Fl -help\n"
    assert complaints(page, help_text) == []
    assert complaints(page, help_text + "  --slow\n") == ["--slow is not in the page"]
    assert complaints(page + ".It Fl -slow\n", help_text) == ["--slow is not in --help"]
    assert complaints(page + "Not an item: Fl -slow\n", help_text) == []
    assert complaints(page.replace("Fl h , ", ""), help_text) == ["-h is not in the page"]
