// The page: one file at a time, its latent, and what is decoded from it. All work is the service's.

import { channelMap, compared, difference, draw, flipped, pixelsOf, rangeOf, readLatent } from "./pixels.js";

const at = (id) => document.getElementById(id);
const addresses = new Map(); // of the blobs that are shown, by what shows them
let state = null; // { name, file, isLatent, latent, original, reconstruction, flip, noise }
let running = new AbortController();
let token = "";

// Talking to the service

async function ask(path, body, query = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const address = `${path}?${new URLSearchParams(query)}`;
  const method = body ? "POST" : "GET";
  const answer = await fetch(address, { method, body, headers, signal: running.signal });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: `the service answered ${answer.status}` }));
  if (answer.status === 401) at("ask-token").hidden = false;
  if (answer.status === 429) {
    const seconds = Number(answer.headers.get("retry-after")) || 1;
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    running.signal.throwIfAborted();
    return ask(path, body, query);
  }
  throw new Error(error);
}

const blobOf = async (...request) => (await ask(...request)).blob();

// One thing at a time: a new one ends the one before

async function work(steps) {
  running.abort();
  const mine = (running = new AbortController());
  const started = performance.now();
  at("error").hidden = true;
  at("progress").hidden = at("cancel").hidden = false;
  at("main").ariaBusy = "true";
  const seconds = () => (performance.now() - started) / 1000;
  const say = (text) => { if (mine === running) at("doing").textContent = text; };
  at("seconds").textContent = "";
  const clock = setInterval(() => { // which screen readers do not tell
    if (mine === running) at("seconds").textContent = `${Math.floor(seconds())} s`;
  }, 1000);
  try {
    await steps(say);
    say(`done in ${seconds().toFixed(1)} s`);
  } catch (error) {
    if (mine === running) {
      const isCancelled = error.name === "AbortError";
      at("doing").textContent = isCancelled ? "cancelled" : "";
      if (!isCancelled) tell(error.message);
    }
  } finally {
    clearInterval(clock);
    if (mine === running) {
      at("progress").hidden = at("cancel").hidden = true;
      at("main").ariaBusy = "false";
      at("seconds").textContent = "";
      if (state) settle();
    }
  }
}

function tell(sentence) {
  at("error").textContent = sentence;
  at("error").hidden = false;
}

// From a file to all that is shown of it

async function take(file) {
  const isLatent = file.size > 9 && (await file.slice(8, 9).text()) === "{";
  await work(async (say) => {
    const next = { name: file.name.replace(/\.[^.]*$/, "") || "picture", file, isLatent, flip: "", noise: 0 };
    say(isLatent ? "reading the latent" : "reading the picture");
    const shown = await blobOf(isLatent ? "v1/preview" : "v1/picture", file);
    next.original = await pixelsOf(shown);
    let notices = "";
    if (isLatent) next.latent = file;
    else {
      say("encoding");
      const answer = await ask("v1/encode", file);
      notices = answer.headers.get("notices") ?? "";
      next.latent = await answer.blob();
    }
    next.info = await (await ask("v1/info", next.latent)).json();
    say("decoding");
    const decoded = await blobOf("v1/decode", next.latent);
    next.reconstruction = await pixelsOf(decoded);
    state = next;
    show("original", shown);
    show("reconstruction", decoded);
    at("left").textContent = isLatent ? "preview" : "original";
    at("compare").style.setProperty("--width", `${next.original.width}px`);
    tellFacts(notices ? JSON.parse(notices).join("; ") : "");
    await showMaps(next.latent);
    at("flip").hidden = true;
    offer(next.latent, decoded);
    at("take-sheet").hidden = isLatent;
    at("results").hidden = false;
  });
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
  psnr === Infinity ? "identical, every pixel" : `${psnr.toFixed(2)} dB, at most ${most} of 255 apart`;

function tellFacts(notices) {
  const { info, original, reconstruction, isLatent, latent } = state;
  const [channels, height, width] = info.shape;
  const rows = [
    ["picture", `${original.width} × ${original.height} pixels`],
    ["latent", `${channels} × ${height} × ${width}, ${info.dtype}, ${latent.size.toLocaleString("en")} bytes, by ${info.model}`],
  ];
  if (!isLatent) rows.push(["PSNR of the reconstruction", decibels(compared(reconstruction, original))]);
  if (notices) rows.push(["on the way", notices]);
  facts("facts", rows);
}

function paritiesOf(representation) {
  return representation.split("+").flatMap((term) => {
    const [number, parity] = term.split("x");
    return Array(Number(number)).fill(parity);
  });
}

async function showMaps(latent) {
  const read = await readLatent(latent), top = rangeOf(read), parities = paritiesOf(state.info.representation);
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
  return work(async (say) => {
    const query = { noise: next.noise };
    say("decoding");
    const decoded = await blobOf("v1/decode", next.latent, query);
    const reconstruction = await pixelsOf(decoded);
    let latent = next.latent, picture = decoded, turned = null;
    if (next.flip) {
      latent = await blobOf("v1/flip", next.latent, { by: next.flip });
      say("decoding the flipped latent");
      picture = await blobOf("v1/decode", latent, query);
      turned = await pixelsOf(picture);
    }
    Object.assign(state, next, { reconstruction });
    show("reconstruction", decoded);
    tellFacts("");
    await showMaps(latent);
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
  const rows = [["against the flipped reconstruction", decibels(compared(turned, flipped(state.reconstruction, state.flip)))]];
  if (!state.isLatent) rows.unshift(["PSNR against the flipped picture", decibels(compared(turned, reference))]);
  facts("flip-facts", rows);
}

// Controls as what is shown has it, whatever was asked for and has failed

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

at("file").addEventListener("change", (event) => event.target.files[0] && take(event.target.files[0]));
addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
addEventListener("dragleave", () => at("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => event.clipboardData.files[0] && take(event.clipboardData.files[0]));
at("cancel").addEventListener("click", () => running.abort());
at("flip-h").addEventListener("click", () => toggle("h"));
at("flip-v").addEventListener("click", () => toggle("v"));
addEventListener("keydown", (event) => {
  const isTyped = event.target.matches("input:not([type=range])") || event.ctrlKey || event.metaKey || event.altKey;
  if (state && !isTyped && ["h", "v"].includes(event.key)) toggle(event.key);
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
at("take-sheet").addEventListener("click", () => work(async (say) => {
  say("making the contact sheet");
  const sheet = await blobOf("v1/roundtrip", state.file, { give: "sheet", flip: "all", noise: state.noise });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(sheet), download: `${state.name}.sheet.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}));
at("pick").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value;
  at("ask-token").hidden = true;
  if (at("file").files[0]) take(at("file").files[0]);
});

fetch("health").then((answer) => answer.json()).then(({ model, device, representation, version }) => {
  at("model").textContent = `auravae ${version}: ${model} on ${device}, channels ${representation}`;
}, () => tell("the service does not answer"));
