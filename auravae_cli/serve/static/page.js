// The page: one file at a time, its latent, and what is decoded from it. The service does the work.

import { channelMap, compared, difference, draw, flipped, pixelsOf, rangeOf, readLatent } from "./pixels.js";

const at = (id) => document.getElementById(id);
const addresses = new Map(); // of the blobs on display, by the element that shows them
let state = null; // what is on display: { name, file, isLatent, latent, info, notices, original, decoded, reconstruction, flip, noise }
let chosen = null; // the file that was chosen last
let current = null; // the job that runs, or ran last
let token = "";

// A job: some requests to the service in a row. A new one aborts the one before

class Job {
  controller = new AbortController();
  started = performance.now();

  get seconds() {
    return (performance.now() - this.started) / 1000;
  }

  say(text) {
    this.controller.signal.throwIfAborted();
    at("doing").textContent = text;
  }

  async ask(path, body, query = {}) {
    const { signal } = this.controller;
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const address = `${path}?${new URLSearchParams(query)}`;
    const answer = await fetch(address, { method: "POST", body, headers, signal }).catch((error) => {
      signal.throwIfAborted();
      throw new Error("the service does not answer, or the file cannot be read any more", { cause: error });
    });
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({ error: `the service responds with status ${answer.status}` }));
    if (answer.status === 401) at("ask-token").hidden = false;
    if (answer.status === 429) {
      const seconds = Number(answer.headers.get("retry-after")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      signal.throwIfAborted();
      return this.ask(path, body, query);
    }
    throw new Error(error);
  }

  async blob(...request) {
    return (await this.ask(...request)).blob();
  }
}

async function work(steps) {
  current?.controller.abort();
  const job = (current = new Job());
  at("error").hidden = true;
  at("progress").hidden = at("cancel").hidden = false;
  at("main").ariaBusy = "true";
  at("seconds").textContent = "";
  const clock = setInterval(() => { // hidden from screen readers
    if (job === current) at("seconds").textContent = `${Math.floor(job.seconds)} s`;
  }, 1000);
  try {
    await steps(job);
    job.say(`done in ${job.seconds.toFixed(1)} s`);
  } catch (error) {
    if (job === current) {
      const isCancelled = error.name === "AbortError";
      at("doing").textContent = isCancelled ? "cancelled" : "";
      if (!isCancelled) tell(error.message);
    }
  } finally {
    clearInterval(clock);
    if (job === current) {
      at("progress").hidden = at("cancel").hidden = true;
      at("main").ariaBusy = "false";
      at("seconds").textContent = "";
      at("results").inert = false;
      if (state) settle();
    }
  }
}

function tell(sentence) {
  at("error").textContent = sentence;
  at("error").hidden = false;
}

// From a file to all that is shown of it

function take(file) {
  chosen = file;
  const running = work(async (job) => {
    const next = { name: file.name.replace(/\.[^.]*$/, "") || "picture", file, notices: "", flip: "", noise: 0 };
    next.isLatent = file.size > 9 && (await file.slice(8, 9).text()) === "{";
    job.say(next.isLatent ? "reading the latent" : "reading the picture");
    const shown = await job.blob(next.isLatent ? "v1/preview" : "v1/picture", file);
    next.original = await pixelsOf(shown);
    if (next.isLatent) next.latent = file;
    else {
      job.say("encoding");
      const answer = await job.ask("v1/encode", file);
      next.notices = JSON.parse(answer.headers.get("notices") ?? "[]").join("; ");
      next.latent = await answer.blob();
    }
    next.info = await (await job.ask("v1/info", next.latent)).json();
    job.say("decoding");
    next.decoded = await job.blob("v1/decode", next.latent);
    next.reconstruction = await pixelsOf(next.decoded);
    const read = await readLatent(next.latent);
    job.controller.signal.throwIfAborted(); // from here on, nothing waits
    state = next;
    show("original", shown);
    show("reconstruction", state.decoded);
    at("left").textContent = state.isLatent ? "preview" : "original";
    at("compare").style.setProperty("--width", `${state.original.width}px`);
    tellFacts();
    showMaps(read);
    at("flip").hidden = true;
    offer(state.latent, state.decoded);
    at("take-sheet").hidden = state.isLatent;
    at("results").hidden = false;
  });
  at("results").inert = true; // flips and noise belong to the file that is still shown
  return running;
}

function show(id, blob) {
  const address = URL.createObjectURL(blob);
  at(id).src = address;
  URL.revokeObjectURL(addresses.get(id));
  addresses.set(id, address);
}

function facts(id, rows) {
  at(id).replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("div");
    const [term, told] = ["dt", "dd"].map((tag) => document.createElement(tag));
    term.textContent = name;
    told.textContent = value;
    row.append(term, told);
    return row;
  }));
}

const decibels = ({ psnr, most }) =>
  psnr === Infinity ? "identical in every pixel" : `${psnr.toFixed(2)} dB; largest difference ${most} of 255`;

function tellFacts() {
  const { file, info, notices, original, reconstruction, isLatent, latent } = state;
  const [channels, height, width] = info.shape;
  const rows = [
    ["file", file.name],
    ["picture", `${reconstruction.width} × ${reconstruction.height} pixels`],
    ["latent", `${channels} × ${height} × ${width}, ${info.dtype}, ${latent.size.toLocaleString("en")} bytes, by ${info.model}`],
  ];
  if (!isLatent) rows.push(["PSNR of the reconstruction", decibels(compared(reconstruction, original))]);
  if (notices) rows.push(["conversions", notices]);
  facts("facts", rows);
}

function paritiesOf(representation) {
  return representation.split("+").flatMap((term) => {
    const [number, parity] = term.split("x");
    return Array(Number(number)).fill(parity);
  });
}

