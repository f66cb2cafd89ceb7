// A scatter of runs with their means, joined for each group: nothing is fetched, so the page opens anywhere.
// `columns`, `rows`, `parameters` and `results` come before this, from sweep_page.py.
const colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888"];
const dashes = ["", "7 4", "2 4", "10 4 2 4"];  // so that 28 groups look different
const most = colors.length * dashes.length;
const pick = id => document.getElementById(id);
const number = v => typeof v === "number" && isFinite(v);
const numeric = columns.filter(c => rows.some(r => number(r[c])));
const varies = c => new Set(rows.map(r => r[c])).size > 1;

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

// Round values for the ticks of an axis, some five of them between two ends.
function ticks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find(k => k * power >= rough) * power, found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(+(k * step).toPrecision(12));
  return found;
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
  // As wide as it is shown, so that its text has one size on every screen; the legend goes below where that is narrow.
  const wide = Math.max(300, Math.min(900, svg.clientWidth || 900)), narrow = wide < 600;
  const left = 70, right = wide - (narrow || !g ? 15 : 200), top = 30, bottom = 330;
  svg.textContent = "";
  svg.setAttribute("viewBox", `0 0 ${wide} 400`);
  const add = (tag, attributes, text) => svg.appendChild(element(tag, attributes, text));
  if (!points.length) { add("text", {x: left, y: 60}, "no run has both numbers"); return; }
  const range = c => {
    let a = Infinity, b = -Infinity;
    for (const r of points) { a = Math.min(a, r[c]); b = Math.max(b, r[c]); }
    if (a === b) { a -= .5; b += .5; }
    const m = (b - a) * .06;
    return [a - m, b + m];
  };
  const [x0, x1] = range(x), [y0, y1] = range(y);
  const px = v => left + (v - x0) / (x1 - x0) * (right - left), py = v => bottom - (v - y0) / (y1 - y0) * (bottom - top);
  for (const v of ticks(y0, y1)) {
    add("line", {x1: left, x2: right, y1: py(v), y2: py(v), stroke: "currentColor", "stroke-opacity": .2});
    add("text", {x: left - 6, y: py(v) + 5, "text-anchor": "end"}, String(v));
  }
  for (const v of ticks(x0, x1)) add("text", {x: px(v), y: bottom + 20, "text-anchor": "middle"}, String(v));
  add("text", {x: (left + right) / 2, y: bottom + 45, "text-anchor": "middle"}, x);
  add("text", {x: 4, y: 16}, y);
  const all = g ? [...new Set(points.map(r => r[g]))].sort(inOrder) : [undefined];
  const groups = all.slice(0, most);
  const legend = k => narrow ? [left, bottom + 70 + 20 * k] : [right + 10, 36 + 20 * k];
  if (g) svg.setAttribute("viewBox", `0 0 ${wide} ${Math.max(400, legend(groups.length)[1] + 24)}`);
  groups.forEach((value, k) => {
    const color = colors[k % colors.length], dash = dashes[Math.floor(k / colors.length)];
    const mine = points.filter(r => !g || r[g] === value).sort((a, b) => a[x] - b[x]);
    const at = new Map();
    for (const r of mine) at.set(r[x], [...(at.get(r[x]) || []), r[y]]);
    const means = [...at].map(([v, found]) => {
      const n = found.length, mean = found.reduce((a, b) => a + b, 0) / n;
      const spread = found.reduce((a, b) => a + (b - mean) ** 2, 0);
      return {v, n, mean, error: n > 1 ? Math.sqrt(spread / (n - 1) / n) : 0};
    });
    const line = {fill: "none", stroke: color, "stroke-width": 2, "stroke-dasharray": dash};
    add("polyline", {points: means.map(p => px(p.v) + "," + py(p.mean)).join(" "), ...line});
    for (const r of mine) {
      const several = at.get(r[x]).length > 1;
      const c = add("circle", {cx: px(r[x]), cy: py(r[y]), r: several ? 3 : 5, fill: color, "fill-opacity": several ? .4 : 1});
      c.append(element("title", {}, columns.map(n => n + ": " + (r[n] ?? "")).join("\n")));
    }
    for (const p of means.filter(p => p.n > 1)) {
      add("line", {x1: px(p.v), x2: px(p.v), y1: py(p.mean - p.error), y2: py(p.mean + p.error), stroke: color, "stroke-width": 3});
      add("circle", {cx: px(p.v), cy: py(p.mean), r: 5, fill: color})
        .append(element("title", {}, `mean of ${p.n}: ${+p.mean.toPrecision(6)} ± ${+p.error.toPrecision(2)}`));
    }
    if (!g) return;
    const name = `${g} = ${value ?? "(none)"}`, [lx, ly] = legend(k);
    add("line", {x1: lx, x2: lx + 25, y1: ly, y2: ly, ...line});
    const label = add("text", {x: lx + 30, y: ly + 5}, name.length > 24 ? name.slice(0, 23) + "…" : name);
    label.append(element("title", {}, name));
  });
  pick("left-out").textContent = all.length > groups.length
    ? `The first ${most} of ${all.length} groups are drawn: group by a column with fewer values, or sweep fewer.` : "";
}

// Runs that differ in their seed alone are repetitions: the seed is an axis only where nothing else varies.
const changed = parameters.filter(c => c !== "seed" && varies(c));
const axis = changed.find(c => numeric.includes(c)) ?? (numeric.includes("seed") && varies("seed") ? "seed" : undefined);
fill("x", numeric, axis);
fill("y", numeric, results.find(c => numeric.includes(c)));
fill("group", ["", ...columns], changed.find(c => c !== axis) ?? "");
if (rows.length) {
  draw();
  globalThis.addEventListener?.("resize", draw);
}
