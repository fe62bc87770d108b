// Answers of a step by group, and the same prompt over the validations.
import { ask, el, figure, latest, remember, shortName, state } from "./util.js";

const COUNT = 20;
let shownFor = "";

function tint(score, low, high) {
  if (score == null) return "transparent";
  const share = high > low ? (score - low) / (high - low) : 1;
  return `hsl(${Math.round(share * 125 + 5)} 55% 50% / ${0.35 + 0.4 * Math.abs(share - 0.5) * 2})`;
}

function answerRow(answer, some) {
  const sign = answer.advantage == null ? "" : answer.advantage > 0 ? "up" : answer.advantage < 0 ? "down" : "";
  return el("tr", {},
    el("td", { class: "num" }, answer.masked ? "masked" : figure(answer.score)),
    el("td", { class: `num ${sign}` }, answer.advantage == null ? (some ? "–" : "") : (answer.advantage > 0 ? "+" : "") + answer.advantage.toFixed(2)),
    el("td", {}, el("pre", { class: "answer" }, answer.text)),
    el("td", { class: "parts" }, Object.entries(answer.parts).map(([name, value]) =>
      el("span", {}, `${name} `, el("b", {}, typeof value === "number" ? figure(value) : String(value ?? "–"))))));
}

function groupCard(group, title) {
  const some = group.answers.some((answer) => answer.advantage != null);
  const parts = group.answers.some((answer) => Object.keys(answer.parts).length);
  return el("section", { class: "card group" },
    el("div", { class: "head" }, el("div", { class: "question" }, title ?? group.question),
      el("div", { class: "figures" }, `${group.answers.length} answer${group.answers.length > 1 ? "s" : ""}`,
        ` · mean ${figure(group.mean)}`, group.std == null ? "" : ` · std ${figure(group.std)}`,
        group.std === 0 ? " · no spread: they teach nothing" : "")),
    el("details", {}, el("summary", {}, "prompt and reference answer"), el("pre", {}, group.prompt),
      group.reference == null ? null : el("div", { class: "reference" }, el("pre", {}, `reference: ${group.reference}`))),
    el("table", {}, el("thead", {}, el("tr", {}, el("th", { class: "num" }, "score"),
      el("th", { class: "num", title: "computed here from the scores, not read from the run" }, some ? "advantage" : ""),
      el("th", {}, "answer"), el("th", {}, parts ? "parts of the reward" : ""))),
      el("tbody", {}, group.answers.map((answer) => answerRow(answer, some)))));
}

function picker(runs, kind, redraw) {
  const chosen = runs.find((run) => run.id === state.of && run.steps[kind]) ?? runs.find((run) => run.steps[kind]);
  const choice = el("select", { id: "of", onchange: (event) => { remember({ of: event.target.value, step: "", begin: "", prompt: "" }); redraw(); } },
    runs.filter((run) => run.steps[kind]).map((run) => el("option", { value: run.id, selected: run === chosen }, shortName(run.id))));
  return [chosen, choice];
}

function pages(begin, of, count, redraw) {
  const go = (to) => () => { remember({ begin: to ? String(to) : "" }); redraw(); };
  return el("div", { class: "bar" },
    el("button", { disabled: begin <= 0, onclick: go(Math.max(0, begin - count)) }, "‹ before"),
    el("span", { class: "dim" }, of ? `${begin + 1} to ${Math.min(of, begin + count)} of ${of}` : "nothing found"),
    el("button", { disabled: begin + count >= of, onclick: go(begin + count) }, "next ›"));
}

async function load(run) {
  const steps = await ask("steps", { run: run.id });
  const all = steps.rollouts;
  const wanted = Number(state.step), follows = !state.step || !all.includes(wanted);
  const step = follows ? all[all.length - 1] : wanted;
  const order = state.order ?? "file", words = state.words ?? "", begin = Number(state.begin ?? 0);
  const found = await ask("answers", { run: run.id, kind: "rollouts", step, order, words, begin, count: COUNT });
  return { steps: all, step, follows, found, order, words, begin, estimator: steps.estimator };
}

