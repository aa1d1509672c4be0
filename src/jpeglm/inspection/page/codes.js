// Look inside a picture of a VQ-VAE: one patch of it, from its pixels to a vector, a code, and a language model's token.
import { bitmapOf, choices, make, number } from "./dom.js";
import { expected, section, tokenChips, tokensAre } from "./steps.js";

export function lookCodes(root, trace) {
  const { picture, codebook, model, patches } = trace;
  const given = bitmapOf(picture.given), decoded = bitmapOf(picture.decoded);
  const alone = Object.fromEntries(Object.entries(trace.codes).map(([code, one]) => [code, bitmapOf(one.alone)]));
  const tokens = trace.tokens.map((token, index) => ({ ...token, index }));
  const state = { patch: 0, code: 0, token: 0, tint: "none" };
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  const costs = patches.map((one) => one.model);
  const name = (id) => trace.names[id];
  const corner = (place) => [picture.patch * (place % picture.columns), picture.patch * Math.floor(place / picture.columns)];

  function set(changes) {
    Object.assign(state, changes);
    const key = document.activeElement?.dataset?.key;
    draw();
    if (key) root.querySelector(`[data-key="${key}"]`)?.focus({ preventScroll: true });
  }

  function open(patch) {
    const token = tokens.find((one) => one.patches.includes(patch));
    set({ patch, code: patches[patch].code, token: token.index });
  }

  function draw() {
    root.replaceChildren(whole(), step1(), step2(), step3(), step4(), step5(), expected("6", tokens[state.token], model, "grammar (so many codes, then the end)", name));
  }

  // A piece of a bitmap as a canvas.
  function piece(bitmap, left, top, width, height, label) {
    const canvas = make("canvas", { width, height, class: "pixels", role: "img", "aria-label": label });
    bitmap.then((found) => canvas.getContext("2d").drawImage(found, -left, -top));
    return canvas;
  }

  const patchOf = (bitmap, label) => piece(bitmap, ...corner(state.patch), picture.patch, picture.patch, label);
  const figure = (canvas, words) => make("figure", {}, canvas, make("figcaption", {}, words));

  function whole() {
    const tinted = state.tint === "model";
    const [least, most] = [Math.min(...costs), Math.max(...costs)];
    const grid = make("div", { class: "look-grid", role: "group", "aria-label": "patches", style: `grid-template-columns: repeat(${picture.columns}, 1fr)` },
      ...patches.map((one, place) => {
        const words = `code ${one.code}, ${number(one.model, 1)} bits under the model`;
        return make("button", {
          type: "button", "data-key": `patch-${place}`, tabindex: place === state.patch ? 0 : -1, "aria-pressed": String(place === state.patch), title: words,
          "aria-label": `patch ${place % picture.columns}, ${Math.floor(place / picture.columns)}: ${words}`, onclick: () => open(place),
          style: tinted ? `background: rgb(214 64 18 / ${(0.1 + (0.65 * (one.model - least)) / (most - least || 1)).toFixed(3)})` : null,
        });
      }));
    grid.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: picture.columns, ArrowUp: -picture.columns }[event.key];
      const next = state.patch + (move ?? 0);
      if (!move || next < 0 || next >= patches.length) return;
      event.preventDefault();
      open(next);
      root.querySelector(`[data-key="patch-${next}"]`).focus({ preventScroll: true });
    });
    const raw = 24 * picture.width * picture.height;
    const bar = (title, bits, note) => make("tr", {}, make("th", { scope: "row" }, title), make("td", {}, number(bits)),
      make("td", { class: "look-bar" }, make("i", { style: `width: ${Math.max(0.5, (100 * bits) / raw)}%` })), make("td", {}, note));
    return make("div", { class: "look-whole" },
      make("div", { class: "look-frame", style: `aspect-ratio: ${picture.width} / ${picture.height}` }, piece(given, 0, 0, picture.width, picture.height, "the picture"), grid),
      make("div", {},
        make("table", { class: "look-sums" }, make("caption", {}, "One picture, in bits"),
          make("tbody", {}, bar("pixels", raw, `${picture.width} × ${picture.height}, 24 each`), bar("as codes", patches.length * codebook.bits, `${patches.length} codes of ${number(codebook.codes)}; what they leave out is lost`),
            bar("under the model", total(costs), `${number(tokens.length)} tokens; what an arithmetic coder driven by it needs`))),
        make("p", { class: "look-label" }, "Tint the picture by"), choices("Tint", [["none", "as it is"], ["model", "bits under the model"]], state.tint, (tint) => set({ tint })),
        make("p", { class: "look-hint" }, `Choose a square of the picture: a patch of ${picture.patch} × ${picture.patch} pixels, for which one code is written.`)));
  }

  function step1() {
    return section("1", "A patch of pixels", "Two networks were trained together: an encoder, which looks at a patch and what lies around it, and a decoder, which has to draw the picture again.",
      make("div", { class: "look-row" }, figure(patchOf(given, "this patch"), `patch ${state.patch % picture.columns}, ${Math.floor(state.patch / picture.columns)}`)));
  }

  // A vector as bars above and below a line.
  function bars(vector, most, label) {
    const wide = Math.max(1, Math.min(6, Math.floor(320 / vector.length)));
    const canvas = make("canvas", { width: wide * vector.length, height: 48, class: "look-vector", role: "img", "aria-label": `${label}: ${vector.slice(0, 8).map((value) => value.toFixed(2)).join(", ")}${vector.length > 8 ? " …" : ""}` });
    const pen = canvas.getContext("2d");
    vector.forEach((value, i) => {
      pen.fillStyle = value < 0 ? "rgb(38 104 170)" : "rgb(214 96 18)";
      const high = (24 * Math.abs(value)) / most;
      pen.fillRect(wide * i, value < 0 ? 24 : 24 - high, Math.max(1, wide - 1), Math.max(1, high));
    });
    return canvas;
  }

  const near = () => patches[state.patch].nearest;
  const most = () => Math.max(...patches[state.patch].vector.map(Math.abs), ...near().flatMap(([code]) => trace.codes[code].vector.map(Math.abs)));

  function step2() {
    return section("2", "The encoder makes a vector of it", `${codebook.dimensions} numbers, up and orange where they are positive. They mean nothing by themselves; the decoder has learnt to read them.`,
      make("div", { class: "look-row" }, bars(patches[state.patch].vector, most(), "the encoder’s vector")));
  }

  function step3() {
    const farthest = Math.max(...near().map(([, length]) => length)) || 1;
    return section("3", "The nearest code takes its place", `A codebook has ${number(codebook.codes)} vectors. The one nearest to the encoder’s is taken, and only its number is written. Beside each code is what the decoder draws where it stands among its like. Choose one.`,
      make("table", { class: "look-chances look-near" }, make("tbody", {}, ...near().map(([code, length]) => make("tr", { class: code === patches[state.patch].code ? "true" : null },
        make("th", { scope: "row" }, make("button", { type: "button", "data-key": `code-${code}`, "aria-pressed": String(code === state.code), onclick: () => set({ code }) }, `code ${code}`)),
        make("td", {}, piece(alone[code], 0, 0, picture.patch, picture.patch, `code ${code} alone`)),
        make("td", {}, number(length, 3)), make("td", { class: "look-bar" }, make("i", { style: `width: ${Math.max(0.5, (100 * length) / farthest)}%` })),
        make("td", {}, code === patches[state.patch].code ? "the nearest: this one is written" : "farther")))),
      ),
      make("div", { class: "look-row" }, figure(bars(patches[state.patch].vector, most(), "the encoder’s vector"), "the encoder’s vector"), figure(bars(trace.codes[state.code].vector, most(), `code ${state.code}`), `code ${state.code}`)));
  }

  function step4() {
    return section("4", "The decoder draws the patch again", "From the codes alone, this one and those around it, so that the same code may look different in another place. What differs from the patch is lost.",
      make("div", { class: "look-row" }, figure(patchOf(given, "this patch"), "the patch"), figure(patchOf(decoded, "decoded"), "drawn again"),
        figure(piece(given, 0, 0, picture.width, picture.height, "the picture"), "the picture"), figure(piece(decoded, 0, 0, picture.width, picture.height, "the picture drawn again"), "drawn again")));
  }

  function step5() {
    const last = state.patch === patches.length - 1;
    const own = tokens.filter((token) => token.patches.includes(state.patch) || (last && !token.patches.length));
    return section("5", "Codes become tokens", `${model.vocabulary > codebook.codes + 16 ? tokensAre(model) : "Each code is a token of the language model. The deeper the colour, the more it surprised the model."} A code costs ${number(codebook.bits, 1)} bits where nothing is known of it.`,
      tokenChips(own, { name, on: () => false, chosen: state.token, choose: (token) => set({ token: token.index }) }));
  }

  open(Math.floor(picture.rows / 2) * picture.columns + Math.floor(picture.columns / 2));
}
