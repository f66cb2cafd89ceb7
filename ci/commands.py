"""The main job: run notebooks once, or a sweep of them, by the command line's options; needs the environment."""

import os
import sys
from pathlib import Path

import environment
import report_page
import runner
from environment import Refused
from parameters import check, from_file, parameters_of, read


def main(chosen) -> int:
    """Run what the command line asks for, or print in one sentence why that is impossible; returns the exit code."""
    try:
        return job(chosen)
    except Refused as error:
        print(environment.shortened(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: finished runs are kept.", file=sys.stderr)
        return 130
    finally:
        if chosen.connection:
            chosen.connection.close()


def job(chosen) -> int:
    """Run what the command line asks for; returns the exit code.

    Raises
    ------
    Refused
        For what cannot be run, before anything does.
    """
    source = Path(chosen.source).resolve() if chosen.source else runner.NOTEBOOKS
    available = runner.available(source)
    names = runner.choose(available, chosen.notebooks)
    paths = [source / f"{name}.ipynb" for name in names]
    if chosen.list:
        print(report_page.listing(paths))
        return 0
    if chosen.student:
        import student
        copies = student.write(paths, Path(chosen.student).resolve())
        print(f"{len(copies)} notebooks without solutions and outputs: {copies[0].parent}")
        return 0
    folder = Path(chosen.output).resolve() if chosen.output else environment.ROOT / "runs"
    if chosen.site:
        import build_site
        print(build_site.build(paths, folder if chosen.output else folder / "site"))
        return 0
    given = from_file(Path(chosen.file).resolve(), names, available) if chosen.file else {name: {} for name in names}
    for path in paths:
        known = parameters_of(path)
        for key, text in chosen.p:
            try:
                given[path.stem][key] = read(text, known.get(key))
            except Refused as error:
                raise Refused(f"-p {key} {error}") from error
        given[path.stem] = check(path.stem, given[path.stem], known)
    if chosen.sweep:
        import sweep
        return sweep.job(chosen, paths, given, folder if chosen.output else folder / "sweep")
    runner.need_writable(folder)
    runner.clean_sockets()
    outcomes = runner.execute(paths, given, folder, chosen.jobs)
    failed = [outcome for outcome in outcomes if outcome.error]
    try:
        page = report_page.write(outcomes, folder)
    except OSError as error:
        page = f"the page could not be written: {error.strerror or error}"
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} notebooks ran; {page}")
    for outcome in failed:
        print(f"FAILED {outcome.name}: {outcome.error}")
    return 1 if failed or not isinstance(page, os.PathLike) else 0
