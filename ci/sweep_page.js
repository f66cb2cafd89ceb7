// A plain scatter with lines through each group's means: nothing is fetched, so the page opens anywhere.
// `columns`, `rows`, `parameters` and `results` come before this, from sweep_page.py.
const colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
const dashes = ["", "7 4", "2 4", "10 4 2 4"];  // so that 28 groups look different
const most = colors.length * dashes.length;
const pick = id => document.getElementById(id);
const number = v => typeof v === "number" && isFinite(v);
const numeric = columns.filter(c => rows.some(r => number(r[c])));

function element(tag, attributes, text) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const k in attributes) e.setAttribute(k, attributes[k]);
  if (text !== undefined) e.textContent = text;
  return e;
}

// Numbers by size, words by the alphabet, numbers first.
function inOrder(a, b) {
  if (number(a) && number(b)) return a - b;
  if (number(a) !== number(b)) return number(a) ? -1 : 1;
  return String(a).localeCompare(String(b));
}

function fill(id, names, first) {
  for (const n of names) {
    const o = document.createElement("option");
    o.textContent = n;
    o.selected = n === first;
    pick(id).append(o);
  }
  pick(id).onchange = draw;
}

function draw() {
  const x = pick("x").value, y = pick("y").value, g = pick("group").value, svg = pick("plot");
  const points = rows.filter(r => number(r[x]) && number(r[y]));
  svg.textContent = "";
  const add = (tag, attributes, text) => svg.appendChild(element(tag, attributes, text));
  if (!points.length) { add("text", {x: 90, y: 60}, "no run has both numbers"); return; }
  const range = c => {
    let a = Infinity, b = -Infinity;
    for (const r of points) { a = Math.min(a, r[c]); b = Math.max(b, r[c]); }
    if (a === b) { a -= .5; b += .5; }
    const m = (b - a) * .06;
    return [a - m, b + m];
  };
  const [x0, x1] = range(x), [y0, y1] = range(y);
  const px = v => 90 + (v - x0) / (x1 - x0) * 600, py = v => 340 - (v - y0) / (y1 - y0) * 310;
  const show = n => String(+n.toPrecision(3));
  for (let k = 0; k <= 4; k++) {
    const u = x0 + k * (x1 - x0) / 4, v = y0 + k * (y1 - y0) / 4;
    add("line", {x1: 90, x2: 690, y1: py(v), y2: py(v), stroke: "#ddd"});
    add("text", {x: 84, y: py(v) + 4, "text-anchor": "end"}, show(v));
    add("text", {x: px(u), y: 360, "text-anchor": "middle"}, show(u));
  }
  add("text", {x: 390, y: 385, "text-anchor": "middle"}, x);
  add("text", {x: 90, y: 18}, y);
  const all = g ? [...new Set(points.map(r => r[g]))].sort(inOrder) : [undefined];
  const groups = all.slice(0, most);
  svg.setAttribute("viewBox", `0 0 900 ${Math.max(400, 60 + 20 * groups.length)}`);
  groups.forEach((value, k) => {
    const color = colors[k % colors.length], dash = dashes[Math.floor(k / colors.length)];
    const mine = points.filter(r => !g || r[g] === value).sort((a, b) => a[x] - b[x]);
    const at = new Map();
    for (const r of mine) at.set(r[x], [...(at.get(r[x]) || []), r[y]]);
    const means = [...at].map(([v, found]) => [v, found.reduce((a, b) => a + b, 0) / found.length]);
    const line = {fill: "none", stroke: color, "stroke-width": 2, "stroke-dasharray": dash};
    add("polyline", {points: means.map(p => px(p[0]) + "," + py(p[1])).join(" "), ...line});
    for (const r of mine) {
      const c = add("circle", {cx: px(r[x]), cy: py(r[y]), r: 4, fill: color});
      c.append(element("title", {}, columns.map(n => n + ": " + (r[n] ?? "")).join("\n")));
    }
    if (!g) return;
    const name = `${g} = ${value ?? "(none)"}`;
    add("line", {x1: 700, x2: 725, y1: 36 + 20 * k, y2: 36 + 20 * k, ...line});
    const label = add("text", {x: 730, y: 40 + 20 * k}, name.length > 24 ? name.slice(0, 23) + "…" : name);
    label.append(element("title", {}, name));
  });
  pick("left-out").textContent = all.length > groups.length
    ? `The first ${most} of ${all.length} groups are drawn: group by a column with fewer values, or sweep fewer.` : "";
}

fill("x", numeric, parameters.find(c => numeric.includes(c) && new Set(rows.map(r => r[c])).size > 1));
fill("y", numeric, results.find(c => numeric.includes(c)));
fill("group", ["", ...columns], "");
if (rows.length) draw();
