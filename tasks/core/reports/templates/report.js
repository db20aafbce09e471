"use strict";
const { classes, images, columns } = JSON.parse(document.getElementById("data").textContent);
const [form, count, list, more] = ["filter", "found", "shown", "more"].map((id) => document.getElementById(id));
const PAGE_SIZE = 24;
const ORDERS = {
  random: (one, other) => one.position - other.position,
  index: (one, other) => one.index - other.index,
  surest: (one, other) => other.confidence - one.confidence,
  unsure: (one, other) => one.confidence - other.confidence,
};
let limit = PAGE_SIZE;

function element(name, text, attributes = {}) {
  const created = document.createElement(name);
  created.textContent = text;
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  return created;
}

function card(image) {
  const right = image.label === image.predicted;
  const item = element("li", "", { class: right ? "right" : "wrong" });
  item.append(
    element("span", "", {
      class: "picture",
      role: "img",
      "aria-label": `Test image ${image.index}: ${classes[image.label]}`,
      style: `--x:${image.position % columns};--y:${Math.floor(image.position / columns)}`,
    }),
    element("strong", classes[image.label]),
    element("span", `${right ? "✓" : "✗"} ${classes[image.predicted]}`),
    element("small", `${(100 * image.confidence).toFixed(1)}%`),
  );
  return item;
}

function matches(image, filter) {
  const right = image.label === image.predicted;
  return (
    (filter.label === "" || image.label === Number(filter.label)) &&
    (filter.predicted === "" || image.predicted === Number(filter.predicted)) &&
    (filter.answer === "" || (filter.answer === "right") === right)
  );
}

function show() {
  const filter = Object.fromEntries(new FormData(form));
  const matching = images.filter((image) => matches(image, filter)).sort(ORDERS[filter.order]);
  list.replaceChildren(...matching.slice(0, limit).map(card));
  const text = matching.length === 1 ? "1 image" : `${matching.length.toLocaleString("en")} images`;
  count.textContent = matching.length > limit ? `${text}, the first ${limit}` : text;
  more.hidden = matching.length <= limit;
}

function showFirstPage() {
  limit = PAGE_SIZE;
  show();
}

function showCell(label, predicted) {
  form.reset();
  form.elements.label.value = label;
  form.elements.predicted.value = predicted;
  showFirstPage();
  document.getElementById("images").scrollIntoView();
  document.getElementById("explorer").focus({ preventScroll: true });
}

function makeCountsButtons() {
  document.querySelectorAll(".heat tbody tr").forEach((row, label) => {
    row.querySelectorAll("td").forEach((cell, predicted) => {
      if (cell.textContent === "0") return;
      const description = `${cell.textContent} images of ${classes[label]} predicted as ${classes[predicted]}: show them`;
      const button = element("button", cell.textContent, { type: "button", "aria-label": description });
      button.addEventListener("click", () => showCell(label, predicted));
      cell.replaceChildren(button);
    });
  });
}

// The links are relative to the root of the store. The copy in the report's own folder is two levels deeper.
if (/\/report\/[0-9a-f]{12}\/[^/]*$/.test(location.pathname)) {
  document.querySelectorAll("a.version").forEach((link) => link.setAttribute("href", `../../${link.getAttribute("href")}`));
}
document.documentElement.classList.add("scripted");
form.addEventListener("change", showFirstPage);
form.addEventListener("reset", () => setTimeout(showFirstPage));
more.addEventListener("click", () => {
  limit += PAGE_SIZE;
  show();
});
makeCountsButtons();
show();
