#!/usr/bin/env python3
"""Everything that checks: style, tests, the notebooks' contract, their committed outputs, other parameters.

    python3 ci/test.py            all of it, in the project's environment
    python3 ci/test.py --here     with the interpreter that runs this
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import environment

ROOT = environment.ROOT


def stages():
    """What is run, in order, by its name; the tests come last, so that pytest's count closes the output."""
    python, cores = sys.executable, str(environment.cores())
    nbval = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", "ci/sanitize.cfg",
             "--nbval-cell-timeout", "600"]
    return [
        ("style", [python, "-m", "ruff", "check", "."]),
        ("the notebooks' contract", [python, "ci/notebooks.py"]),
        ("every notebook with parameters that are not its defaults",
         [python, "ci/run.py", "--here", "--file", "notebooks/parameters/check.yaml", "--output", "runs/check",
          "--jobs", cores]),
        ("the committed notebooks, compared with a fresh run",
         [python, "-m", "pytest", *nbval, "-q", "-n", cores, "--dist", "loadfile", "notebooks"]),
        ("tests", [python, "-m", "pytest", "-q", "-n", cores, "--dist", "loadfile", "tests"]),
    ]


def main(given=None):
    """Run every stage, also after one failed; the exit code is 0 only where all passed."""
    given = sys.argv[1:] if given is None else list(given)
    if environment.is_too_old():
        return 2
    code = environment.go_on(__file__, [], "--here" in given)
    if code is not None:
        return code
    # As many processes as cores, so one thread each.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    settings = {**os.environ, **threads, "TQDM_DISABLE": "1"}
    failed = []
    for name, command in stages():
        print(f"\n== {name}", flush=True)
        try:
            code = subprocess.call(command, cwd=str(ROOT), env=settings)
        except KeyboardInterrupt:
            print(f"\nInterrupted in: {name}", file=sys.stderr)
            return 130
        if code:
            failed.append(name)
    for name in failed:
        print(f"FAILED: {name}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
