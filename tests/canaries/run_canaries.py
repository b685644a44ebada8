#!/usr/bin/env python3
"""Wakes each deliberate bug of src/base/canary.h in turn and shows which test catches it, and how soon.

First every layer runs with all canaries asleep and must pass: else the harness is broken, and nothing can be learnt from
it. Then, for each canary, the layers run in the order of their cost until one fails. A canary that no layer catches is a
hole in the tests.

Layers: unit (tests/unit), sim (kvs-sim, seeds from 1 on), exhaustive (tests/unit/test_store_exhaustive), kernel
(tests/kernel), blackbox, crash (power loss on real file systems). A layer that has no tests in this build is left out.

Exit codes: 0 every canary was caught, 1 some survived, 2 the harness is broken or the command line makes no sense.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "src/base/canary.h"
LAYERS = ["unit", "sim", "exhaustive", "kernel", "blackbox", "crash"]
PROMISES = {f"P{number}" for number in range(1, 11)}

# A test with a canary awake may take this much longer than without, and this many seconds more, before it counts as
# hung.
SLOWER = 6
SECONDS_MORE = 20


class Broken(Exception):
    """The harness is broken: the message says how."""


# ---- what there is ----


def read_canaries(text):
    """[(name, promise, what it does)] of the X-macro list."""
    entry = re.compile(r'^\s*X\(\s*(\w+),\s*(\w+),\s*"((?:[^"\\]|\\.)*)"\)', re.MULTILINE)
    canaries = [match.groups() for match in entry.finditer(text)]
    names = [name for name, _, _ in canaries]
    if len(canaries) != len(re.findall(r"^\s*X\(", text, re.MULTILINE)):
        raise Broken(f"{LIST}: an entry of the list is not of the form X(NAME, P1, \"text\")")
    if len(set(names)) != len(names) or not {promise for _, promise, _ in canaries} <= PROMISES:
        raise Broken(f"{LIST}: a name is there twice, or a promise is not one of P1..P10")
    return canaries


class Test:
    """A test as ctest knows it."""

    def __init__(self, name, command, properties):
        self.name = name
        self.command = command
        self.environment = dict(line.split("=", 1) for line in properties.get("ENVIRONMENT", []))
        self.skipped_when = properties.get("SKIP_REGULAR_EXPRESSION", [])
        self.skipped = False  # it found that it cannot run here
        self.seconds = None  # it takes with all canaries asleep

    def limit(self):
        return 900 if self.seconds is None else SLOWER * self.seconds + SECONDS_MORE


def layer_of(name):
    folder, _, rest = name.partition(".")
    if "exhaustive" in rest:
        return "exhaustive"
    return folder if folder in ("unit", "kernel", "blackbox", "crash") else None


def find_tests(build, leave_out=None):
    """Tests by layer, from ctest; `sim` has none, for kvs-sim is run with options of its own."""
    shown = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True)
    if shown.returncode != 0:
        raise Broken(f"ctest knows no tests in {build}: {shown.stderr.strip()}")
    tests = {layer: [] for layer in LAYERS}
    for test in json.loads(shown.stdout)["tests"]:
        properties = {entry["name"]: entry["value"] for entry in test.get("properties", [])}
        if layer_of(test["name"]) is None or (leave_out and re.search(leave_out, test["name"])):
            continue
        if "command" in test:
            tests[layer_of(test["name"])].append(Test(test["name"], test["command"], properties))
        else:
            print(f"{test['name']} is not built and is left out", file=sys.stderr)
    return tests


# ---- running ----


class Run:
    """One test under way, in a session and a folder of its own."""

    def __init__(self, test, canary):
        self.test = test
        self.folder = tempfile.mkdtemp(prefix="kvs-canary-")
        self.output = open(Path(self.folder) / "output", "w+b")
        environment = {**os.environ, **test.environment, "TMPDIR": self.folder, "PYTHONUNBUFFERED": "1"}
        environment.pop("KVS_CANARY", None)
        if canary is not None:
            environment["KVS_CANARY"] = canary
        self.started = time.monotonic()
        # Line by line: what a test has printed before it died says where it was.
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", *test.command], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.hung = False

    def seconds(self):
        return time.monotonic() - self.started

    def poll(self):
        """True when it has ended, perhaps because it took too long."""
        if self.process.poll() is not None:
            return True
        if self.seconds() > self.test.limit():
            self.hung = True
            self.stop()
            return True
        return False

    def stop(self):
        """Python tests are asked first: they have programs to end."""
        for how, wait_seconds in ((signal.SIGINT, 10), (signal.SIGKILL, 10)):
            if how == signal.SIGINT and "pytest" not in self.test.command:
                continue
            try:
                os.killpg(self.process.pid, how)
                self.process.wait(wait_seconds)
                return
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self.process.wait()

    def failed(self):
        return self.hung or self.process.returncode != 0

    def text(self):
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def close(self):
        self.output.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def culprit(output, name):
    """The single test inside a program that failed, as far as its output tells."""
    for pattern in (r"^\[  FAILED  \] (test_\w+)$", r"^FAILED \S+::(\S+)"):
        match = re.search(pattern, output, re.MULTILINE)
        if match:
            return f"{name}: {match.group(1)}"
    running = re.findall(r"^\[ RUN      \] (\w+)", output, re.MULTILINE)
    return f"{name}: {running[-1]}" if running else name


def reason(output):
    """One line that says what was noticed first."""
    notices = r"assertion failed at (.*)|^\[  ERROR   \] --- (.*)|^E +(\S.*)|(ERROR: \w*Sanitizer: .*)"
    match = re.search(notices, output, re.MULTILINE)
    return match.group(match.lastindex)[:160] if match else ""


def run_tests(tests, canary, jobs, all_of_them=False):
    """Runs tests side by side until one fails (with all_of_them: to the end). Returns the failures as (what, why)."""
    waiting = sorted(tests, key=lambda test: test.seconds or 0)
    running, failures = [], []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Run(waiting.pop(0), canary))
            time.sleep(0.005)
            for run in [run for run in running if run.poll()]:
                running.remove(run)
                output = run.text()
                if canary is None:
                    run.test.seconds = run.seconds()
                    run.test.skipped = any(re.search(pattern, output) for pattern in run.test.skipped_when)
                if run.failed():
                    what = culprit(output, run.test.name)
                    failures.append((what + (" (hung)" if run.hung else ""), reason(output)))
                run.close()
            if failures and not all_of_them:
                break
    finally:
        for run in running:
            run.stop()
            run.close()
    return failures


def run_sim(build, canary, options):
    """Runs kvs-sim. Returns (failures, runs it took)."""
    environment = {**os.environ}
    environment.pop("KVS_CANARY", None)
    if canary is not None:
        environment["KVS_CANARY"] = canary
    command = [
        f"{build}/kvs-sim", "--seeds", f"1..{options.sim_seeds}", "--minutes", f"{options.sim_seconds / 60:.3f}",
        "--jobs", str(options.jobs), "--max-failures", "1", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    try:
        result = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise Broken(f"kvs-sim ended with {done.returncode} and no summary: {done.stderr.strip()[-300:]}") from None
    failures = []
    for failure in sorted(result["failures"], key=lambda failure: failure["seed"]):
        why = re.search(r"^broken: .*|assertion failed at .*", failure["text"], re.MULTILINE)
        failures.append((f"seed {failure['seed']}", why.group()[:160] if why else failure["reason"]))
    return failures, result["runs"]


def run_layer(layer, tests, build, canary, options):
    """A dictionary that says how a layer went."""
    begin = time.monotonic()
    runs = None
    if layer == "sim":
        failures, runs = run_sim(build, canary, options)
    else:
        failures = run_tests(tests[layer], canary, options.jobs, all_of_them=canary is None)
    outcome = {"layer": layer, "seconds": round(time.monotonic() - begin, 1), "caught": bool(failures)}
    if runs is not None:
        outcome["runs"] = runs
    if failures:
        outcome["by"], outcome["why"] = failures[0]
        outcome["all"] = [what for what, _ in failures]
    return outcome


# ---- the harness ----


def prepare(build, no_build):
    if not no_build:
        if not (build / "CMakeCache.txt").exists():
            subprocess.run(["cmake", "--preset", "canaries", "-B", build], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["cmake", "--build", build], check=True, stdout=subprocess.DEVNULL)
    if "KVS_CANARIES:BOOL=ON" not in (build / "CMakeCache.txt").read_text():
        raise Broken(f"{build} is not built with -DKVS_CANARIES=ON")
    refused = subprocess.run(
        [build / "kvs-node", "--help"], env={**os.environ, "KVS_CANARY": "NO_SUCH_BIRD"}, capture_output=True, text=True
    )
    if refused.returncode == 0 or "there is no canary of that name" not in refused.stderr:
        raise Broken(f"{build}/kvs-node does not look at KVS_CANARY")


def check_absent(program, canaries):
    """A program for production must not know the word."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare"
        subprocess.run(["objcopy", "--strip-debug", program, bare], check=True)
        content = bare.read_bytes()
    found = [word for word in ["canary_", "KVS_CANARY"] + [name for name, _, _ in canaries] if word.encode() in content]
    if found:
        raise Broken(f"{program} holds traces of canaries: {', '.join(found)}")


