// Sliders between originals and reconstructions (or two of these), which zoom as one; tables that sort, details that print.
"use strict";

const chosen = { left: "original", right: null }; // labels: one choice for all pictures
const viewers = [];

for (const article of document.querySelectorAll("article.picture")) {
  const viewer = article.querySelector(".viewer");
  const original = article.querySelector("figure.original img");
  const others = [...article.querySelectorAll("figure.reconstruction")];
  if (!viewer || !original || !others.length) continue;
  const compare = viewer.querySelector(".compare");
  const range = viewer.querySelector("input[type=range]");

  const sources = new Map([["original", original.src]]);
  for (const figure of others) sources.set(figure.dataset.label, figure.querySelector("img").src);
  const first = others[0].dataset.label;
  chosen.right ??= first;

  const layer = (side) => {
    const box = document.createElement("div");
    const image = new Image(compare.dataset.width, compare.dataset.height);
    image.alt = "";
    image.draggable = false;
    box.className = side;
    box.append(image);
    compare.prepend(box);
    return image;
  };
  const images = { left: layer("before"), right: layer("after") }; // prepended last: it lies below

  const show = () => {
    const otherwise = { left: "original", right: first }; // where a picture lacks what is chosen
    const labels = {};
    for (const side of ["left", "right"]) {
      const label = sources.has(chosen[side]) ? chosen[side] : otherwise[side];
      labels[side] = label;
      images[side].src = sources.get(label);
      viewer.querySelector(`.side.${side}`).textContent = label;
      viewer.querySelector(`.of-${side}`).value = label;
    }
    update(labels);
  };
  let names = {};
  const update = (labels = names) => {
    names = labels;
    compare.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value}% ${labels.left}, the rest ${labels.right}`);
  };
  range.addEventListener("input", () => update());
  for (const side of ["left", "right"])
    viewer.querySelector(`.of-${side}`).addEventListener("change", (event) => {
      chosen[side] = event.target.value;
      for (const other of viewers) other();
    });

  // Both sides have one place and one scale: what is at a point of the window stays there.
  const view = { scale: 1, x: 0, y: 0 };
  const place = () => {
    const { clientWidth: width, clientHeight: height } = compare;
    view.x = Math.min(0, Math.max(width * (1 - view.scale), view.x));
    view.y = Math.min(0, Math.max(height * (1 - view.scale), view.y));
    const transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    for (const image of Object.values(images)) image.style.transform = transform;
    compare.classList.toggle("zoomed", view.scale > 1);
    compare.classList.toggle("pixels", view.scale >= 4);
  };
  const zoom = (factor, x = compare.clientWidth / 2, y = compare.clientHeight / 2) => {
    const scale = Math.min(16, Math.max(1, view.scale * factor));
    view.x = x - ((x - view.x) * scale) / view.scale;
    view.y = y - ((y - view.y) * scale) / view.scale;
    view.scale = scale;
    place();
  };
  viewer.querySelector("button.in").addEventListener("click", () => zoom(2));
  viewer.querySelector("button.out").addEventListener("click", () => zoom(0.5));
  const at = (event) => {
    const box = compare.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  compare.addEventListener("dblclick", (event) => zoom(2, ...at(event)));
  compare.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    zoom(2 ** (-event.deltaY / 200), ...at(event));
  }, { passive: false });
  compare.addEventListener("keydown", (event) => {
    if (event.key === "+") zoom(2);
    if (event.key === "-") zoom(0.5);
  });
  // Enlarged, a drag moves the pictures, but near the handle it moves that.
  compare.addEventListener("pointerdown", (event) => {
    if (view.scale === 1) return;
    event.preventDefault();
    range.focus({ preventScroll: true });
    let [x, y] = at(event);
    const isHandle = Math.abs(x - (compare.clientWidth * range.value) / 100) < 24;
    const move = (next) => {
      const [newX, newY] = at(next);
      if (isHandle) {
        range.value = (100 * newX) / compare.clientWidth;
        update();
      } else {
        view.x += newX - x;
        view.y += newY - y;
        place();
      }
      [x, y] = [newX, newY];
    };
    compare.setPointerCapture(event.pointerId);
    compare.addEventListener("pointermove", move);
    const end = () => compare.removeEventListener("pointermove", move);
    compare.addEventListener("pointerup", end, { once: true });
    compare.addEventListener("pointercancel", end, { once: true });
  });
  addEventListener("resize", place);

  article.style.setProperty("--width", `${compare.dataset.width}px`);
  viewers.push(show);
  viewer.hidden = false;
}
for (const show of viewers) show();

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
