// Sliders between originals and reconstructions, tables that sort, details that print.
"use strict";

for (const article of document.querySelectorAll("article.picture")) {
  const viewer = article.querySelector(".viewer");
  if (!viewer) continue;
  const compare = viewer.querySelector(".compare");
  const range = viewer.querySelector("input[type=range]");
  const original = article.querySelector("figure.original img");
  const others = [...article.querySelectorAll("figure.reconstruction")];
  const right = viewer.querySelector(".right");
  if (!original || !others.length) continue;

  const picture = (side) => {
    const image = new Image(compare.dataset.width, compare.dataset.height);
    image.alt = "";
    image.className = side;
    image.draggable = false;
    compare.prepend(image);
    return image;
  };
  const before = picture("before");
  const after = picture("after"); // prepended last: it lies below
  before.src = original.src;

  const choose = (place) => {
    after.src = others[place].querySelector("img").src;
    right.textContent = others[place].dataset.label;
    update();
  };
  const update = () => {
    compare.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value}% original, the rest ${right.textContent}`);
  };
  range.addEventListener("input", update);
  for (const radio of viewer.querySelectorAll("input[type=radio]"))
    radio.addEventListener("change", () => choose(Number(radio.value)));
  const chosen = viewer.querySelector("input[type=radio]:checked");
  article.style.setProperty("--width", `${compare.dataset.width}px`);
  choose(chosen ? Number(chosen.value) : 0);
  viewer.hidden = false;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const value = (cell) => cell.dataset.value ?? cell.textContent;
  const compareCells = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return Number.isNaN(Number(x)) || Number.isNaN(Number(y)) ? x.localeCompare(y) : x - y;
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (falls ? -1 : 1) * compareCells(a.cells[column], b.cells[column]));
      table.tBodies[0].append(...rows);
    });
  });
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
