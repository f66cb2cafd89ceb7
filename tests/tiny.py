"""A notebook of three cells, for the tests of what runs notebooks."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = '''seed: int = 0  # seeds every random draw
device: str = "cpu"  # where it computes
output_dir: str = ""  # where the results go
scale: float = 2.0  # of the answer
name: str = "a"  # a word'''

SAVE = '''from smpcore import results
run = results.start("{name}", seed=seed, device=device, output_dir=output_dir, scale=scale, name=name)
{body}
print(run.save({{"answer": scale * 21 + seed}}).name)'''

# The same record, without the seconds that it takes to import torch.
PLAIN = '''import json, os, pathlib
{body}
record = {{"notebook": "{name}", "parameters": {{"seed": seed, "device": device, "scale": scale, "name": name}},
          "seed": seed, "device": device, "threads": int(os.environ["OMP_NUM_THREADS"]), "versions": {{"smpcore": "0"}},
          "results": {{"answer": scale * 21 + seed}}, "rows": []}}
pathlib.Path(output_dir, "{name}.json").write_text(json.dumps(record))'''


def write(folder, name, body="", plain=False):
    """``folder/name.ipynb``, whose result is scale · 21 + seed, after the lines of ``body``."""
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell(f"# Title of {name}"), parameters,
                                   new_code_cell((PLAIN if plain else SAVE).format(name=name, body=body))])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
