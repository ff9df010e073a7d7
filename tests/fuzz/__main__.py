"""`python -m tests.fuzz --seconds N`: atheris on each target, one after the other.

The last line is `fuzz: image 123 456, … inputs tried; F findings`; the exit code is 1 where there is a finding. The input
of a finding is kept in the folder that is named; one that is mended belongs into the corpus.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import CORPUS, TARGETS

EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)|Done (\d+) runs|#(\d+)\s")
# A target that hangs is ended by atheris itself, as a finding.
HANG_SECONDS = 30
LARGEST_INPUT = 16_384
GRACE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many inputs a target was given, and whether one of them was a finding."""

    name: str
    inputs: int
    failed: bool


def main() -> int:
    options = _options()
    chosen = [target.name for target in TARGETS if not options.target or target.name in options.target]
    outcomes = [_fuzzed(name, options.seconds, options.findings, seed=options.seed) for name in chosen]
    counts = ", ".join(f"{each.name} {each.inputs}" for each in outcomes)
    findings = sum(each.failed for each in outcomes)
    print(f"fuzz: {counts} inputs tried; {findings} findings")  # noqa: T201
    return 1 if findings else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", action="append", choices=[target.name for target in TARGETS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="where inputs that fail are kept")
    return parser.parse_args()


def _fuzzed(name: str, seconds: int, findings: Path, *, seed: int) -> Outcome:
    kept = findings.resolve() / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as grown:
        command = [sys.executable, "-m", "tests.fuzz.one_target", name, grown, str(CORPUS / name)]
        command += [f"-max_total_time={seconds}", f"-timeout={HANG_SECONDS}", f"-max_len={LARGEST_INPUT}"]
        command += [f"-seed={seed}", f"-artifact_prefix={kept}/", "-print_final_stats=1", "-rss_limit_mb=4096"]
        started = time.monotonic()
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", timeout=seconds + GRACE_SECONDS
        )
    told = done.stdout + done.stderr
    inputs = max((int(next(filter(None, each))) for each in EXECUTED.findall(told)), default=0)
    print(f"{name}: {inputs} inputs in {time.monotonic() - started:.0f} s, exit code {done.returncode}")  # noqa: T201
    if done.returncode:
        print(told[-4_000:])  # noqa: T201
    return Outcome(name, inputs, failed=done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
