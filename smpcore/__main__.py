"""The command line, ``python -m smpcore`` or ``smpcore``: its commands ``why``, ``curve`` and ``relax``.

This file turns the arguments into models, paths and numbers; the rooms do the work.
"""

import functools
import json
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import smpcore
from smpcore.arguments import POSITIVE, check, optional
from smpcore.arguments import device as devices
from smpcore.diagnosis import diagnose_curve, read_curve, write_page
from smpcore.diagnosis import why as judged
from smpcore.models import load_model, load_path
from smpcore.paths import line, picture, through
from smpcore.smoothing import relax as relaxed

try:
    typer = smpcore.need("typer")
except ModuleNotFoundError as error:
    sys.exit(f"smpcore: {error}")

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Why does a network's output jerk, which of its layers make it so, and what would help?")
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
#: The most inputs on which `relax` calibrates.
_CALIBRATION = 512

Model = Annotated[str, typer.Argument(help="package.module:function that returns the model, or the model itself")]
Weights = Annotated[Path | None, typer.Option(help="its state_dict, as torch.save writes it")]
Box = Annotated[str | None, typer.Option(help="left,top,right,bottom of the crop, in pixels")]
Size = Annotated[int | None, typer.Option(help="pixels of the crop on a side; else as the model's picture_input says")]
Mean = Annotated[float | None, typer.Option(help="the network sees (pixel - mean)/std, pixels from 0 to 1")]
Std = Annotated[float | None, typer.Option(help="see --mean")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")]
Json = Annotated[bool, typer.Option("--json", help="print everything as JSON")]
Report = Annotated[Path | None, typer.Option(help="where the HTML report goes")]


class Crops(Sequence):
    """Pictures in files, cropped and resized as `smpcore.paths.picture` does, each when it is asked for."""

    def __init__(self, files: Sequence[Path], settings: Mapping):
        self.files, self.settings = files, settings

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, n: int) -> Tensor:
        return picture(self.files[n], **self.settings)(torch.zeros(1, dtype=torch.float64))[0]


def _in_sentences(command: Callable) -> Callable:
    """End a command with exit code 2 and one sentence if an argument is wrong; with 130 after Ctrl-C."""
    @functools.wraps(command)
    def call(*args, **kwargs):
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_, **__: print(f"smpcore: note: {message}", file=sys.stderr)
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            said, code = "stopped", 130
        except (ValueError, TypeError, FileNotFoundError, PermissionError, ModuleNotFoundError, MemoryError) as error:
            said, code = str(error), 2
        print(f"smpcore: {said}", file=sys.stderr)
        raise typer.Exit(code)

    return call


@app.command()
@_in_sentences
def why(model: Model, more: Annotated[list[str] | None, typer.Argument(help="further inputs of --walk")] = None, *,
        walk: Annotated[str, typer.Option(help="a photograph; package.module:function, a path; a folder of pictures; "
                                          "an .npy of inputs (N, ...); or two or more .npy of one input each")],
        box: Box = None,
        pan: Annotated[str, typer.Option(help="right,down in pixels, of the crop's loop over a photograph")] = "4,2",
        zoom: Annotated[float, typer.Option(help="magnification of that loop")] = 1.0,
        size: Size = None, mean: Mean = None, std: Std = None,
        fps: Annotated[float, typer.Option(help="frames per unit of t, seconds for instance")] = 30.0,
        start: Annotated[float, typer.Option(help="where a path begins")] = 0.0,
        seconds: Annotated[float | None, typer.Option(help="how long a path is; 2 pi if not given")] = None,
        outputs: Annotated[str | None, typer.Option(help="numbers from 0, and the name of what the model returns: 0,3 "
                                                    "or landmarks or landmarks:0,5")] = None,
        weights: Weights = None, device: Device = "auto", as_json: Json = False,
        report: Report = Path("why.html")) -> None:
    """Tell apart what makes a model's output jerk at a frame rate."""
    network = _model(model, weights, device)
    settings = _settings(network, box, size, mean, std)
    check({"fps": fps, "seconds": seconds}, {"fps": POSITIVE, "seconds": optional(POSITIVE)})
    path, times = _walk([walk, *(more or [])], settings, _numbers("pan", pan, 2), zoom, fps, start, seconds)
    found = judged(network, path, times, outputs=_chosen(outputs))
    print(json.dumps(found.to_dict(), indent=1) if as_json else found)
    few = times[torch.linspace(0, len(times) - 1, 5).long()]
    write_page(found, report, f"Why {model} jerks along {walk}", path(few))
    if not as_json:
        print(f"\nthe report: {report}")


@app.command()
@_in_sentences
def curve(file: Annotated[Path, typer.Argument(help=".csv, .tsv, .parquet or .npy")], *,
          fps: Annotated[float, typer.Option(help="samples per unit of t, seconds for instance")],
          column: Annotated[str | None, typer.Option(help="where there are several")] = None,
          as_json: Json = False, report: Report = None) -> None:
    """Tell from a recorded curve alone why it jerks."""
    check({"fps": fps}, {"fps": POSITIVE})
    found = diagnose_curve(read_curve(file, column), fps)
    if as_json:
        print(json.dumps(vars(found) | {"sentence": found.sentence, "verdict": found.verdict and vars(found.verdict)},
                         indent=1))
    else:
        pd = smpcore.need("pandas")
        print(found, "", pd.DataFrame(found.rates).to_string(index=False, float_format="{:.4g}".format), sep="\n")
    if report is not None:
        write_page(found, report, f"Why {file.name} jerks")


