"""Parts that all pages share: styles for wide and narrow, light and dark screens; sorting; a cell's pictures."""

import html

STYLE = """
:root{color-scheme:light dark;--line:#767676;--faint:#ddd;--bad:#b00020;--good:#006b3c;--link:#0b57a4}
@media (prefers-color-scheme:dark){:root{--line:#999;--faint:#444;--bad:#ff8a9a;--good:#6fd6a3;--link:#8ab8f0}}
body{font:16px/1.5 sans-serif;margin:1.5rem auto;padding:0 1rem;overflow-wrap:anywhere}
img{background:#fff;height:auto;max-width:100%}a{color:var(--link)}
table{border-collapse:collapse;font-size:14px}caption{padding:.3rem 0;text-align:left}
th,td{border-bottom:1px solid var(--faint);overflow-wrap:normal;padding:.2rem .8rem .2rem 0;text-align:left}
th{border-bottom:2px solid var(--line)}td{font-variant-numeric:tabular-nums;vertical-align:top;white-space:nowrap}
td details{min-width:12rem;white-space:normal}
th button{background:none;border:0;color:inherit;cursor:pointer;font:inherit;font-weight:bold;padding:.3rem 0}
th[aria-sort=ascending] button::after{content:" ▲"}th[aria-sort=descending] button::after{content:" ▼"}
.bad{color:var(--bad)}.good{color:var(--good)}div.wide{overflow-x:auto}
dt{font-weight:bold}dd{margin:0 0 .4rem 1rem}
"""
# A click, or Enter on its name, sorts a table by a column: numbers by size, words by the alphabet, gaps last.
SORT = """
for (const head of document.querySelectorAll("th button")) head.onclick = () => {
  const cell = head.parentNode, body = cell.closest("table").tBodies[0], place = cell.cellIndex;
  const down = cell.getAttribute("aria-sort") === "ascending";
  for (const other of cell.parentNode.cells) other.setAttribute("aria-sort", "none");
  cell.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[place].dataset.value ?? row.cells[place].textContent;
  const order = (a, b) => {
    if ((a === "") !== (b === "")) return a === "" ? 1 : -1;
    const both = a !== "" && !isNaN(a) && !isNaN(b);
    return (both ? a - b : a.localeCompare(b)) * (down ? -1 : 1);
  };
  body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
};
"""
LONGEST = 32  # characters of a value that are shown; the rest is folded


def start(title: str, style: str = "") -> str:
    """The beginning of a page, up to its heading."""
    return ("<!doctype html><html lang=en><meta charset=utf-8>"
            "<meta name=viewport content='width=device-width,initial-scale=1'>"
            f"<title>{html.escape(title)}</title><style>{STYLE}{style}</style>")


def table(columns: dict[str, str], rows: list[list[str]], caption: str) -> str:
    """A table that can be sorted: its columns with their meanings, and rows of cells made by `cell`."""
    head = "".join(f"<th scope=col aria-sort=none><button title='{html.escape(meaning, quote=True)}'>"
                   f"{html.escape(name)}</button></th>" for name, meaning in columns.items())
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return ("<div class=wide tabindex=0 role=region aria-label='table'><table>"
            f"<caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")


def meanings(columns: dict[str, str]) -> str:
    """What each column means, to read by touch and by keyboard."""
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in columns.items())
    return f"<details><summary>What the columns mean</summary><dl>{listed}</dl></details>"


def cell(value) -> str:
    """A value's cell: six digits of a number, the beginning of a long word."""
    if value is None:
        return "<td></td>"
    exact, shown = html.escape(str(value), quote=True), f"{value:.6g}" if isinstance(value, float) else str(value)
    if len(shown) <= LONGEST:
        return f"<td data-value='{exact}'>{html.escape(shown)}</td>"
    return (f"<td data-value='{exact}'><details><summary>{html.escape(shown[:LONGEST])} …</summary>{html.escape(shown)}"
            "</details></td>")


def pngs_of(cell) -> list[str]:
    """The pictures that a notebook's cell drew, in base64 on one line each."""
    return ["".join(output["data"]["image/png"].split()) for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})]
