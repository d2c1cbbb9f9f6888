#!/usr/bin/env python3
"""Run the model of the registry for many operations, in as many processes as there are cores."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Operations of one machine, and machines of one run of hypothesis.
STEPS, MACHINES = 100, 20


def run(seed: int, operations: int) -> Counter[str]:
    """Run machines until so many operations are done; return what has happened."""
    import test_registry_model as model
    from hypothesis import seed as seeded
    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test

    limits = settings(model.LASTING, max_examples=MACHINES, stateful_step_count=STEPS)
    rounds = 0
    while model.tally["operations"] < operations:
        rounds += 1
        machine = seeded(seed + rounds)(type("Leases", (model.Leases,), {}))
        run_state_machine_as_test(machine, settings=limits)
        print(f"seed {seed}: {dict(model.tally)}", file=sys.stderr, flush=True)  # noqa: T201  # progress
    return model.tally


def start(seed: int, operations: int, home: str) -> subprocess.Popen[str]:
    """Start a process of its own: the model forks, and its children are killed."""
    argv = [sys.executable, __file__, f"--seed={seed}", f"--operations={operations}", "--alone"]
    environ = {**os.environ, "HOME": home, "TMPDIR": home}
    return subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Print how many operations, crashes and seconds it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--alone", action="store_true", help="one process; print JSON")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(run(options.seed, options.operations)))  # noqa: T201  # for its parent
        return
    jobs = os.cpu_count() or 1
    began, done = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="isoenv-soak-") as home:
        os.chmod(home, 0o711)  # noqa: S103  # one of the model's users is another one
        started = [
            start(options.seed + 1_000_000 * job, -(-options.operations // jobs), home)
            for job in range(jobs)
        ]
        try:
            for process in started:
                printed, _ = process.communicate()
                if process.returncode:
                    sys.exit(f"seed {options.seed}: a promise was broken, see above")
                done += Counter(json.loads(printed))
        finally:
            # What they work in is about to be removed.
            for process in started:
                process.kill()
                process.wait()
    print(  # noqa: T201  # its output
        f"{done['operations']} operations, {done['killed']} of them killed in the middle, "
        f"{done['lost']} registries damaged or lost: {time.monotonic() - began:.0f} s in {jobs} "
        f"processes, seed {options.seed}"
    )


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    main()
