#!/usr/bin/env python3
"""Everything that checks: style, tests, the notebooks' contract, their committed outputs, other parameters.

    python3 ci/test.py                 all of it, in the project's environment
    python3 ci/test.py --here          with the interpreter that runs this
    python3 ci/test.py --processors    all of it on every instruction set, with 1, 2 and 4 threads (an hour or two)

Results differ in their last digits from one processor to another. So the committed notebooks are compared, and the
tests marked `numeric` run, on two instruction sets besides the processor's own. A set that the processor lacks is
skipped, and this is printed.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import browser
import environment

ROOT = environment.ROOT
# Settings of PyTorch, oneDNN and MKL, by PyTorch's name of the instruction set.
SETS = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
NAMES = {"AVX2": "AVX2", "DEFAULT": "SSE4.1"}


def own_set():
    """The instruction set that PyTorch takes here by itself, such as AVX2, AVX512, NEON."""
    program = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    return subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True).stdout.strip()


def why_not(name, own, machine):
    """Why an instruction set cannot be tried, or adds nothing; "" if it is tried.

    Parameters
    ----------
    name
        Of `SETS`.
    own
        The set that PyTorch chooses by itself.
    machine
        As `platform.machine` says it.
    """
    if machine.lower() not in ("x86_64", "amd64"):
        return f"{machine} has other instructions"
    if own == name:
        return "it is this processor's own"
    if own == "DEFAULT":  # the least of all
        return "this processor lacks it"
    return ""


def stages(everything, sets):
    """All stages in order: (name, command, additional environment variables).

    The tests come last, so that pytest's count closes the output.

    Parameters
    ----------
    everything
        Whether every test runs under every setting, or the numeric ones alone.
    sets
        Names of `SETS` to run beside the processor's own set.
    """
    python, cores = sys.executable, str(environment.cores())
    where = {name: f" on {NAMES[name]}" for name in sets}
    settings = [("", 1, {})]  # of each: words for its name, threads, additional environment variables
    if everything:
        settings = [(f"{where.get(name, '')} with {threads} thread{'s' * (threads > 1)}", threads, SETS.get(name, {}))
                    for name in ("", *sets) for threads in (1, 2, 4)]
    else:
        # Two threads once, for these divide sums otherwise than one does; not for the tests, which take longer.
        settings += [(where[name] + (" with 2 threads" if name == "AVX2" else ""), 1 + (name == "AVX2"), SETS[name])
                     for name in sets]

    def pytest(what, words, threads, more, *options):
        # As many processes as cores, also of several threads each: what they run is on one thread most of the time.
        # Files in their own order: else the one of few, long tests would be begun last, and every core but one wait.
        count = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        if threads > 1:
            # MKL, and PyTorch with it, would take no more threads than there are cores; and threads that wait for one
            # another actively take a busy machine's time from those that they wait for.
            count.update(MKL_DYNAMIC="FALSE", OMP_WAIT_POLICY="PASSIVE")
        return (what + words, [python, "-m", "pytest", "-q", "-n", cores, "--dist", "loadfile",
                              "--no-loadscope-reorder", *options], {**count, **more})

    parameters = [python, "ci/run.py", "--here", "--file", "notebooks/parameters/check.yaml", "--output", "runs/check",
                  "--jobs", cores]
    nbval = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", "ci/sanitize.cfg", "--nbval-cell-timeout",
             "1200", "--nbval-kernel-startup-timeout", "600", "notebooks"]
    found = [("style", [python, "-m", "ruff", "check", "."], {}),
             ("the notebooks' contract", [python, "ci/notebooks.py"], {})]
    found += [(f"every notebook with parameters that are not its defaults{where.get(name, '')}", parameters,
               SETS.get(name, {})) for name in ("", *(sets if everything else ()))]
    found += [pytest("the committed notebooks, compared with a fresh run", *setting, *nbval) for setting in settings]
    if everything:
        return found + [pytest("tests", *setting, "tests") for setting in settings]
    found += [pytest("numeric tests", where[name], 1, SETS[name], "-m", "numeric", "tests") for name in sets]
    return [*found, pytest("tests", *settings[0], "tests")]


def main(given=None):
    """Run every stage, also after one failed; the exit code is 0 only where all passed."""
    given = sys.argv[1:] if given is None else list(given)
    if environment.is_too_old():
        return 2
    unknown = [word for word in given if word not in ("--here", "--processors")]
    if unknown:
        print(f"{' '.join(unknown)}: this command knows --here and --processors", file=sys.stderr)
        return 2
    code = environment.go_on(__file__, [word for word in given if word != "--here"], "--here" in given)
    if code is not None:
        return code
    # Matplotlib says so, in the first cell that imports it, where the home folder cannot be written.
    settings = {"MPLCONFIGDIR": str(ROOT / "runs" / "matplotlib"), **os.environ, "TQDM_DISABLE": "1"}
    own, sets = own_set(), []
    for name in SETS:
        reason = why_not(name, own, platform.machine())
        if reason:
            print(f"== skipped: {NAMES[name]}, for {reason}", flush=True)
        else:
            sets.append(name)
    if browser.program() is None:
        print(f"== skipped: the site in a browser, for {browser.HOW_TO_GET}", flush=True)
    failed = []
    for name, command, more in stages("--processors" in given, sets):
        print(f"\n== {name}", flush=True)
        try:
            code = subprocess.call(command, cwd=str(ROOT), env={**settings, **more})
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
