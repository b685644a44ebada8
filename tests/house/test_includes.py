"""The house rules that a program can hold the code to: who may include whom, who may talk to the kernel, names, sizes.

Each rule is a function of a path and a text that returns complaints, so that the tests at the end can show that it does
complain.
"""

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Folder -> folders whose headers it may include, besides its own.
MAY_INCLUDE = {
    "src/base": set(),
    "src/ring": {"base"},
    "src/proto": {"base"},
    "src/engine": {"base", "ring"},
    "src/compaction": {"base", "ring", "engine"},
    "src/net": {"base", "ring", "proto"},
    "src/client": {"base", "ring", "proto"},
    "src/node": {"base", "ring", "proto", "engine", "compaction", "net", "client"},
    "tools": {"base", "ring", "proto", "engine", "client"},
}

LINES_MAX = 800
MAY_SHARE_A_NAME = {"CMakeLists.txt", "README.md", "REPORT.md", "Makefile", "conftest.py", "__init__.py", ".gitignore"}
NOT_OURS = {".git", "build", "kvs-data", "__pycache__", ".cache", ".pytest_cache"}

# What reaches the outside; ring.h offers all of it that is needed. The tools may touch files, but share its clock.
CLOCK_AND_CHANCE = """
    time clock clock_gettime clock_nanosleep gettimeofday nanosleep usleep sleep timerfd_create
    rand random srand srandom rand_r drand48 getrandom getentropy arc4random
""".split()
SOCKETS = """
    socket bind listen accept accept4 connect send sendto sendmsg recv recvfrom recvmsg shutdown
    poll ppoll select epoll_wait epoll_create1 eventfd
""".split()
FILES = """
    open openat open64 creat fopen freopen fdopen close read write pread pwrite readv writev preadv pwritev preadv2 pwritev2
    fsync fdatasync sync_file_range fallocate posix_fallocate ftruncate truncate lseek flock
    rename renameat renameat2 unlink unlinkat remove mkdir mkdirat rmdir opendir readdir stat fstat lstat fstatat statx
    fork system popen
""".split()
MAY_REACH_OUTSIDE = {
    "src/base/diag.c": "the operator must hear of it even when the ring is broken",
    "src/node/machine.c": "reads what /proc and /sys say about the machine, before there is a ring",
}

COMMENT_OR_TEXT = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)


def folder_of(path):
    """The folder of MAY_INCLUDE that a path lies in, or None."""
    for folder in MAY_INCLUDE:
        if path.startswith(folder + "/"):
            return folder
    return None


def includes(text):
    return [(mark, name) for mark, name in INCLUDE.findall(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))]


def include_complaints(path, text):
    """Project headers are included as "folder/name.h", and only from the folders of the table."""
    folder = folder_of(path)
    if folder is None:
        return [f"{path}: lies in no folder of the table in {Path(__file__).name}"] if path.startswith("src/") else []
    complaints = []
    for mark, name in includes(text):
        target, slash, _ = name.partition("/")
        if mark == "<":
            if "src/" + target in MAY_INCLUDE and slash:
                complaints.append(f'{path}: <{name}> is ours: include it as "{name}"')
        elif not slash:
            if folder != "tools":
                complaints.append(f'{path}: "{name}" lacks its folder')
        elif folder != "src/" + target and target not in MAY_INCLUDE[folder]:
            complaints.append(f'{path}: "{name}": {folder} may include only {sorted(MAY_INCLUDE[folder]) or "nothing"}')
    return complaints


def liburing_complaints(path, text):
    """One door to the kernel: whoever else includes liburing cannot be simulated."""
    if re.fullmatch(r"src/ring/(ring_uring\w*\.[ch]|ring_check\.c)", path) or path.startswith("perf/"):
        return []
    return [f"{path}: <{name}> belongs in src/ring only" for _, name in includes(text) if name.startswith("liburing")]


def private_header_complaints(path, text):
    """x_internal.h and ring_backend.h are for their own folder and for tests."""
    complaints = []
    for mark, name in includes(text):
        folder, slash, file = name.rpartition("/")
        private = file.endswith("_internal.h") or file == "ring_backend.h"
        if mark == '"' and slash and private and not path.startswith((f"src/{folder}/", "tests/")):
            complaints.append(f'{path}: "{name}" is private to src/{folder}')
    return complaints


def outside_complaints(path, text):
    """Everything that touches the outside goes through ring.h, or the simulator tests something else than what runs."""
    if path in MAY_REACH_OUTSIDE or path.startswith("src/ring/") or not path.startswith(("src/", "tools/")):
        return []
    forbidden = CLOCK_AND_CHANCE + SOCKETS + ([] if path.startswith("tools/") else FILES)
    code = COMMENT_OR_TEXT.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
    return [
        f"{path}:{code.count(chr(10), 0, match.start()) + 1}: {match.group(1)}() goes through ring.h"
        for match in re.finditer(r"(?<![\w.>])(" + "|".join(forbidden) + r")\s*\(", code)
    ]


def size_complaints(path, text):
    lines = text.count("\n")
    return [f"{path}: {lines} lines, {LINES_MAX} at most: look for the second thing it does"] if lines > LINES_MAX else []


def name_complaints(paths):
    """A file's name says which file is meant."""
    places = defaultdict(list)
    for path in paths:
        places[path.rpartition("/")[2]].append(path)
    return [
        f"{name}: {' and '.join(sorted(where))}"
        for name, where in sorted(places.items())
        if len(where) > 1 and name not in MAY_SHARE_A_NAME
    ]


