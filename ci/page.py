"""What a sweep leaves for its reader: one tidy table, and one page that shows it without a server."""

import html
import json
import os
import tempfile
from pathlib import Path

_STYLE = """
body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem}
table{border-collapse:collapse;font-size:14px}th{cursor:help;text-align:left;border-bottom:2px solid #444}
th,td{padding:.2rem .8rem .2rem 0}td{border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}
.bad{color:#b00020}label{margin-right:1.5rem}svg text{font:13px sans-serif}div.wide{overflow-x:auto}
"""

# A plain scatter with lines through each group: nothing is fetched, so the page opens anywhere.
_SCRIPT = """
const colors=["#0072B2","#D55E00","#009E73","#CC79A7","#E69F00","#56B4E9","#000000"];
const pick=id=>document.getElementById(id), number=v=>typeof v==="number"&&isFinite(v);
const numeric=columns.filter(c=>rows.some(r=>number(r[c])));
function fill(id,names,first){for(const n of names){const o=document.createElement("option");
 o.textContent=n;o.selected=n===first;pick(id).append(o)}pick(id).onchange=draw}
function draw(){
 const x=pick("x").value,y=pick("y").value,g=pick("group").value,svg=pick("plot");
 const points=rows.filter(r=>number(r[x])&&number(r[y]));svg.textContent="";
 const add=(tag,at,text)=>{const e=document.createElementNS("http://www.w3.org/2000/svg",tag);
  for(const k in at)e.setAttribute(k,at[k]);if(text!==undefined)e.textContent=text;svg.append(e);return e};
 if(!points.length){add("text",{x:90,y:60},"no run has both numbers");return}
 const range=c=>{let a=Math.min(...points.map(r=>r[c])),b=Math.max(...points.map(r=>r[c]));
  if(a===b){a-=.5;b+=.5}const m=(b-a)*.06;return[a-m,b+m]};
 const [x0,x1]=range(x),[y0,y1]=range(y),px=v=>90+(v-x0)/(x1-x0)*600,py=v=>340-(v-y0)/(y1-y0)*310;
 for(let k=0;k<=4;k++){const u=x0+k*(x1-x0)/4,v=y0+k*(y1-y0)/4,show=n=>String(+n.toPrecision(3));
  add("line",{x1:90,x2:690,y1:py(v),y2:py(v),stroke:"#ddd"});add("text",{x:84,y:py(v)+4,"text-anchor":"end"},show(v));
  add("text",{x:px(u),y:360,"text-anchor":"middle"},show(u))}
 add("text",{x:390,y:385,"text-anchor":"middle"},x);add("text",{x:90,y:18},y);
 const groups=[...new Set(points.map(r=>g?String(r[g]):""))].sort();
 groups.forEach((name,k)=>{const color=colors[k%colors.length];
  const mine=points.filter(r=>(g?String(r[g]):"")===name).sort((a,b)=>a[x]-b[x]);
  const means=[...new Set(mine.map(r=>r[x]))].map(v=>{const at=mine.filter(r=>r[x]===v).map(r=>r[y]);
   return[v,at.reduce((a,b)=>a+b,0)/at.length]});
  add("polyline",{points:means.map(p=>px(p[0])+","+py(p[1])).join(" "),fill:"none",stroke:color,"stroke-width":2});
  for(const r of mine){const c=add("circle",{cx:px(r[x]),cy:py(r[y]),r:4,fill:color});
   const t=document.createElementNS("http://www.w3.org/2000/svg","title");
   t.textContent=columns.map(n=>n+": "+r[n]).join("\\n");c.append(t)}
  if(g)add("text",{x:705,y:40+20*k,fill:color},g+" = "+name)})}
fill("x",numeric,parameters.find(c=>numeric.includes(c)&&new Set(rows.map(r=>r[c])).size>1));
fill("y",numeric,results.find(c=>numeric.includes(c)));fill("group",["",...columns],"");
if(rows.length)draw();
"""


def collect(wanted, failures, output: Path) -> tuple[Path, Path]:
    """`table.csv` and `index.html` of a sweep: the runs wanted that are there, and the failures by name."""
    from smpcore import results
    folders = [task.folder(output) for task in wanted]
    frame = results.load([folder for folder in folders if folder.is_dir()])
    table, index = output / "table.csv", output / "index.html"
    _write(table, frame.to_csv(index=False))
    _write(index, page(frame, failures, output))
    return table, index


def page(frame, failures, output: Path) -> str:
    """The page: a plot of a chosen column against another, grouped by a third, and the table below it."""
    meanings = frame.attrs["meanings"]
    rows = [{key: _cell(value) for key, value in row.items()} for row in frame.to_dict("records")]
    kinds = frame.attrs["kinds"]
    data = {"columns": list(frame.columns), "rows": rows,
            "parameters": [name for name in frame.columns if kinds[name] == "parameter"],
            "results": [name for name in frame.columns if kinds[name] == "result"]}
    script = "".join(f"const {name}={_literal(value)};" for name, value in data.items()) + _SCRIPT
    head = "".join(f"<th title='{html.escape(meanings[name], quote=True)}'>{html.escape(name)}</th>"
                   for name in frame.columns)
    body = "".join("<tr>" + "".join(f"<td>{_shown(row[name])}</td>" for name in frame.columns) + "</tr>"
                   for row in rows)
    failed = "".join(f"<p class=bad>failed: {html.escape(task.notebook)} {html.escape(str(task.given))}: "
                     f"{html.escape(error)}</p>" for task, error in failures.values())
    return (f"<!doctype html><html lang=en><meta charset=utf-8><title>Sweep: {html.escape(output.name)}</title>"
            f"<style>{_STYLE}</style><h1>Sweep: {len(rows)} runs</h1>{failed}"
            "<p><label>plot <select id=y></select></label><label>against <select id=x></select></label>"
            "<label>grouped by <select id=group></select></label></p>"
            "<svg id=plot viewBox='0 0 900 400' role=img aria-label='the chosen result of each run; lines join the "
            f"means'></svg><p>Hold the pointer over a column's name for its meaning.</p><div class=wide><table>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div><script>{script}</script></html>\n")


def _literal(value) -> str:
    """JSON that cannot end the script it stands in."""
    return json.dumps(value, allow_nan=False).replace("</", "<\\/")


def _cell(value):
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value  # NaN: the run has no such column


def _shown(value) -> str:
    if value is None:
        return ""
    return html.escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def _write(path: Path, text: str) -> None:
    # Two sweeps may write here at once: each file is replaced whole.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.replace(temporary, path)
