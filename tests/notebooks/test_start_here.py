"""Notebook 00 with parameters that are not its defaults: what it refuses, what it warns of, another photograph."""

import contextlib
import io
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parent.parent.parent / "notebooks" / "00_start_here.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def execute(output_dir, last=None, **parameters):
    """Run the notebook's cells in this process, up to the cell with id ``last``: (what it printed, its names)."""
    matplotlib.use("Agg")
    printed, names = io.StringIO(), {"__name__": "__main__"}
    with contextlib.redirect_stdout(printed):
        for cell in CELLS:
            exec("".join(cell["source"]), names)
            if cell["id"] == "parameters":
                unknown = set(parameters) - set(names)
                assert not unknown, f"the notebook has no parameter {unknown}"
                names |= {"output_dir": str(output_dir), "device": "cpu", **parameters}
            if cell["id"] == last:
                break
    plt.close("all")
    return printed.getvalue(), names


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """Another photograph: the sample's right half, mirrored and shrunk by a third."""
    image, cbook = pytest.importorskip("PIL.Image"), pytest.importorskip("matplotlib.cbook")
    picture = image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    picture = picture.crop((80, 20, 512, 480)).transpose(image.Transpose.FLIP_LEFT_RIGHT).resize((288, 307))
    file = tmp_path_factory.mktemp("photographs") / "another.png"
    picture.save(file)
    return file


@pytest.mark.parametrize(("parameters", "says"), [
    ({"picture": "nobody.jpg"}, "picture = 'nobody.jpg': there is no such file"),
    ({"picture": __file__}, "picture = .*test_start_here.py': it cannot be read as a picture"),
    ({"picture": ""}, "picture = '': there is no such file"),
    ({"box": [400, 125, 600, 335]}, r"box = \[400, 125, 600, 335\]: it leaves the picture, 512 pixels wide"),
    ({"box": [-5, 125, 375, 335]}, "box = .* it leaves the picture"),
    ({"box": [165, 125, 375]}, r"box = \[165, 125, 375\]: it must be four numbers \[left, top, right, bottom\]"),
    ({"box": "165 125 375 335"}, "box = '165 125 375 335': it must be four numbers"),
    ({"box": [165, 125, "375", 335]}, "box = .*: it must be four numbers"),
    ({"box": [375, 125, 165, 335]}, "box = .* needs left < right and top < bottom"),
    ({"pan": 16}, "pan = 16: it must be two finite numbers"),
    ({"pan": [16, "10"]}, "pan = .*: it must be two finite numbers"),
    ({"zoom": 0}, "zoom = 0: a magnification is positive"),
    ({"turn": "left"}, "parameter turn = 'left': it must be a number of degrees"),
    ({"samples": 10}, "parameter samples = 10: it must be a whole number of at least 101"),
    ({"samples": 200.5}, "parameter samples = 200.5"),
    ({"layer_samples": 1}, "parameter layer_samples = 1: it must be a whole number of at least 11"),
    ({"device": "cuda:77"}, "device 'cuda:77' was named, but torch sees"),
    ({"seed": -1}, "parameter seed = -1: it must be at least 0"),
])
def test_what_bad_input_gets(tmp_path, parameters, says):
    with pytest.raises(ValueError, match=says):
        execute(tmp_path, last="checks", **parameters)


def test_a_box_without_a_face_is_warned_of(tmp_path):
    printed, names = execute(tmp_path, last="watch", box=[10, 350, 130, 470], samples=101)
    assert names["face_probability"] < 0.5
    assert "WARNING" in printed
    assert "this box holds no face" in printed


def test_a_box_with_a_face_is_not(tmp_path):
    printed, names = execute(tmp_path, last="watch", samples=101)
    assert names["face_probability"] > 0.99
    assert printed == "There is a face in the box.\n"


def test_another_photograph_runs_to_the_end(tmp_path, photograph):
    printed, _ = execute(tmp_path, picture=str(photograph), box=[80, 70, 220, 210], pan=[8, 5], zoom=1.05, turn=3.0,
                         samples=201, layer_samples=21)
    assert "There is a face in the box." in printed
    written = json.loads((tmp_path / "00_start_here.json").read_text(encoding="utf-8"))
    assert written["parameters"]["picture"] == str(photograph)
    assert written["results"]["face_probability"] > 0.5
    assert 0 < written["results"]["left_eye_x_at_middle"] < 1
    assert written["results"]["smp_left_eye_x"] > written["results"]["smp_sampled_left_eye_x"]
    assert all(f"smp_{mark}_{axis}" in written["results"] for axis in "xy" for mark in
               ("left_eye", "right_eye", "nose", "left_mouth_corner", "right_mouth_corner"))