def all_paths():
    for path in sorted(ROOT.rglob("*")):
        relative = path.relative_to(ROOT)
        if path.is_file() and not NOT_OURS.intersection(relative.parts):
            yield relative.as_posix()


def complaints_of(rule):
    found = []
    for path in all_paths():
        if path.endswith((".c", ".h")) and path.startswith(("src/", "tools/", "tests/", "bench/", "perf/")):
            found += rule(path, (ROOT / path).read_text())
    return found


# ---- the code ----


def test_there_is_code_to_look_at():
    paths = list(all_paths())
    assert "src/base/error.h" in paths and "src/ring/ring.h" in paths
    for path in paths:
        if path.endswith((".c", ".h")) and path.startswith("src/"):
            assert folder_of(path), f"{path}: add its folder to the table"
    assert set(MAY_REACH_OUTSIDE) <= set(paths), "an exception for a file that is gone"


def test_includes_follow_the_table():
    assert complaints_of(include_complaints) == []


def test_liburing_stays_in_the_ring():
    assert complaints_of(liburing_complaints) == []


def test_private_headers_stay_in_their_folder():
    assert complaints_of(private_header_complaints) == []


def test_the_outside_is_reached_through_the_ring():
    assert complaints_of(outside_complaints) == []


def test_files_are_short():
    assert complaints_of(size_complaints) == []


def test_file_names_are_unique():
    assert name_complaints(all_paths()) == []


# ---- the rules themselves: what they must find, and what they must leave alone ----


def test_include_rule_complains():
    for path, text in [
        ("src/base/x.c", '#include "ring/ring.h"\n'),
        ("src/proto/x.c", '#include "ring/ring.h"\n'),
        ("src/engine/x.h", '  #  include "proto/resp.h"\n'),
        ("src/engine/x.c", '#include "compaction/policy.h"\n'),
        ("src/net/x.c", '#include "engine/engine.h"\n'),
        ("src/client/x.c", '#include "engine/engine.h"\n'),
        ("tools/x.c", '#include "node/config.h"\n'),
        ("src/net/x.c", '#include "net.h"\n'),
        ("src/net/x.c", "#include <ring/ring.h>\n"),
        ("src/other/x.c", "\n"),
    ]:
        assert len(include_complaints(path, text)) == 1, (path, text)


def test_include_rule_leaves_alone():
    for path, text in [
        ("src/base/x.c", '#include "base/error.h"\n#include <sys/uio.h>\n'),
        ("src/node/x.c", '#include "engine/engine.h"\n#include "net/net.h"\n'),
        ("src/proto/x.c", '/*\n#include "ring/ring.h"\n*/\n'),
        ("tools/x.c", '#include "loadgen.h"\n#include "client/kvs.h"\n'),
        ("tests/unit/x.c", '#include "engine/engine.h"\n'),
    ]:
        assert include_complaints(path, text) == [], (path, text)


def test_liburing_rule_complains():
    text = "#include <liburing.h>\n"
    for path in ["src/net/net.c", "src/ring/ring.c", "tests/sim/ring_sim.c", "tools/x.c"]:
        assert len(liburing_complaints(path, text)) == 1, path
    assert len(liburing_complaints("src/net/net.c", "#include <liburing/io_uring.h>\n")) == 1
    for path in ["src/ring/ring_uring.c", "src/ring/ring_uring_internal.h", "src/ring/ring_check.c"]:
        assert liburing_complaints(path, text) == [], path


def test_private_header_rule_complains():
    assert len(private_header_complaints("src/node/x.c", '#include "engine/engine_internal.h"\n')) == 1
    assert len(private_header_complaints("tools/x.c", '#include "ring/ring_backend.h"\n')) == 1
    for path in ["src/ring/x.c", "tests/sim/x.c", "tests/unit/x.c"]:
        assert private_header_complaints(path, '#include "ring/ring_backend.h"\n') == [], path


def test_outside_rule_complains():
    for call in ["time(NULL);", "x = clock_gettime(a, b);", "(void)rand ();", "!open(path, 0)", "pwrite\n(fd)", "fopen(a)"]:
        assert len(outside_complaints("src/engine/x.c", f"int f(void)\n{{\n    {call}\n}}\n")) == 1, call
    assert outside_complaints("src/node/x.c", "\n\n/* a\n */ usleep(1);") == ["src/node/x.c:4: usleep() goes through ring.h"]


def test_outside_rule_leaves_alone():
    for text in ["ring_open(x);", "op->open(x);", "op.read(x);", "/* open(x) */", 'f("open(x)");', "// time()", "reopen(x)"]:
        assert outside_complaints("src/engine/x.c", text) == [], text
    for path in ["src/ring/ring_uring.c", "src/base/diag.c", "tests/unit/x.c", "tools/x.c"]:
        assert outside_complaints(path, "open(x);") == [], path
    assert len(outside_complaints("tools/x.c", "time(NULL); connect(x);")) == 2


def test_size_rule_complains():
    assert len(size_complaints("src/base/x.c", "\n" * (LINES_MAX + 1))) == 1
    assert size_complaints("src/base/x.c", "\n" * LINES_MAX) == []


def test_name_rule_complains():
    assert len(name_complaints(["src/a/x.c", "src/b/x.c", "src/b/y.c"])) == 1
    assert name_complaints(["src/a/x.c", "src/a/CMakeLists.txt", "src/b/CMakeLists.txt"]) == []
