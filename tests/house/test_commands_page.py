"""docs/COMMANDS.md says what the tables of commands say."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def load_script():
    spec = importlib.util.spec_from_file_location("commands_page", ROOT / "scripts" / "commands_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_made_of_the_tables():
    script = load_script()
    page = script.make_page(script.read_tables(ROOT / "src" / "node"))
    assert script.PAGE.read_text() == page, "run scripts/commands_page.py --write"


def test_page_follows_the_tables():
    script = load_script()
    commands = script.read_tables(ROOT / "src" / "node")
    page = script.make_page(commands)
    assert "| `GET` | read | 1.0.0 |" in page and "`CONFIG`" in page and "`RESETSTAT`" in page
    without = script.make_page([command for command in commands if command["name"] != "get"])
    assert "| `GET` |" not in without and "`GET`" in without.split("Not offered")[1]
