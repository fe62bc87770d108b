// The frame: runs on the left, tabs, the machine, the overview, and the question for news every two seconds.
import { answers, validation } from "./answers.js";
import { sparkline } from "./chart.js";
import { curves } from "./curves.js";
import { ask, colorOf, el, figure, latest, remember, shortName, span, state } from "./util.js";

const EVERY_MS = 2000, NEWEST = 10;
const VIEWS = { runs: ["Runs", overview], curves: ["Curves", curves], compare: ["Compare", compare],
  answers: ["Answers", answers], validation: ["Validation", validation] };
const view = document.getElementById("view"), by = (id) => document.getElementById(id);
let found = { runs: [], now: 0 }, shownFor = "", lastList = "", first = true;

const chosen = () => (state.runs == null ? found.runs.slice(0, NEWEST).map((run) => run.id) : state.runs.split("|"));
const selected = () => { const names = new Set(chosen()); return found.runs.filter((run) => names.has(run.id)); };
const badge = (run) => el("span", { class: `state ${run.state}` }, run.state === "failed" ? `failed: exit ${run.exit}` : run.state);

function sidebar() {
  const words = by("filter").value.toLowerCase(), names = new Set(chosen());
  const list = JSON.stringify([words, [...names], found.runs.map((run) => [run.id, run.state, run.step, run.warnings.length])]);
  if (list === lastList) return;
  lastList = list;
  by("count").textContent = `${selected().length} of ${found.runs.length}`;
  by("runs").replaceChildren(...found.runs.filter((run) => run.id.toLowerCase().includes(words)).map((run) => {
    const path = shortName(run.id).split("/"), last = path.pop();
    return el("label", { class: "run", "data-run": run.id },
      el("input", { type: "checkbox", checked: names.has(run.id), onchange: (event) => {
        if (event.target.checked) names.add(run.id); else names.delete(run.id);
        remember({ runs: [...names].join("|") || "-" });
        show(true);
      } }),
      el("span", { class: "dot", color: colorOf(run.id) }),
      el("span", { class: "name" }, path.length ? el("small", {}, path.join("/")) : null, last),
      el("span", { class: "under" }, badge(run), el("br"), `step ${run.step}${run.total ? `/${run.total}` : ""}`,
        run.warnings.length ? ` ⚠ ${run.warnings.length}` : ""));
  }));
  by("folders").textContent = `following ${(found.folders ?? []).join(" and ")}`;
}

function took(run) {
  if (!run.start) return "–";
  const end = run.state === "running" ? found.now : run.end ? Date.parse(run.end) / 1000 : run.moved;
  return span(end - Date.parse(run.start) / 1000);
}

function overview(box, runs) {
  if (!found.runs.length) {
    box.replaceChildren(el("p", { class: "empty" }, found.looked
      ? "No run here yet. It appears as soon as one is started: python launch.py …" : "reading …"));
    return;
  }
  const alarms = runs.flatMap((run) => run.warnings.map((warning) => el("div", { class: "warning" },
    el("b", {}, warning.rule), " · ", warning.words, el("span", { class: "dim" }, shortName(run.id), warning.metric ? ` · ${warning.metric}` : ""))));
  const tiles = Object.keys(found.runs[0].figures).filter((tile) => runs.some((run) => run.figures[tile] != null));
  box.replaceChildren(
    el("h2", {}, "What looks wrong ", el("small", {}, alarms.length ? "" : "nothing in the selected runs")), ...alarms,
    el("h2", {}, "Runs ", el("small", {}, "the last value of each metric")),
    el("div", { class: "scroll" }, el("table", { id: "overview" },
      el("thead", {}, el("tr", {}, el("th", {}, "run"), el("th", {}, "state"), el("th", { class: "num" }, "step"), el("th", { class: "num" }, "time"),
        tiles.map((tile) => el("th", { class: "num" }, tile)), el("th", { class: "num" }, "last news"))),
      el("tbody", {}, runs.map((run) => el("tr", {},
        el("td", {}, el("span", { class: "dot", color: colorOf(run.id) }), " ", el("a", { href: `#view=curves&runs=${encodeURIComponent(run.id)}`,
          onclick: (event) => { event.preventDefault(); remember({ view: "curves", runs: run.id }); show(true); } }, shortName(run.id))),
        el("td", {}, badge(run)), el("td", { class: "num" }, `${run.step}${run.total ? ` / ${run.total}` : ""}`), el("td", { class: "num" }, took(run)),
        tiles.map((tile) => el("td", { class: "num" }, figure(run.figures[tile]))),
        el("td", { class: "num dim" }, run.moved ? `${span(found.now - run.moved)} ago` : "–")))))));
}