export function answers(view, runs, news) {
  const redraw = () => answers(view, runs, true);
  const [run, choice] = picker(runs, "rollouts", redraw);
  if (!run) { shownFor = ""; view.replaceChildren(el("p", { class: "empty" }, "none of the selected runs has answers (rollouts/STEP.jsonl)")); return; }
  const key = `${run.id} ${run.steps.rollouts}`;
  if (!news && view.querySelector("#answers") && (shownFor === key || state.step)) return;
  shownFor = key;
  latest(load(run), (now) => {
    const go = (step) => { remember({ step: step === now.steps[now.steps.length - 1] ? "" : String(step), begin: "" }); redraw(); };
    const at = now.steps.indexOf(now.step);
    view.replaceChildren(
      el("div", { class: "bar" }, choice,
        el("button", { disabled: at <= 0, onclick: () => go(now.steps[at - 1]) }, "‹"),
        el("label", {}, "step", el("select", { id: "step", onchange: (event) => go(Number(event.target.value)) },
          now.steps.map((step) => el("option", { value: step, selected: step === now.step }, String(step))))),
        el("button", { disabled: at >= now.steps.length - 1, onclick: () => go(now.steps[at + 1]) }, "›"),
        el("label", {}, "groups", el("select", { id: "order", onchange: (event) => { remember({ order: event.target.value, begin: "" }); redraw(); } },
          [["file", "as sampled"], ["best", "best first"], ["worst", "worst first"], ["spread", "most spread first"]].map(([value, name]) =>
            el("option", { value, selected: value === now.order }, name)))),
        el("input", { type: "search", id: "words", placeholder: "words in prompt or answer", value: now.words,
          onchange: (event) => { remember({ words: event.target.value, begin: "" }); redraw(); } }),
        el("span", { class: "dim" }, now.follows ? "follows the newest step" : "")),
      el("p", { class: "dim" }, `The advantage is computed here: score − mean of its group${now.found.by_std ? ", divided by the group’s standard deviation" : ""}, as GRPO does.`,
        now.estimator && now.estimator !== "grpo" ? ` This run’s own estimator is ${now.estimator}, which may weigh answers in another way.` : ""),
      el("div", { id: "answers", "data-step": now.step }, now.found.groups.map((group) => groupCard(group))),
      pages(now.begin, now.found.of, COUNT, redraw));
  });
}

export function validation(view, runs, news) {
  const redraw = () => validation(view, runs, true);
  const [run, choice] = picker(runs, "validation", redraw);
  if (!run) { shownFor = ""; view.replaceChildren(el("p", { class: "empty" }, "none of the selected runs has validations (validation/STEP.jsonl)")); return; }
  const key = `${run.id} ${run.steps.validation} ${state.prompt ?? ""}`;
  if (!news && shownFor === key && view.querySelector("#validation")) return;
  shownFor = key;
  if (state.prompt) {
    latest(ask("prompt", { run: run.id, id: state.prompt }), (found) => view.replaceChildren(
      el("div", { class: "bar" }, el("button", { id: "back", onclick: () => { remember({ prompt: "" }); redraw(); } }, "‹ all prompts"), choice),
      el("h2", {}, found.steps[0].question),
      el("div", { id: "validation" }, found.steps.map((group) => groupCard(group, `step ${group.step}`)))));
    return;
  }
  const begin = Number(state.begin ?? 0), count = 50;
  latest(ask("prompts", { run: run.id, begin, count }), (found) => {
    const all = found.prompts.flatMap((prompt) => prompt.scores).filter((score) => score != null);
    const low = Math.min(0, ...all), high = Math.max(1, ...all);
    view.replaceChildren(
      el("div", { class: "bar" }, choice, el("span", { class: "dim" },
        `a cell a validation: steps ${found.steps.join(", ")} · first what was learned, last what was lost · click for the answers`)),
      el("table", { id: "validation" },
        el("thead", {}, el("tr", {}, el("th", {}, "prompt"), el("th", {}, "score at each validation"), el("th", { class: "num" }, "first"), el("th", { class: "num" }, "last"))),
        el("tbody", {}, found.prompts.map((prompt) => {
          const scores = prompt.scores.filter((score) => score != null);
          return el("tr", { class: "click", onclick: () => { remember({ prompt: prompt.id }); redraw(); } },
            el("td", {}, prompt.question),
            el("td", {}, el("div", { class: "cells" }, prompt.scores.map((score, i) =>
              el("i", { color: tint(score, low, high), title: `step ${found.steps[i]}: ${figure(score)}` })))),
            el("td", { class: "num" }, figure(scores[0])), el("td", { class: "num" }, figure(scores[scores.length - 1])));
        }))),
      pages(begin, found.of, count, redraw));
  });
}
