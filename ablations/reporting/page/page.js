"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// A column's button sorts downwards, then upwards, then back into the paper's order.
const NEXT = { none: "descending", descending: "ascending", ascending: "none" };
const WORDS = new Intl.Collator("en", { numeric: true });

function compare(one, other) {
  const numbers = [Number(one), Number(other)];
  return numbers.some(Number.isNaN) ? WORDS.compare(one, other) : numbers[0] - numbers[1];
}

for (const table of all("table.results")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = all("tr.heads > th", table);
  heads.forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const order = NEXT[head.getAttribute("aria-sort")];
      heads.forEach((each) => each.setAttribute("aria-sort", each === head ? order : "none"));
      const value = (row) => row.cells[column].dataset.sort;
      const full = original.filter((row) => value(row) !== "");
      full.sort((a, b) => compare(value(a), value(b)) * (order === "descending" ? -1 : 1));
      const empty = original.filter((row) => value(row) === "");
      body.append(...(order === "none" ? original : [...full, ...empty]));
    });
  });
}

// Each command has a button that copies it.
for (const command of all("code.copied")) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "copy" });
  button.setAttribute("aria-label", `Copy: ${command.textContent}`);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(command.textContent).then(
      () => (button.textContent = "copied"),
      () => getSelection().selectAllChildren(command), // where the browser forbids it: one more key copies it
    );
  });
  command.after(" ", button);
}

// What scrolls sideways can be reached by the keyboard.
function reachable() {
  for (const each of all(".scroll")) each.tabIndex = each.scrollWidth > each.clientWidth ? 0 : -1;
}
addEventListener("resize", reachable);
addEventListener("toggle", reachable, true);
reachable();

// Rows are filtered by their words and by a verdict, sections by their table.
const chosenTable = document.getElementById("table-filter");
const words = document.getElementById("row-filter");
const verdicts = all("button[data-verdict]");

function filter() {
  const verdict = verdicts.find((button) => button.ariaPressed === "true")?.dataset.verdict;
  const wanted = words.value.trim().toLowerCase();
  let count = 0;
  for (const section of all("main > section")) {
    const rows = all("tbody > tr", section);
    for (const row of rows) {
      const fits = !verdict || (row.dataset.verdicts ?? "").split("|").includes(verdict);
      row.hidden = !(fits && row.textContent.toLowerCase().includes(wanted));
    }
    const left = rows.filter((row) => !row.hidden).length;
    const chosen = !chosenTable.value || section.dataset.table === chosenTable.value;
    const folded = section.querySelector("details.whole");
    if (folded && chosen && left && (verdict || wanted || chosenTable.value)) folded.open = true;
    section.hidden = !chosen || ((verdict || wanted) && left === 0);
    count += section.hidden ? 0 : left;
  }
  const active = verdict || wanted || chosenTable.value;
  document.getElementById("found").textContent = active ? `${count} rows` : "";
}

for (const button of verdicts) {
  button.addEventListener("click", () => {
    const pressed = button.ariaPressed !== "true";
    verdicts.forEach((each) => (each.ariaPressed = String(pressed && each === button)));
    filter();
  });
}
chosenTable.addEventListener("change", filter);
words.addEventListener("input", filter);

// Where a figure comes from; its place is in the address, so that it can be sent to others.
function open(id) {
  const dialog = document.getElementById(`why/${id}`);
  if (!dialog || dialog.open) return;
  dialog.showModal();
  history.replaceState(null, "", `#${id}`);
}

for (const button of all("button[data-opens]")) {
  button.addEventListener("click", () => open(button.dataset.opens));
}
for (const dialog of all("dialog")) {
  dialog.addEventListener("close", () => history.replaceState(null, "", "#"));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}
const follow = () => open(decodeURIComponent(location.hash.slice(1)));
addEventListener("hashchange", follow);
follow();