@app.command()
@_in_sentences
def relax(model: Model, *, calibration: Annotated[str, typer.Option(help="a folder of pictures, or an .npy of inputs "
                                                                    "(N, ...): such as the network will see")],
          out: Annotated[Path, typer.Option(help="where the smooth model goes, by torch.save")],
          layers: Annotated[str | None, typer.Option(help="names, as `why` gives them, with commas; else all")] = None,
          box: Box = None, size: Size = None, mean: Mean = None, std: Std = None, weights: Weights = None,
          device: Device = "auto") -> None:
    """Make a trained network smooth, without labels and without training."""
    network = _model(model, weights, device)
    inputs = _inputs(calibration, _settings(network, box, size, mean, std))
    every = math.ceil(len(inputs) / _CALIBRATION)
    given = torch.stack([torch.as_tensor(np.array(inputs[n])).float() for n in range(0, len(inputs), every)])
    found = relaxed(network, given, layers=layers.split(",") if layers else None)
    print(found.report())
    torch.save(found.model, out)
    print(f"the smooth model: {out}; torch.load({str(out)!r}, weights_only=False) gives it")


def main() -> None:
    """The console script."""
    app(prog_name="smpcore")


def _model(name: str, weights: Path | None, device: str) -> torch.nn.Module:
    model = load_model(name)
    if weights is not None:
        try:
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except Exception as error:
            raise ValueError(f"weights = {str(weights)!r}: they cannot be loaded into {name} ({error})") from error
    return model.to(devices.resolve(device))


def _settings(model, box, size, mean, std) -> dict:
    """The arguments of `paths.picture`: the model's ``picture_input``, and the options, which win."""
    asked = {"box": None if box is None else _numbers("box", box, 4), "size": size, "mean": mean, "std": std}
    return getattr(model, "picture_input", {"channels": 3}) | {key: value for key, value in asked.items()
                                                               if value is not None}


def _walk(given: list[str], settings: dict, pan: list[float], zoom: float, fps: float, start: float,
          seconds: float | None) -> tuple[Callable, Tensor]:
    """The path, and the times of its frames."""
    first, kinds = given[0], {Path(name).suffix.lower() for name in given}
    if len(given) > 1:
        if kinds != {".npy"}:
            raise ValueError(f"walk = {' '.join(given)}: of several files each must be an .npy of one input")
        ends = [torch.from_numpy(_array(name)) for name in given]
        length = seconds or 2 * math.pi
        at = torch.linspace(0, length, len(ends), dtype=torch.float64)
        path = line(*ends, length) if len(ends) == 2 else through(ends, at)
    elif kinds == {".npy"} or Path(first).is_dir():
        inputs = _inputs(first, settings)
        times = torch.arange(len(inputs), dtype=torch.float64) / fps
        return through(inputs, times), times
    elif kinds <= _PICTURES and ":" not in first:
        path = picture(first, pan=tuple(pan), zoom=zoom, **settings)
    else:
        path = load_path(first)
    return path, start + torch.arange(0, (seconds or 2 * math.pi) * (1 + 1e-9), 1 / fps, dtype=torch.float64)


def _inputs(name: str, settings: dict) -> Sequence:
    """The inputs in a folder of pictures, or in an .npy, which is read as it is needed."""
    path = Path(name).expanduser()
    if path.suffix.lower() == ".npy":
        return _array(name, "r")
    files = sorted(file for file in path.glob("*") if file.suffix.lower() in _PICTURES)
    if not files:
        raise ValueError(f"{name!r}: it is no .npy, and no folder with pictures in it ({', '.join(sorted(_PICTURES))})")
    return Crops(files, settings)


def _array(name: str, mode: str | None = None) -> np.ndarray:
    try:
        return np.load(Path(name).expanduser(), mmap_mode=mode)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name!r} cannot be read as an .npy of numbers ({error})") from error


def _numbers(name: str, text: str, count: int) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count:
        raise ValueError(f"{name} = {text!r}: write {count} numbers with commas between them")
    return found


def _chosen(asked: str | None) -> Callable:
    """From what a model returns to the outputs asked for: of several tensors the first, if none is named."""
    name, _, listed = (asked or "").partition(":")
    if not listed and not name[:1].isalpha():
        name, listed = "", name
    try:
        indices = [int(part) for part in listed.split(",") if part]
    except ValueError:
        raise ValueError(f"outputs = {asked!r}: write numbers with commas between them, a name, or name:numbers"
                         ) from None

    def of(found):
        if name:
            named = found if isinstance(found, Mapping) else getattr(found, "_asdict", lambda: vars(found))()
            if name not in named:
                raise ValueError(f"outputs = {asked!r}: the model returns {', '.join(map(str, named))}")
            found = named[name]
        elif not isinstance(found, Tensor):
            found = next((part for part in tree_leaves(found) if isinstance(part, Tensor)), None)
        if found is None:
            raise ValueError("the model returns no tensor: name a function that returns one which does")
        found = found.flatten(1) if found.dim() > 1 else found[:, None]
        if indices and max(indices) >= found.shape[1]:
            raise ValueError(f"outputs = {asked!r}: there are outputs 0 to {found.shape[1] - 1}")
        return found[:, indices] if indices else found

    return of


if __name__ == "__main__":
    main()
