"use strict";
const { classes, images, columns } = JSON.parse(document.getElementById("data").textContent);
const [form, found, shown, more] = ["filter", "found", "shown", "more"].map((id) => document.getElementById(id));
const AT_ONCE = 24;
const ORDERS = {
  random: (one, other) => one.place - other.place,
  index: (one, other) => one.index - other.index,
  surest: (one, other) => other.confidence - one.confidence,
  unsure: (one, other) => one.confidence - other.confidence,
};
let limit = AT_ONCE;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function card(image) {
  const right = image.label === image.predicted;
  const item = element("li", "", { class: right ? "right" : "wrong" });
  item.append(
    element("span", "", {
      class: "picture",
      role: "img",
      "aria-label": `Test image ${image.index}: ${classes[image.label]}`,
      style: `--x:${image.place % columns};--y:${Math.floor(image.place / columns)}`,
    }),
    element("strong", classes[image.label]),
    element("span", `${right ? "✓" : "✗"} ${classes[image.predicted]}`),
    element("small", `${(100 * image.confidence).toFixed(1)}%`),
  );
  return item;
}

function isAsked(image, asked) {
  const right = image.label === image.predicted;
  return (
    (asked.label === "" || image.label === Number(asked.label)) &&
    (asked.predicted === "" || image.predicted === Number(asked.predicted)) &&
    (asked.answer === "" || (asked.answer === "right") === right)
  );
}

function show() {
  const asked = Object.fromEntries(new FormData(form));
  const fitting = images.filter((image) => isAsked(image, asked)).sort(ORDERS[asked.order]);
  shown.replaceChildren(...fitting.slice(0, limit).map(card));
  const words = fitting.length === 1 ? "1 image" : `${fitting.length.toLocaleString("en")} images`;
  found.textContent = fitting.length > limit ? `${words}, the first ${limit}` : words;
  more.hidden = fitting.length <= limit;
}

function showAnew() {
  limit = AT_ONCE;
  show();
}

function showCell(label, predicted) {
  form.reset();
  form.elements.label.value = label;
  form.elements.predicted.value = predicted;
  showAnew();
  document.getElementById("images").scrollIntoView();
  document.getElementById("explorer").focus({ preventScroll: true });
}

function makeCountsButtons() {
  document.querySelectorAll(".heat tbody tr").forEach((row, label) => {
    row.querySelectorAll("td").forEach((cell, predicted) => {
      if (cell.textContent === "0") return;
      const says = `${cell.textContent} images of ${classes[label]} predicted as ${classes[predicted]}: show them`;
      const button = element("button", cell.textContent, { type: "button", "aria-label": says });
      button.addEventListener("click", () => showCell(label, predicted));
      cell.replaceChildren(button);
    });
  });
}

// The links lead from the store's root, where the current report is; in its own folder the report is two levels below.
if (/\/report\/[0-9a-f]{12}\/[^/]*$/.test(location.pathname)) {
  document.querySelectorAll("a.version").forEach((link) => link.setAttribute("href", `../../${link.getAttribute("href")}`));
}
document.documentElement.classList.add("scripted");
form.addEventListener("change", showAnew);
form.addEventListener("reset", () => setTimeout(showAnew));
more.addEventListener("click", () => {
  limit += AT_ONCE;
  show();
});
makeCountsButtons();
show();
