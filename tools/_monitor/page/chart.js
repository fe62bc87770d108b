// A line chart on a canvas: several runs over the steps, smoothed or not, with the values under the mouse.
import { colorOf, el, figure, shortName } from "./util.js";

const LEFT = 50, RIGHT = 8, TOP = 8, BOTTOM = 20;

function smooth(values, weight) {
  // exponential moving average, corrected at its begin
  let mean = 0, sum = 0;
  return values.map((value) => {
    if (value == null) return null;
    mean = weight * mean + (1 - weight) * value;
    sum = weight * sum + (1 - weight);
    return mean / sum;
  });
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw * 0.999);
  const made = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) made.push(i * step);
  return made;
}

function tickText(value, ticksShown) {
  if (value === 0) return "0";
  const step = ticksShown.length > 1 ? Math.abs(ticksShown[1] - ticksShown[0]) : Math.abs(value);
  if (Math.abs(value) >= 1e5 || step < 1e-4) return value.toExponential(Math.abs(value) >= 10 * step ? 1 : 0);
  return value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
}

export class Chart {
  constructor(name) {
    this.canvas = el("canvas");
    this.tip = el("div", { class: "tip", hidden: true });
    this.box = el("div", { class: "card chart", "data-name": name }, el("div", { class: "title" }, name), this.canvas, this.tip);
    this.canvas.addEventListener("mousemove", (event) => this.hover(event.offsetX));
    this.canvas.addEventListener("mouseleave", () => { this.tip.hidden = true; this.draw(); });
    this.series = [];
  }

  set(series, options) {
    this.options = options;
    this.series = series.map((one) => ({ ...one, smoothed: options.smooth ? smooth(one.y, options.smooth) : one.y }));
    this.draw();
    this.box.dataset.runs = series.length;
    this.box.dataset.step = Math.min(...series.map((one) => one.x[one.x.length - 1] ?? 0)); // that all have reached
  }

