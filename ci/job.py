"""The main job: notebooks once, or a sweep of them, as the command line asks; needs the environment."""

import os
from pathlib import Path

import runner
import sweep
import yaml
from environment import ROOT


def job(chosen) -> int:
    """Run what the command line asked for; the number of the exit."""
    names = runner.choose(chosen.notebooks)
    if chosen.list:
        print(runner.listing(names))
        return 0
    given = runner.from_file(Path(chosen.file).resolve(), names) if chosen.file else {name: {} for name in names}
    for key, text in chosen.p:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise runner.Refused(f"-p {key} {text!r}: the value cannot be read as YAML") from error
        # A notebook runs in its own folder, but a path on the command line is the caller's.
        if isinstance(value, str) and os.path.exists(value):
            value = os.path.abspath(value)
        for name in names:
            given[name][key] = value
    given = {name: runner.check(name, values) for name, values in given.items()}
    folder = Path(chosen.output).resolve() if chosen.output else ROOT / "runs"
    if chosen.sweep:
        return sweep.job(chosen, names, given, folder if chosen.output else folder / "sweep")
    outcomes = runner.execute(names, given, folder, chosen.jobs)
    page = runner.write_index(outcomes, folder)
    failed = [outcome for outcome in outcomes if outcome.error]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} notebooks ran; {page}")
    for outcome in failed:
        print(f"FAILED {outcome.name}: {outcome.error}")
    return 1 if failed else 0