function showMaps(read) {
  const top = rangeOf(read), parities = paritiesOf(state.info.representation);
  for (const place of document.querySelectorAll(".top")) place.textContent = top.toFixed(2);
  at("maps").replaceChildren(...parities.map((parity, channel) => {
    const negated = (parity[0] === "o" && state.flip.includes("h")) !== (parity[1] === "o" && state.flip.includes("v"));
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption");
    const mark = document.createElement("b");
    draw(canvas, channelMap(read, channel, top));
    canvas.role = "img";
    canvas.ariaLabel = `Channel ${channel}, parity ${parity}${negated ? ", negated by the flip" : ""}`;
    mark.className = `parity ${parity}`;
    mark.textContent = parity;
    caption.append(`${channel} `, mark, negated ? " negated" : "");
    figure.className = negated ? "negated" : "";
    figure.append(canvas, caption);
    return figure;
  }));
}

function offer(latent, picture) {
  const tag = state.flip && `.${state.flip}`;
  for (const [id, blob, suffix] of [["take-latent", latent, "safetensors"], ["take-picture", picture, "png"]]) {
    const address = URL.createObjectURL(blob);
    at(id).href = address;
    at(id).download = `${state.name}${tag}.${suffix}`;
    URL.revokeObjectURL(addresses.get(id));
    addresses.set(id, address);
  }
}

// Noise and flips

function press(flip) {
  for (const g of "hv") at(`flip-${g}`).ariaPressed = String(flip.includes(g));
}

function update(change) {
  const next = { ...state, ...change };
  press(next.flip);
  return work(async (job) => {
    const query = { noise: next.noise };
    if (next.noise !== state.noise) {
      job.say("decoding");
      next.decoded = await job.blob("v1/decode", next.latent, query);
      next.reconstruction = await pixelsOf(next.decoded);
    }
    let latent = next.latent, picture = next.decoded, turned = null;
    if (next.flip) {
      latent = await job.blob("v1/flip", next.latent, { by: next.flip });
      job.say("decoding the flipped latent");
      picture = await job.blob("v1/decode", latent, query);
      turned = await pixelsOf(picture);
    }
    const read = await readLatent(latent);
    job.controller.signal.throwIfAborted();
    state = next;
    show("reconstruction", state.decoded);
    tellFacts();
    showMaps(read);
    offer(latent, picture);
    at("flip").hidden = !turned;
    if (turned) showFlip(picture, turned);
  });
}

function showFlip(picture, turned) {
  const reference = flipped(state.isLatent ? state.reconstruction : state.original, state.flip);
  show("flip-decoded", picture);
  draw(at("flip-picture"), reference);
  draw(at("flip-difference"), difference(turned, reference));
  at("flip-of").textContent = state.isLatent ? "the reconstruction, flipped" : "the picture, flipped";
  const rows = [["PSNR against the flipped reconstruction", decibels(compared(turned, flipped(state.reconstruction, state.flip)))]];
  if (!state.isLatent) rows.unshift(["PSNR against the flipped picture", decibels(compared(turned, reference))]);
  facts("flip-facts", rows);
}

// Set the controls to what is on display, although something else that was asked for has failed

function settle() {
  press(state.flip);
  at("noise").value = state.noise;
  at("noise-told").textContent = state.noise ? state.noise.toFixed(2) : "none";
}

function toggle(g) {
  const pressed = new Set(["h", "v"].filter((one) => at(`flip-${one}`).ariaPressed === "true"));
  if (!pressed.delete(g)) pressed.add(g);
  update({ flip: ["h", "v"].filter((one) => pressed.has(one)).join("") });
}

// Events

at("file").addEventListener("click", () => { at("file").value = ""; }); // the same file can be chosen again
at("file").addEventListener("change", () => at("file").files[0] && take(at("file").files[0]));
addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
addEventListener("dragleave", () => at("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  at("file").value = "";
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  else tell("no file was dropped: save the picture first");
});
addEventListener("paste", (event) => event.clipboardData.files[0] && take(event.clipboardData.files[0]));
at("cancel").addEventListener("click", () => current.controller.abort());
at("flip-h").addEventListener("click", () => toggle("h"));
at("flip-v").addEventListener("click", () => toggle("v"));
addEventListener("keydown", (event) => {
  const isTyped = event.target.matches("input:not([type=range])") || event.ctrlKey || event.metaKey || event.altKey;
  const g = event.key.toLowerCase();
  if (state && !at("results").inert && !isTyped && !event.repeat && ["h", "v"].includes(g)) toggle(g);
});
at("noise").addEventListener("input", (event) => {
  const noise = Number(event.target.value);
  at("noise-told").textContent = noise ? noise.toFixed(2) : "none";
});
at("noise").addEventListener("change", (event) => state && update({ noise: Number(event.target.value) }));
at("at").addEventListener("input", (event) => {
  at("compare").style.setProperty("--at", `${event.target.value}%`);
  event.target.ariaValueText = `${event.target.value}% ${at("left").textContent}, the rest reconstruction`;
});
at("take-sheet").addEventListener("click", () => work(async (job) => {
  job.say("making the contact sheet");
  const sheet = await job.blob("v1/roundtrip", state.file, { give: "sheet", flip: "all", noise: state.noise });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(sheet), download: `${state.name}.sheet.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}));
at("pick").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value;
  at("ask-token").hidden = true;
  if (chosen) take(chosen);
});

fetch("health").then((answer) => answer.json()).then(({ model, device, representation, version }) => {
  at("model").textContent = `auravae ${version}: ${model} on ${device}, channels ${representation}`;
}, () => tell("the service does not answer"));
