#!/usr/bin/env python3
"""The main job: make the environment, execute the notebooks, write a page with the results.

    python3 ci/run.py                             every notebook, on its defaults
    python3 ci/run.py 02 -p samples 8001          notebooks by the start of their name, with a parameter
    python3 ci/run.py --file notebooks/parameters/full.yaml
    python3 ci/run.py 02 --sweep seed=0:5 --jobs 2
    python3 ci/run.py --list                      notebooks, their parameters, defaults and help
    python3 ci/run.py --lab                       JupyterLab on the notebooks
    python3 ci/run.py --student DIR               copies without solutions and outputs, for a class
    python3 ci/run.py --site                      the course as a web site, in runs/site (or --output)
"""

import argparse
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import environment


def arguments(given):
    """The command line, read."""
    parser = argparse.ArgumentParser(
        prog="ci/run.py", description="Execute the notebooks headlessly and write runs/index.html.",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__.split("\n\n", 1)[1])
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK",
                        help="the start of a notebook's name, such as 01; all of them by default")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="a parameter, which every chosen notebook must have; VALUE is read as YAML, or as it "
                             "stands where the parameter is a word")
    parser.add_argument("--file", metavar="YAML",
                        help="parameters from a file whose top keys are a notebook's number, or 'all'")
    parser.add_argument("--output", metavar="DIR", help="where the runs go (default: runs/ of the project)")
    parser.add_argument("--notebooks-in", metavar="DIR", dest="source",
                        help="a folder of notebooks of your own, instead of the project's")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at once (default: 1)")
    parser.add_argument("--sweep", nargs="+", action="extend", default=[], metavar="NAME=VALUES",
                        help="run the product of these, such as seed=0:5 length_scale=0.5,1; resumes what is "
                             "there (into runs/sweep, or --output)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster for a sweep, tcp://HOST:PORT")
    parser.add_argument("--force", action="store_true", help="run a sweep's finished runs again")
    parser.add_argument("--here", action="store_true",
                        help="use the interpreter that runs this, with what is installed in it")
    parser.add_argument("--list", action="store_true", help="list notebooks and parameters, run nothing")
    parser.add_argument("--student", metavar="DIR", help="copies of the notebooks without solutions and outputs, "
                                                         "with checks of the answers")
    parser.add_argument("--site", action="store_true",
                        help="build the web site from the committed notebooks, without executing them")
    parser.add_argument("--lab", action="store_true", help="open JupyterLab on the notebooks")
    rest, values = _parameters_apart(list(given))
    chosen = parser.parse_args(rest)
    chosen.p = values + chosen.p
    if chosen.jobs < 1:
        parser.error(f"--jobs {chosen.jobs}: at least one notebook has to run at a time")
    for option, value in (("--output", chosen.output), ("--notebooks-in", chosen.source), ("--file", chosen.file),
                          ("--student", chosen.student)):
        if value == "":
            parser.error(f"{option} '': it names nothing; leave the option out for the default")
    if (chosen.scheduler or chosen.force) and not chosen.sweep:
        parser.error("--scheduler and --force go with --sweep")
    chosen.connection = None
    return chosen


def lab():
    """The command that opens JupyterLab, which refuses to run as root unless told."""
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return [sys.executable, "-m", "jupyter", "lab", *root, str(environment.ROOT / "notebooks")]


def _parameters_apart(given):
    """Split off the ``-p NAME VALUE`` of a command line: argparse would take a VALUE of -1e-3 for an option.

    Where NAME or VALUE is missing, the -p is left for argparse to refuse.
    """
    rest, values, place = [], [], 0
    while place < len(given):
        pair = given[place + 1:place + 3]
        if given[place] == "-p" and len(pair) == 2 and not any(word == "-p" or word.startswith("--") for word in pair):
            values.append(pair)
            place += 3
        else:
            rest.append(given[place])
            place += 1
    return rest, values


def main(given=None):
    """Run the job; the exit code is 0 only where every notebook ran."""
    given = sys.argv[1:] if given is None else list(given)
    if environment.is_too_old():  # before the command line is read: an old Python's argparse knows less
        return 2
    chosen = arguments(given)
    code = environment.go_on(__file__, given, chosen.here)
    if code is not None:
        return code
    if chosen.lab:
        return environment.become(lab())
    os.environ.setdefault("PYTHONIOENCODING", "utf-8")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's end is an interruption too
    try:
        if chosen.scheduler:
            import executors
            chosen.connection = executors.Connection(chosen.scheduler)  # sought while the rest is imported
        import commands
    except KeyboardInterrupt:
        return 130
    return commands.main(chosen)


if __name__ == "__main__":
    sys.exit(main())
