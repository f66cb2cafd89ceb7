"""A diagnosis as one page: readable without a network, on a desk and on a telephone."""

import base64
import html
import io
from pathlib import Path

import torch

import smpcore
from smpcore.diagnosis.causes import CAUSES, Diagnosis, smooth_course
from smpcore.diagnosis.curves import CurveDiagnosis

__all__ = ["draw_course", "draw_shares", "write_page"]

_STYLE = """
body{font:16px/1.5 sans-serif;max-width:60rem;margin:1.5rem auto;padding:0 1rem;color:#1a1a1a}
h1{font-size:1.5rem}.said{font-size:1.2rem}figure{margin:1.5rem 0}img{max-width:100%}
.table{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.2rem .9rem .2rem 0;border-bottom:1px solid #ddd;
text-align:left;vertical-align:top}caption{text-align:left;color:#555;padding-top:1.2rem}
"""
#: Pictures of the path that are shown.
_SHOWN = 5


def draw_shares(diagnosis: Diagnosis, ax, most: int = 8) -> None:
    """Bars of the share of the roughness of each cause, split into its places, ``most`` at most.

    Parameters
    ----------
    diagnosis
        As `why` gives it.
    ax
        Of matplotlib.
    """
    from smpcore.plotting import PALETTE

    colour = dict(zip(CAUSES, ("#7F7F7F", *PALETTE), strict=False))
    rows = [("the motion itself", diagnosis.shares["motion"], colour["motion"])]
    rows += [(part.layer, part.share, colour[part.cause]) for part in diagnosis.parts[:most] if abs(part.share) > 0.005]
    ax.barh(range(len(rows)), [row[1] for row in rows], color=[row[2] for row in rows])
    ax.set_yticks(range(len(rows)), [row[0] for row in rows])
    for place, row in enumerate(rows):
        ax.annotate(f" {row[1]:.0%}", (max(row[1], 0), place), va="center")
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel="share of the roughness")


def draw_course(diagnosis: Diagnosis, ax, output: int = 0) -> None:
    """One output's acceleration from frame to frame, Δ²z/h², and its smooth course, which is the motion.

    Parameters
    ----------
    diagnosis
        As `why` gives it.
    ax
        Of matplotlib.
    output
        Which of its outputs.
    """
    from smpcore.plotting import COLORS

    second = diagnosis.values[:, [output]].diff(n=2, dim=0) * diagnosis.rate**2
    times = torch.arange(1, len(second) + 1) / diagnosis.rate
    ax.plot(times, second, color=COLORS["kink"], lw=1.5, label="from frame to frame")
    ax.plot(times, smooth_course(second), color=COLORS["smooth"], label="its smooth course")
    ax.set(xlabel="t after the first frame", ylabel="acceleration\n[output units per t²]")
    ax.margins(y=0.2)
    ax.legend(loc="upper center", ncols=2, fontsize=11)


def write_page(found: Diagnosis | CurveDiagnosis, file: Path, title: str, pictures=None) -> None:
    """Write a diagnosis as one HTML file with its figures inside.

    Parameters
    ----------
    found
        Of a model or of a curve.
    file
        Where it goes; replaced whole.
    title
        What was looked at.
    pictures
        ``(N, C, H, W)`` inputs of some frames, to be shown where C is 1 or 3; or None.

    Raises
    ------
    OSError
        Where the file cannot be written.
    """
    pd = smpcore.need("pandas")
    plt = smpcore.need("matplotlib.pyplot")
    from smpcore.plotting import use_style

    use_style()
    if isinstance(found, CurveDiagnosis):
        said, tables, figures = str(found), {"The same curve at other rates": pd.DataFrame(found.rates)}, []
    else:
        causes = [{"cause": words, "share": f"{found.shares[name]:.1%}"} for name, (words, _) in CAUSES.items()]
        places = found.to_frame().assign(share=lambda rows: rows["share"].map("{:.1%}".format))
        tables = {"Shares of the roughness": pd.DataFrame(causes), "The same by place": places}
        if found.attribution is not None and found.attribution.layers:
            rows = [{"layer": layer.name, "kind": layer.kind, "switches": layer.switches,
                     "SMP": f"{float(layer.smp.sum()):.4g}"} for layer in found.attribution.layers]
            tables["SMP over all outputs, by layer"] = pd.DataFrame(rows)
        said = f"{found.sentence}\n{found.advice}"
        figures = [_figure(plt, lambda ax: draw_shares(found, ax), "Shares of the roughness, by place."),
                   _figure(plt, lambda ax: draw_course(found, ax, int(found.values.diff(n=2, dim=0).abs().sum(0)
                                                                      .argmax())),
                           "Acceleration of the roughest output. What departs from the smooth course is jerk.")]
        figures += _shown(plt, pictures)
    body = [f"<h1>{html.escape(title)}</h1>", *(f"<p class=said>{html.escape(line)}</p>" for line in said.splitlines())]
    body += [f"<div class=table>{table.to_html(index=False, border=0, float_format='{:.4g}'.format)}</div>".replace(
        "<thead>", f"<caption>{html.escape(caption)}</caption><thead>", 1) for caption, table in tables.items()]
    if isinstance(found, Diagnosis):
        body[3:3] = [f"<p>{html.escape(line)}.</p>" for line in str(found).splitlines()[-2:]]
    Path(file).write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<link rel=icon href=data:,><title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"{''.join(body[:3] + figures + body[3:])}</html>\n", encoding="utf-8")


def _shown(plt, pictures) -> list[str]:
    """Some of the path's inputs in a row, where they are pictures."""
    if pictures is None or pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
        return []
    few = pictures[torch.linspace(0, len(pictures) - 1, _SHOWN).long()].double()
    few = (few - few.min()) / (few.max() - few.min()).clamp_min(1e-12)

    def draw(ax):
        ax.imshow(torch.cat(list(few.permute(0, 2, 3, 1)), 1), cmap="gray")
        ax.axis("off")

    return [_figure(plt, draw, "What the network saw, from the first frame to the last.")]


def _figure(plt, draw, caption: str) -> str:
    figure, ax = plt.subplots(figsize=(8, 4.2))
    draw(ax)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    data = base64.b64encode(held.getvalue()).decode()
    return (f"<figure><img alt='{html.escape(caption)}' src='data:image/png;base64,{data}'><figcaption>"
            f"{html.escape(caption)}</figcaption></figure>")
