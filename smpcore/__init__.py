"""Measure and predict the nonsmoothness of neural networks.

A network with ReLU or max pooling turns a smooth change of its input into an output with *kinks*, jumps of
its slope. The sum of their magnitudes is SMP, the sum of the magnitude of peaks (R. Liu, C.-W. Wong, H. Dai,
arXiv:2103.14731, 2021).

- `smp`, `find_kinks`: from samples of any signal.
- `attribute`: layer by layer inside any PyTorch model.
- `trace_line`: every kink on a straight line, with a certificate.
- `propagation`: SMP predicted from statistics, not measured.
- `smoothing`: makes a trained network smooth, or keeps one smooth in training.
- `diagnosis`: why an output jerks, by kinks or other causes; ``python -m smpcore`` on the command line.

Names are imported on first use, so that `import smpcore` stays quick and needs numpy, scipy and torch alone. What an
extra installs is imported by `need`.
"""

import sys
from importlib import import_module
from importlib.util import spec_from_loader

__version__ = "0.1.0"

_HOME = {
    "smp": "metric", "find_kinks": "metric", "Kinks": "metric",
    "attribute": "attribution", "Attribution": "attribution", "LayerSmp": "attribution",
    "trace_line": "tracing", "LineTrace": "tracing",
}
_MODULES = ("attribution", "benchmarks", "device", "diagnosis", "experiments", "forensics", "inspection", "metric",
            "models", "paths", "plotting", "propagation", "results", "signals", "smoothing", "switches", "tracing",
            "training", "units")
#: Modules that are also found under an older or shorter name: ``from smpcore.results import start``.
_ALSO = {
    "device": "arguments.device",
    "results": "experiments.results", "benchmarks": "experiments.benchmarks", "training": "models.regressors",
    "switches": "units.table", "propagation.rules": "propagation.closed_forms",
    "propagation.crossings": "propagation.closed_forms.crossing_variance",
    "propagation.spread": "propagation.closed_forms.spread", "propagation.layers": "propagation.given_weights",
    "propagation.statistics": "propagation.given_weights.statistics",
    "propagation.networks": "propagation.predict_network",
}
#: The name under which a package is installed, where it is not the name under which it is imported.
_SOLD_AS = {"PIL": "pillow", "sklearn": "scikit-learn"}

__all__ = ["__version__", "attribute", "find_kinks", "propagation", "smp", "trace_line"]


def need(module: str):
    """Import a module that an extra installs, such as ``"pandas"`` or ``"matplotlib.pyplot"``, and return it.

    Raises
    ------
    ModuleNotFoundError
        Where it is not installed: its sentence names the extra that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != package:
            raise  # the module is there, and something that it needs itself is not
        extra = {"transformers": "architectures", "typer": "cli"}.get(package, "notebooks")
        raise ModuleNotFoundError(f"{_SOLD_AS.get(package, package)} is not installed, which this needs: pip install "
                                  f"'smpcore[{extra}]'", name=package) from error


def __getattr__(name):
    if name in _HOME:
        value = getattr(import_module(f"smpcore.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"smpcore.{name}")
    else:
        raise AttributeError(f"module 'smpcore' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_HOME, *_MODULES})


class _Also:
    """Imports the modules of `_ALSO`; each is one module under two names."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        return spec_from_loader(name, _Also) if name.removeprefix("smpcore.") in _ALSO else None

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        sys.modules[module.__name__] = import_module(f"smpcore.{_ALSO[module.__name__.removeprefix('smpcore.')]}")


sys.meta_path.append(_Also)