  scale() {
    const log = this.options.log, take = (v) => v != null && (!log || v > 0);
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const { x, y } of this.series) {
      if (x.length) { x0 = Math.min(x0, x[0]); x1 = Math.max(x1, x[x.length - 1]); }
      for (const v of y) if (take(v)) { if (v < y0) y0 = v; if (v > y1) y1 = v; }
    }
    if (x0 === Infinity || y0 === Infinity) return null;
    if (x0 === x1) { x0 -= 1; x1 += 1; }
    if (log) { y0 = Math.log10(y0); y1 = Math.log10(y1); }
    if (y0 === y1) { const by = Math.abs(y0) * 0.1 || 1; y0 -= by; y1 += by; }
    const room = (y1 - y0) * 0.05;
    return { x0, x1, y0: y0 - room, y1: y1 + room, log };
  }

  draw(at = null) {
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight, ratio = devicePixelRatio || 1;
    if (!width) return;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const pen = this.canvas.getContext("2d"), style = getComputedStyle(document.body);
    pen.scale(ratio, ratio);
    pen.font = "10px system-ui, sans-serif";
    const s = (this.scaled = this.scale());
    if (!s) { pen.fillStyle = style.getPropertyValue("--dim"); pen.fillText("no value that can be drawn", LEFT, height / 2); return; }
    this.px = (x) => LEFT + ((x - s.x0) / (s.x1 - s.x0)) * (width - LEFT - RIGHT);
    this.py = (y) => TOP + (1 - ((s.log ? Math.log10(y) : y) - s.y0) / (s.y1 - s.y0)) * (height - TOP - BOTTOM);
    this.axes(pen, style, width, height);
    for (const one of this.series) {
      const color = colorOf(one.run);
      if (this.options.smooth && one.x.length > 30) this.line(pen, one.x, one.y, color, 0.22, 1);
      this.line(pen, one.x, one.x.length > 30 ? one.smoothed : one.y, color, 1, 1.6);
      if (one.x.length <= 30) this.dots(pen, one, color);
    }
    if (at != null) {
      pen.strokeStyle = style.getPropertyValue("--dim");
      pen.lineWidth = 0.7;
      pen.beginPath(); pen.moveTo(this.px(at), TOP); pen.lineTo(this.px(at), height - BOTTOM); pen.stroke();
    }
  }

  axes(pen, style, width, height) {
    const s = this.scaled, xs = ticks(s.x0, s.x1, 5).filter(Number.isInteger), ys = ticks(s.y0, s.y1, 4);
    pen.strokeStyle = style.getPropertyValue("--grid");
    pen.fillStyle = style.getPropertyValue("--dim");
    pen.lineWidth = 1;
    pen.textAlign = "right"; pen.textBaseline = "middle";
    for (const y of ys) {
      const place = Math.round(TOP + (1 - (y - s.y0) / (s.y1 - s.y0)) * (height - TOP - BOTTOM)) + 0.5;
      pen.beginPath(); pen.moveTo(LEFT, place); pen.lineTo(width - RIGHT, place); pen.stroke();
      pen.fillText(s.log ? (10 ** y).toExponential(0) : tickText(y, ys), LEFT - 6, place);
    }
    pen.textAlign = "center"; pen.textBaseline = "top";
    for (const x of xs) pen.fillText(String(x), Math.min(this.px(x), width - 14), height - BOTTOM + 6);
  }

  line(pen, x, y, color, alpha, thick) {
    pen.globalAlpha = alpha; pen.strokeStyle = color; pen.lineWidth = thick; pen.lineJoin = "round";
    pen.beginPath();
    let down = false;
    for (let i = 0; i < x.length; i++) {
      if (y[i] == null || (this.scaled.log && y[i] <= 0)) { down = false; continue; }
      if (down) pen.lineTo(this.px(x[i]), this.py(y[i]));
      else pen.moveTo(this.px(x[i]), this.py(y[i]));
      down = true;
    }
    pen.stroke();
    pen.globalAlpha = 1;
  }

  dots(pen, one, color) {
    pen.fillStyle = color;
    for (let i = 0; i < one.x.length; i++) {
      if (one.y[i] == null || (this.scaled.log && one.y[i] <= 0)) continue;
      pen.beginPath(); pen.arc(this.px(one.x[i]), this.py(one.y[i]), 2.2, 0, 7); pen.fill();
    }
  }

  // The values of all runs at the step under the mouse (of each the nearest that is there).
  hover(place) {
    if (!this.scaled) return;
    const s = this.scaled, width = this.canvas.clientWidth;
    const step = s.x0 + ((place - LEFT) / (width - LEFT - RIGHT)) * (s.x1 - s.x0);
    const rows = this.series.filter((one) => one.x.length).map((one) => {
      let low = 0, high = one.x.length - 1;
      while (low < high) { const mid = (low + high) >> 1; if (one.x[mid] < step) low = mid + 1; else high = mid; }
      const i = low > 0 && step - one.x[low - 1] < one.x[low] - step ? low - 1 : low;
      return { run: one.run, x: one.x[i], y: one.y[i] };
    });
    if (!rows.length) return;
    const at = rows.reduce((a, b) => (Math.abs(a.x - step) <= Math.abs(b.x - step) ? a : b)).x;
    rows.sort((a, b) => (b.y ?? -Infinity) - (a.y ?? -Infinity));
    this.tip.replaceChildren(el("b", {}, `step ${at}`), ...rows.slice(0, 12).map((row) =>
      el("div", {}, el("span", { class: "dot", color: colorOf(row.run) }), el("b", {}, figure(row.y)), shortName(row.run))));
    this.tip.hidden = false;
    this.tip.style.top = "34px";
    this.tip.style.left = place < width / 2 ? `${place + 24}px` : "auto";
    this.tip.style.right = place < width / 2 ? "auto" : `${width - place + 24}px`;
    this.draw(at);
  }
}

// A small line without axes, from 0 to 100.
export function sparkline(canvas, values, color) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth || 70, height = canvas.clientHeight || 20;
  canvas.width = width * ratio; canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio); pen.strokeStyle = color; pen.lineWidth = 1.2;
  pen.beginPath();
  values.forEach((value, i) => pen.lineTo((i / Math.max(1, values.length - 1)) * width, height - 1 - (value / 100) * (height - 2)));
  pen.stroke();
}
