#!/usr/bin/env python3
"""Run the model of the registry for many operations, in as many processes as there are cores."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from hypothesis import Phase

ROOT = Path(__file__).resolve().parents[1]
STEPS = 100
# A failure is shown as it was found: shrinking it takes longer than finding it.
PHASES = (Phase.generate,)


def run(seed: int, operations: int) -> Counter[str]:
    """Run machines until so many operations are done; return what has happened."""
    import test_registry_model as model
    from hypothesis import seed as seeded
    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test

    rounds = 0
    while model.tally["operations"] < operations:
        rounds += 1
        machine = seeded(seed + rounds)(type("Leases", (model.Leases,), {}))
        limits = settings(model.LASTING, max_examples=20, stateful_step_count=STEPS, phases=PHASES)
        run_state_machine_as_test(machine, settings=limits)
    return model.tally


def main() -> None:
    """Print how many operations, crashes and seconds it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    jobs = os.cpu_count() or 1
    print(f"seed {options.seed}, {jobs} processes", flush=True)  # noqa: T201  # its output
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="isoenv-soak-") as top:
        os.environ.update(HOME=top, TMPDIR=top)
        with ProcessPoolExecutor(jobs) as pool:
            seeds = [options.seed + 1_000_000 * job for job in range(jobs)]
            done = sum(pool.map(run, seeds, [options.operations // jobs] * jobs), Counter())
    took = time.monotonic() - began
    print(  # noqa: T201  # its output
        f"{done['operations']} operations, {done['killed']} of them killed in the middle, "
        f"{done['lost']} registries damaged or lost, {took:.0f} s"
    )


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    main()