function compare(box, runs, news) {
  const key = JSON.stringify(runs.map((run) => [run.id, run.version]));
  if (!news && key === shownFor && box.querySelector("#figures")) return;
  shownFor = key;
  if (!runs.length) { box.replaceChildren(el("p", { class: "empty" }, "select runs on the left")); return; }
  latest(ask("compare", { run: runs.map((run) => run.id) }), (both) => {
    const heads = () => both.runs.map((run) => el("th", {}, el("span", { class: "dot", color: colorOf(run) }), " ", shortName(run)));
    const table = (id, first, rows) => el("div", { class: "scroll" }, el("table", { id },
      el("thead", {}, el("tr", {}, el("th", {}, first), heads())), el("tbody", {}, rows)));
    const difference = (row) => el("tr", {}, el("td", {}, row.key),
      row.values.map((value) => el("td", { class: "value" }, value == null ? el("span", { class: "dim" }, "not there") : value)));
    const all = both.differences.filter((row) => !row.values.includes(null)), some = both.differences.filter((row) => row.values.includes(null));
    box.replaceChildren(
      el("h2", {}, "Where the configs differ ", el("small", {}, both.differences.length ? "folders left out" : both.runs.length > 1 ? "nowhere" : "select two runs or more")),
      all.length ? table("differences", "key", all.map(difference)) : "",
      some.length ? el("details", { open: !all.length && some.length < 20 }, el("summary", {}, "Keys that not all of them have ", el("small", {}, String(some.length))),
        table("missing", "key", some.map(difference))) : "",
      el("h2", {}, "Figures ", el("small", {}, "last values; whether a difference is real: python -m tools.compare")),
      table("figures", "", both.figures.map((row) => el("tr", {}, el("td", {}, row.name), row.values.map((value) => el("td", {}, figure(value)))))),
      el("h2", {}, "Command lines"),
      table("commands", "", [el("tr", {}, el("td", {}, "launch.py"), both.commands.map((words) => el("td", {}, el("pre", {}, words.join("\n")))))]));
  });
}

function machine() {
  const m = found.machine;
  if (!m) return;
  const color = getComputedStyle(document.body).getPropertyValue("--accent"), bits = [], lines = [];
  const part = (name, figures, past) => {
    const canvas = el("canvas");
    bits.push(el("span", {}, name, " ", el("b", {}, figures), " ", past?.length > 1 ? canvas : ""));
    if (past?.length > 1) lines.push([canvas, past]);
  };
  m.gpus.slice(0, 4).forEach((gpu, i) => part(`GPU ${gpu.name.split(":")[0]}`,
    `${gpu.busy ?? "–"} % · ${figure(gpu.used_gib)}/${figure(gpu.total_gib)} GiB`, i === 0 ? m.gpu_past : null));
  if (m.gpus.length > 4) part("GPUs", `${m.gpus.length} in all`);
  part("CPU", `${Math.round(m.cpu)} % of ${m.cores} cores`, m.gpus.length ? null : m.cpu_past);
  part("memory", `${m.used_gib.toFixed(1)}/${m.total_gib.toFixed(1)} GiB`);
  by("machine").replaceChildren(...bits);
  by("machine").title = m.gpus.map((g) => `${g.name}: ${g.power_w ?? "–"} W, ${g.temperature_c ?? "–"} °C`).join("\n");
  for (const [canvas, past] of lines) sparkline(canvas, past, color);
}

function show(news = false) {
  const name = VIEWS[state.view] ? state.view : "runs";
  by("tabs").replaceChildren(...Object.entries(VIEWS).map(([key, [title]]) => el("a", { href: `#view=${key}`, "data-view": key, class: key === name ? "on" : "",
    onclick: (event) => { event.preventDefault(); remember({ view: key, begin: "", prompt: "" }); view.scrollTop = 0; show(true); } }, title)));
  sidebar();
  if (name === "runs" || found.runs.length) VIEWS[name][1](view, selected(), news);
}

async function poll() {
  let news = false;
  try {
    found = await ask("runs");
    [...found.runs].reverse().forEach((run) => colorOf(run.id)); // oldest first: a new run changes no color
    const reads = found.looked === false && (state.view ?? "runs") !== "runs"; // all at once is sooner than bit by bit
    news = first && found.runs.length > 0 && !reads;
    if (news) first = false;
    by("live").className = "on";
    by("live").textContent = "live";
    machine();
    if (reads) { sidebar(); view.replaceChildren(el("p", { class: "empty" }, "reading …")); }
    else show(news);
  } catch (error) {
    by("live").className = "off";
    by("live").textContent = "the monitor has ended";
    console.warn(error);
  }
  setTimeout(poll, found.looked === false ? 200 : EVERY_MS);
}

by("filter").addEventListener("input", sidebar);
by("none").addEventListener("click", () => { remember({ runs: "-" }); show(true); });
by("newest").addEventListener("click", () => { remember({ runs: "" }); show(true); });
addEventListener("hashchange", () => location.reload());
poll();