def check_asleep(layers, tests, build, options):
    for layer in layers:
        say(f"{layer}, all canaries asleep")
        outcome = run_layer(layer, tests, build, None, options)
        if outcome["caught"]:
            raise Broken(f"{layer} fails with all canaries asleep: {', '.join(outcome['all'])} ({outcome['why']})")
        say(f"{layer}, all canaries asleep: passed in {outcome['seconds']} s\n")
        for test in [test for test in tests[layer] if test.skipped]:
            tests[layer].remove(test)
            print(f"{test.name} cannot run here and is left out", file=sys.stderr)


def try_canary(canary, layers, tests, build, options):
    name, promise, what = canary
    outcomes = []
    for layer in layers:
        say(f"{name}: {layer}")
        outcomes.append(run_layer(layer, tests, build, name, options))
        if outcomes[-1]["caught"] and not options.all_layers:
            break
    return {"name": name, "promise": promise, "what": what, "layers": outcomes}


# ---- telling ----


def say(text):
    """Progress, on one line of standard error."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    elif not text.endswith("\n"):
        return
    sys.stderr.write(text)
    sys.stderr.flush()


def describe(outcome):
    text = f"{outcome['layer']}: {outcome['by'].removeprefix(outcome['layer'] + '.')}"
    return text + (f" of {outcome['runs']} runs" if "runs" in outcome else "")


def table(results, all_layers):
    lines = ["| canary | promise | what it does | caught by | seconds |", "|---|---|---|---|---:|"]
    for result in results:
        caught = [outcome for outcome in result["layers"] if outcome["caught"]]
        seconds = sum(outcome["seconds"] for outcome in result["layers"])
        by = "; ".join(describe(outcome) for outcome in caught) or "**nothing**"
        if all_layers:
            missed = [outcome["layer"] for outcome in result["layers"] if not outcome["caught"]]
            by += f" (not by {', '.join(missed)})" if caught and missed else ""
        lines.append(f"| {result['name']} | {result['promise']} | {result['what']} | {by} | {seconds:.1f} |")
    return "\n".join(lines)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/canaries", help="a build with KVS_CANARIES=ON")
    parser.add_argument("--no-build", action="store_true", help="take the build as it is")
    parser.add_argument("--release", type=Path, help="a program that must hold no trace of a canary")
    parser.add_argument("--only", action="append", metavar="NAME", help="this canary; may be given again")
    parser.add_argument("--layers", default=",".join(LAYERS), help="default: %(default)s")
    parser.add_argument("--leave-out", metavar="REGEX", help="tests that do not count, such as crash.test_limits")
    parser.add_argument("--all-layers", action="store_true", help="go on with the next layer when one has caught it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="tests side by side; default: %(default)s")
    parser.add_argument("--sim-seeds", type=int, default=100000)
    parser.add_argument("--sim-seconds", type=float, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too, after each canary")
    options = parser.parse_args()
    options.layers = options.layers.split(",")
    if not set(options.layers) <= set(LAYERS):
        parser.error(f"layers are {', '.join(LAYERS)}")
    options.build = options.build.resolve()
    return options


def choose(canaries, names):
    if not names:
        return canaries
    unknown = set(names) - {name for name, _, _ in canaries}
    if unknown:
        raise Broken(f"no such canary: {', '.join(sorted(unknown))}")
    return [canary for canary in canaries if canary[0] in names]


def main():
    options = parse_options()
    try:
        canaries = choose(read_canaries(LIST.read_text()), options.only)
        prepare(options.build, options.no_build)
        if options.release:
            check_absent(options.release, canaries)
        tests = find_tests(options.build, options.leave_out)
        there = {layer for layer in LAYERS if tests[layer]}
        if (options.build / "kvs-sim").exists():
            there.add("sim")
        layers = [layer for layer in LAYERS if layer in options.layers and layer in there]
        check_asleep(layers, tests, options.build, options)
        results = []
        for canary in canaries:
            results.append(try_canary(canary, layers, tests, options.build, options))
            last = results[-1]["layers"][-1]
            caught = any(outcome["caught"] for outcome in results[-1]["layers"])
            say(f"{canary[0]}: {describe(last) + ', ' + last['why'] if last['caught'] else 'caught' if caught else 'SURVIVES'}\n")
            if options.json:
                options.json.write_text(json.dumps(results, indent=1) + "\n")
    except (Broken, subprocess.CalledProcessError) as error:
        say("")
        print(f"The harness is broken: {error}", file=sys.stderr)
        return 2
    print(table(results, options.all_layers))
    survivors = [result["name"] for result in results if not any(outcome["caught"] for outcome in result["layers"])]
    print(f"\n{len(results) - len(survivors)} of {len(results)} caught by {', '.join(layers)}.")
    if survivors:
        print(f"Survivors: {', '.join(survivors)}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
