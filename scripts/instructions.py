#!/usr/bin/env python3
"""Counts the instructions of decode, match, deliver and commit, and compares them with bench/instructions.json.

    scripts/instructions.py check     exit 1 when a count has grown past its margin
    scripts/instructions.py record    write the present counts
    scripts/instructions.py show      print the present counts

Each scenario of tests/src/bin/instructions.rs runs under callgrind with two iteration counts; the difference, divided by
the iterations between them, is the cost of one. Counts do not depend on the machine's load. They depend on the toolchain,
the release profile and the target, so a record holds for those in its file alone, and a little on the C library,
the CPU's vector instructions and random hash seeds, hence the margins.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "bench" / "instructions.json"

# Scenario: iterations of the short and the long run, what is counted per iteration, margin in percent.
SCENARIOS = {
    "decode": (1_000, 101_000, 1, 5, "small PUBLISH 3.1.1 QoS 0, decoded and validated"),
    "match": (1_000, 101_000, 1, 5, "receivers of a topic among 10,000 filters, uncached"),
    "deliver": (1_000, 101_000, 1, 5, "QoS 0 PUBLISH from bytes in to one subscriber's bytes out"),
    "deliver_guarded": (1_000, 101_000, 1, 5, "the same with an ACL of 200 rules and every limit on"),
    "deliver_q1": (1_000, 101_000, 1, 5, "the same with QoS 1 and both acknowledgements"),
    "commit": (20, 520, 100, 10, "a message and its acknowledgement in commits of 100, redb in memory"),
}


def main():
    if sys.argv[1:] not in (["check"], ["record"], ["show"]):
        sys.exit(__doc__)
    program = build()
    counts = {name: count(program, name) for name in SCENARIOS}
    if sys.argv[1] == "record":
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(record(counts), indent=2) + "\n")
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if sys.argv[1] == "check":
        sys.exit(compare(counts, known))
    for name, figure in counts.items():
        print(f"{name:12}{figure:12,.1f}  {SCENARIOS[name][4]}")


def build():
    """Builds the scenarios; the path comes from cargo, whatever the target directory is."""
    command = ["cargo", "build", "--release", "-p", "motemq-tests", "--bin", "instructions"]
    messages = subprocess.run(
        [*command, "--message-format=json-render-diagnostics"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    for line in messages.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "instructions":
            return message["executable"]
    sys.exit("cargo built no instructions")


def count(program, name):
    short, long, per_iteration, _, _ = SCENARIOS[name]
    difference = run(program, name, long) - run(program, name, short)
    return round(difference / (long - short) / per_iteration, 1)


def run(program, name, iterations):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, name, str(iterations)]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not collected:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return int(collected[1])


def record(counts):
    return {
        "unit": "instructions",
        "toolchain": toolchain(),
        "target": target(),
        "counts": counts,
    }


def toolchain():
    return subprocess.run(["rustc", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def target():
    return f"{platform.machine()}-{platform.system().lower()}, release profile of Cargo.toml"


def compare(counts, known):
    """Prints the table and returns the exit code."""
    if not known:
        print(f"{RECORD} is missing: write it with scripts/instructions.py record")
        return 1
    if (known["toolchain"], known["target"]) != (toolchain(), target()):
        print(f"recorded with {known['toolchain']} on {known['target']}, here is {toolchain()} on {target()}:")
        print("the counts are not comparable; record them anew with scripts/instructions.py record")
        return 1
    print(f"{'instructions':14}{'recorded':>12}{'now':>12}{'change':>10}{'margin':>9}")
    failed = []
    for name, now in counts.items():
        margin = SCENARIOS[name][3]
        before = known["counts"].get(name)
        if before is None:
            failed.append(name)
            print(f"{name:14}{'none':>12}{now:12,.1f}")
            continue
        change = 100 * (now / before - 1)
        verdict = ""
        if change > margin:
            failed.append(name)
            verdict = "  GREW"
        elif change < -margin:
            verdict = "  shrank: record it"
        print(f"{name:14}{before:12,.1f}{now:12,.1f}{change:+9.1f}%{margin:8}%{verdict}")
    if failed:
        print(f"more instructions than recorded: {', '.join(failed)}. Find out why; if it is worth it, record and say so in the commit.")
    return 1 if failed else 0


main()
