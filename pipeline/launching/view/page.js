"use strict";

const EVERY = 2000; // milliseconds between two looks
const MOST_NAMED = 6; // curves with a colour of their own
const HEADS = [...document.querySelectorAll("#runs thead th")].map((each) => each.textContent);
const find = (selector) => document.querySelector(selector);

// What others wrote becomes text and nothing else: no markup is ever parsed here.
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "line", "polyline", "text", "title"].includes(name);
  const found = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
  found.append(...children);
  return found;
}

function clock(seconds) {
  const whole = Math.round(seconds);
  const two = (value) => String(value).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

const number = (value, digits = 0) =>
  value === null || value === undefined ? "" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const title = (run) => run.name + (run.seed ? ` seed ${run.seed}` : "");
const hours = (value) => number(value, value >= 10 ? 0 : 2);

function progressOf(run) {
  if (!run.steps) return [];
  const percent = Math.floor((100 * run.step) / run.steps);
  const bar = make("progress", { max: run.steps, value: run.step, "aria-label": `${title(run)}: ${percent} %` });
  return [make("div", {}, `${number(run.step)} of ${number(run.steps)}, ${percent} %`, bar)];
}

function rowOf(run) {
  const head = make("th", { scope: "row" }, title(run), make("small", {}, run.id || "no id yet"));
  const cells = [
    [make("span", { class: `state ${run.state.replace(" ", "-")}` }, run.state)],
    progressOf(run),
    [number(run.images_per_second)],
    [run.seconds_left ? clock(run.seconds_left) : ""],
    [number(run.top1, 2)],
    [hours(run.device_hours)],
    [run.where + (run.attempts > 1 ? `, attempt ${run.attempts}` : "")],
  ];
  return make("tr", {}, head, ...cells.map((inside, at) => make("td", { "data-label": HEADS[at + 1] }, ...inside.filter((each) => each !== ""))));
}

function summary(said) {
  const parts = [Object.entries(said.counts).map(([state, count]) => `${count} ${state}`).join(", ")];
  if (said.seconds_left !== null) parts.push(`about ${clock(said.seconds_left)} left of all`);
  const used = said.runs.reduce((sum, run) => sum + (run.device_hours ?? 0), 0);
  const ahead = said.runs.filter((run) => run.state !== "done" && run.cost.device_hours !== null);
  const rest = (run) => (run.cost.device_hours * (1 - (run.steps ? run.step / run.steps : 0)));
  const least = ahead.reduce((sum, run) => sum + rest(run) / run.cost.factor, 0);
  const most = ahead.reduce((sum, run) => sum + rest(run) * run.cost.factor, 0);
  parts.push(`${hours(used)} device-hours used` + (ahead.length ? `, ${hours(least)} to ${hours(most)} to go` : ""));
  return parts.join("; ");
}

// One picture of all runs that have points: those at work in colour, with their names at their ends.
function chart(runs, kind, caption) {
  const lines = runs.map((run) => [run, run.curves[kind] ?? []]).filter(([, points]) => points.length > 1);
  if (!lines.length) return [];
  const [wide, high, left, right, top, bottom] = [560, 260, 44, 150, 10, 28];
  const late = lines.flatMap(([, points]) => points.slice(Math.floor(points.length / 5)).map(([, value]) => value));
  const [low, up] = [Math.min(...late), Math.max(...late)];
  const end = Math.max(...lines.map(([, points]) => points.at(-1)[0]));
  const x = (epoch) => left + ((wide - left - right) * epoch) / (end || 1);
  const y = (value) => top + (high - top - bottom) * (1 - Math.min(1, Math.max(0, (value - low) / (up - low || 1))));
  const picture = make("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `${caption} of ${lines.length} runs` });
  for (const value of [low, (low + up) / 2, up]) {
    picture.append(
      make("line", { class: "axis", x1: left, x2: wide - right, y1: y(value), y2: y(value) }),
      make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value, up - low < 5 ? 2 : 0)),
    );
  }
  picture.append(
    make("text", { x: left, y: high - 8 }, "epoch 0"),
    make("text", { x: wide - right, y: high - 8, "text-anchor": "end" }, number(end, end < 10 ? 1 : 0)),
  );
  const ranked = [...lines].sort(([one], [other]) => (other.state === "running") - (one.state === "running"));
  const named = new Map(ranked.slice(0, MOST_NAMED).map(([run], at) => [run, at]));
  const ends = [];
  for (const [run, points] of lines) {
    const colour = `stroke: var(${named.has(run) ? `--c${named.get(run)}` : "--line"})`;
    const line = make("polyline", { points: points.map(([epoch, value]) => `${x(epoch)},${y(value)}`).join(" ") }, make("title", {}, title(run)));
    line.style.cssText = colour;
    picture.append(line);
    if (named.has(run)) ends.push({ run, x: x(points.at(-1)[0]), y: y(points.at(-1)[1]) });
  }
  ends.sort((one, other) => one.y - other.y);
  let least = top + 6;
  for (const each of ends) {
    each.y = Math.max(each.y, least);
    least = each.y + 14;
  }
  const over = Math.max(0, least - 14 - (high - bottom));
  for (const each of ends) {
    const label = make("text", { x: wide - right + 8, y: each.y - over + 4 }, title(each.run).slice(0, 22));
    label.style.cssText = `fill: var(--c${named.get(each.run)})`;
    picture.append(label);
  }
  return [make("figure", {}, picture, make("figcaption", {}, caption))];
}

function show(said) {
  find("#summary").textContent = summary(said);
  document.title = Object.entries(said.counts).map(([state, count]) => `${count} ${state}`).join(", ");
  find("#runs tbody").replaceChildren(...said.runs.map(rowOf));
  const failed = said.runs.filter((run) => run.error);
  find("#failures").hidden = !failed.length;
  find("#failures ul").replaceChildren(...failed.map((run) => make("li", {}, `${title(run)} (${run.id || run.state}): ${run.error}`)));
  const charts = [...chart(said.runs, "top1", "top-1 on the validation split (%)"), ...chart(said.runs, "loss", "loss in training")];
  find("#curves").hidden = !charts.length;
  find("#curves .charts").replaceChildren(...charts);
}

async function look() {
  try {
    const answer = await fetch("status.json");
    if (!answer.ok) throw new Error(await answer.text());
    show(await answer.json());
    find("#silence").textContent = "";
  } catch (error) {
    const silence = `No news: ${error.message}. Is the command that printed this address still at work?`;
    if (find("#silence").textContent !== silence) find("#silence").textContent = silence;
  }
  setTimeout(look, EVERY);
}

look();
