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


def write(folder, name, body=""):
    """``folder/name.ipynb``, whose result is scale · 21 + seed, after the lines of ``body``."""
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell(f"# Title of {name}"), parameters,
                                   new_code_cell(SAVE.format(name=name, body=body))])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
