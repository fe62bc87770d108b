// Curves of the selected runs, section by section; only open sections are asked for.
import { Chart } from "./chart.js";
import { ask, el, latest, remember, state } from "./util.js";

const FIRST_OPEN = ["Main", "Reward: parts"];
let charts = new Map(), frames = new Map(), shownFor = "", versions = "", controls = null, content = null;

const open = () => (state.open == null ? FIRST_OPEN : state.open.split("|"));
const options = () => ({ smooth: Number(state.smooth ?? 0.6), log: state.log === "1" });

function build(view) {
  charts = new Map(); frames = new Map(); versions = "";
  const redraw = () => { if (content) draw(content); };
  controls = el("div", { class: "bar" },
    el("input", { type: "search", placeholder: "filter curves by name", value: state.names ?? "", "aria-label": "filter curves",
      oninput: (event) => { remember({ names: event.target.value }); redraw(); } }),
    el("label", {}, "smoothing", el("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: options().smooth,
      oninput: (event) => { remember({ smooth: event.target.value }); redraw(); } })),
    el("label", {}, el("input", { type: "checkbox", checked: options().log,
      onchange: (event) => { remember({ log: event.target.checked ? "1" : "" }); redraw(); } }), "logarithmic"));
  view.replaceChildren(controls, el("div", { id: "sections" }));
}

function draw(found) {
  content = found;
  const root = document.getElementById("sections"), words = (state.names ?? "").toLowerCase();
  if (!root) return;
  if (!found.sections.length) root.replaceChildren(el("p", { class: "empty" }, "no metrics yet"));
  else root.querySelector(".empty")?.remove();
  const wanted = new Set(found.sections.map((section) => section.title));
  for (const [title, frame] of frames) if (!wanted.has(title)) { frame.box.remove(); frames.delete(title); }
  for (const section of found.sections) {
    let frame = frames.get(section.title);
    if (!frame) {
      const grid = el("div", { class: "charts" }), count = el("small");
      const box = el("details", { open: open().includes(section.title), "data-section": section.title },
        el("summary", {}, section.title, " ", count), grid);
      box.addEventListener("toggle", () => {
        const now = new Set(open());
        if (box.open === now.has(section.title)) return;
        if (box.open) now.add(section.title); else now.delete(section.title);
        remember({ open: [...now].join("|") || "-" });
        versions = ""; // the curves of a section that was closed were not sent
        if (box.open) refresh();
      });
      frame = { box, grid, count };
      frames.set(section.title, frame);
      root.append(box);
    }
    frame.count.textContent = String(section.count);
    for (const one of section.charts) {
      const key = `${section.title} ${one.name}`;
      if (!charts.has(key)) { charts.set(key, new Chart(one.name)); frame.grid.append(charts.get(key).box); }
      const chart = charts.get(key);
      chart.box.hidden = !one.name.toLowerCase().includes(words);
      chart.set(one.series, options());
    }
  }
  root.dataset.drawn = String(Number(root.dataset.drawn ?? 0) + 1);
}

let asked = [];
function refresh() {
  latest(ask("curves", { run: asked, section: open() }), (found) => {
    versions = JSON.stringify(found.versions);
    draw(found);
  });
}

export function curves(view, runs, news) {
  asked = runs.map((run) => run.id);
  if (!asked.length) { shownFor = ""; view.replaceChildren(el("p", { class: "empty" }, "select runs on the left")); return; }
  const key = asked.join("|");
  if (news || shownFor !== key || !view.querySelector("#sections")) build(view);
  else if (JSON.stringify(Object.fromEntries(runs.map((run) => [run.id, run.version]))) === versions) return;
  shownFor = key;
  refresh();
}

addEventListener("resize", () => { if (content && document.getElementById("sections")) draw(content); });
