// What all views share: elements, numbers, questions to the server, the state in the address.

// An element. Texts become text nodes, never HTML: answers are a model's, and may hold anything.
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "color") made.style.background = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  for (const child of children.flat()) if (child != null) made.append(child);
  return made;
}

export async function ask(name, parameters = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters))
    for (const one of [value].flat()) query.append(key, one);
  const answer = await fetch(`api/${name}?${query}`);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

export function figure(value) {
  if (value == null) return "–";
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d`;
}

const COLORS = ["#2563a8", "#d9702b", "#2a9d6f", "#c0392b", "#8057b8", "#a0741c", "#d0589b", "#5f6b7a", "#98a62c", "#20a4b8"];
const known = new Map();
export function colorOf(run) {
  if (!known.has(run)) known.set(run, COLORS[known.size % COLORS.length]);
  return known.get(run);
}

// What is shown, as it stands behind # in the address: a link leads to the same view.
export const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
export function remember(changes) {
  Object.assign(state, changes);
  for (const key of Object.keys(state)) if (state[key] === "" || state[key] == null) delete state[key];
  history.replaceState(null, "", `#${new URLSearchParams(state)}`);
}

// Runs of one click or poll after another: only the newest answer is drawn.
let newest = 0;
export async function latest(promise, draw) {
  const mine = ++newest;
  try {
    const content = await promise;
    if (mine === newest) draw(content);
  } catch (error) {
    if (mine === newest) document.getElementById("view").replaceChildren(el("p", { class: "empty" }, error.message));
  }
}

export const shortName = (run) => run.replace(/^(outputs|multirun)\//, "");
