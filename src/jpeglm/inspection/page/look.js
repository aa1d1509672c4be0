// Look inside a JPEG: one picture, one MCU of it, and everything that is said about it on the way from its pixels to a
// language model's tokens.
import { bitmapOf, choices, grey, make, number } from "./dom.js";
import { ZIGZAG, basis, decode, samplesOf } from "./jpeg.js";
import { Links } from "./model.js";
import { byteBoxes, expected, section, tokenChips, tokensAre } from "./steps.js";

const TINTS = [["none", "as it is"], ["scan", "bits in the file"], ["model", "bits under the model"]];
const NOTES = ["", " A 00 behind FF is stuffed in, so that no data look like a marker.", " FF D0 to FF D7 are restart markers: one can begin to decode behind them."];
const KINDS = ["", "stuffed: 00 behind FF, so that no data look like a marker", "restart marker"];

export function look(root, trace) {
  const links = new Links(trace);
  const { picture, model } = trace;
  const given = bitmapOf(picture.given);
  const state = { mcu: 0, block: 0, runs: [], place: 0, kept: 64, tint: "none", token: null };
  const shades = { scan: trace.mcus.map((one) => one.scan), model: trace.mcus.map((one) => one.model) };
  const total = (values) => values.reduce((sum, value) => sum + value, 0);

  function set(changes) {
    Object.assign(state, changes);
    const key = document.activeElement?.dataset?.key;
    draw();
    if (key) root.querySelector(`[data-key="${key}"]`)?.focus({ preventScroll: true });
  }

  function openMcu(mcu) {
    const first = links.blocksOf(mcu)[0].index;
    state.block = first;
    point(links.partsAbout(first, 0), { mcu, place: 0 });
  }

  const point = (parts, changes = {}) => set({ runs: parts.map((part) => [part.first, part.end]), ...tokenAt(parts), ...changes });

  // The token that says the first of these parts.
  function tokenAt(parts) {
    const found = links.tokens.find((token) => links.touches([[parts[0].first, parts[0].end]], token));
    return found ? { token: found.index } : {};
  }

  function draw() {
    root.replaceChildren(whole(), step1(), step2(), step3(), step4(), step5(), step6(), step7());
  }

  // The picture, its MCUs as buttons over it.
  function whole() {
    const canvas = make("canvas", { width: picture.width, height: picture.height, class: "pixels", role: "img", "aria-label": "the picture as it is decoded" });
    canvas.getContext("2d").putImageData(decode(trace, state.kept), 0, 0);
    const grid = make("div", { class: "look-grid", role: "group", "aria-label": "MCUs", style: `grid-template-columns: repeat(${picture.columns}, 1fr)` });
    const values = shades[state.tint];
    const [least, most] = values ? [Math.min(...values), Math.max(...values)] : [0, 1];
    for (let mcu = 0; mcu < picture.rows * picture.columns; mcu++) {
      const share = values ? (values[mcu] - least) / (most - least || 1) : 0;
      const bits = `${number(shades.scan[mcu])} bits in the file, ${number(shades.model[mcu])} under the model`;
      grid.append(make("button", {
        type: "button", "data-key": `mcu-${mcu}`, tabindex: mcu === state.mcu ? 0 : -1, "aria-pressed": String(mcu === state.mcu), title: bits,
        "aria-label": `MCU ${mcu % picture.columns}, ${Math.floor(mcu / picture.columns)}: ${bits}`,
        style: values ? `background: rgb(214 64 18 / ${(0.1 + 0.65 * share).toFixed(3)})` : null, onclick: () => openMcu(mcu),
      }));
    }
    grid.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: picture.columns, ArrowUp: -picture.columns }[event.key];
      const next = state.mcu + (move ?? 0);
      if (!move || next < 0 || next >= trace.mcus.length) return;
      event.preventDefault();
      openMcu(next);
      root.querySelector(`[data-key="mcu-${next}"]`).focus({ preventScroll: true });
    });
    const kept = make("input", { type: "range", min: 1, max: 64, value: state.kept, id: "look-kept", "data-key": "kept", oninput: () => set({ kept: Number(kept.value) }) });
    const raw = 24 * picture.width * picture.height;
    const scan = total(shades.scan), under = total(shades.model);
    const bar = (name, bits, note) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, number(bits)),
      make("td", { class: "look-bar" }, make("i", { style: `width: ${Math.max(0.5, (100 * bits) / raw)}%` })), make("td", {}, note));
    return make("div", { class: "look-whole" },
      make("div", { class: "look-frame", style: `aspect-ratio: ${picture.width} / ${picture.height}` }, canvas, grid),
      make("div", {},
        make("table", { class: "look-sums" }, make("caption", {}, "One picture, in bits"),
          make("tbody", {}, bar("pixels", raw, `${picture.width} × ${picture.height}, 24 each`), bar("in the file", scan, `JPEG, quality ${picture.quality}, ${picture.subsampling}`),
            bar("under the model", under, `${number(trace.tokens.length)} tokens; what an arithmetic coder driven by it needs`))),
        make("p", { class: "look-label" }, "Tint the picture by"), choices("Tint", TINTS, state.tint, (tint) => set({ tint })),
        make("label", { class: "look-label", for: "look-kept" }, `Coefficients kept in each block: ${state.kept} of 64`), kept,
        make("p", { class: "look-hint" }, "Choose a square of the picture: an MCU, the piece that JPEG writes at a time. What you point at below is marked everywhere.")));
  }

  function step1() {
    const own = links.blocksOf(state.mcu);
    const high = picture.height / picture.rows, wide = picture.width / picture.columns;
    const left = (state.mcu % picture.columns) * wide, top = Math.floor(state.mcu / picture.columns) * high;
    const piece = make("canvas", { width: wide, height: high, class: "pixels look-piece", role: "img", "aria-label": "this MCU in colour" });
    given.then((bitmap) => piece.getContext("2d").drawImage(bitmap, -left, -top));
    const names = own.map((block, place) => trace.components[block.component].name + (own.filter((one) => one.component === block.component).length > 1 ? place + 1 : ""));
    const blocks = make("div", { class: "look-planes" }, ...own.map((block, at) =>
      make("button", { type: "button", class: "look-plane", "data-key": `block-${at}`, "aria-pressed": String(block.index === state.block), onclick: () => set({ block: block.index, place: 0, runs: [] }) },
        grey(block.samples), names[at])));
    const how = picture.subsampling === "gray" ? "The picture is grey: one plane." : picture.subsampling === "4:4:4" ? "Y is brightness, Cb and Cr are how blue and how red." :
      `Y is brightness; Cb and Cr, how blue and how red, are averaged first, for the eye sees colour coarsely (${picture.subsampling}).`;
    return section("1", "Pixels become blocks", `${how} Each plane is cut into blocks of 8 × 8 samples. Choose one.`,
      make("div", { class: "look-row" }, make("figure", {}, piece, make("figcaption", {}, `MCU ${state.mcu % picture.columns}, ${Math.floor(state.mcu / picture.columns)}`)), blocks));
  }

  function table(name, values, show, shade) {
    const marked = links.placesIn(state.runs, state.block);
    const cells = values.map((value, place) => make("button", {
      type: "button", "data-key": `${name}-${place}`, tabindex: place === state.place ? 0 : -1, class: marked.has(place) ? "on" : null, "aria-pressed": String(place === state.place),
      style: shade(value, place), onclick: () => point(links.partsAbout(state.block, place), { place }), "aria-label": `${name} ${place & 7}, ${place >> 3}: ${show(value)}`,
    }, show(value)));
    const grid = make("div", { class: "look-table", role: "group", "aria-label": name }, ...cells);
    grid.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 8, ArrowUp: -8 }[event.key];
      const place = state.place + (move ?? 0);
      if (!move || place < 0 || place > 63) return;
      event.preventDefault();
      point(links.partsAbout(state.block, place), { place });
      root.querySelector(`[data-key="${name}-${place}"]`).focus({ preventScroll: true });
    });
    return make("figure", {}, grid, make("figcaption", {}, name));
  }

  const block = () => trace.blocks[state.block];
  const steps = () => trace.components[block().component].steps;
  const signed = (value, most) => `background: rgb(${value < 0 ? "38 104 170" : "214 96 18"} / ${Math.min(0.58, (0.58 * Math.abs(value)) / (most || 1)).toFixed(3)})`;

  function step2() {
    const own = block();
    const most = Math.max(...own.dct.slice(1).map(Math.abs), 1);
    const wave = basis(state.place).map((value) => 128 + 400 * value);
    return section("2", "Blocks become waves", "The cosine transform writes a block as a sum of 64 fixed patterns: first its mean, then waves, coarse ones to the upper left. Nothing is lost yet. Choose a number to see its pattern.",
      make("div", { class: "look-row" }, table("samples", own.samples, String, (value) => `background: rgb(${value} ${value} ${value}); color: ${value > 117 ? "#000" : "#fff"}`),
        table("weights of the patterns", own.dct, (value) => String(Math.round(value) || 0), (value) => signed(value, most)),
        make("figure", {}, grey(wave), make("figcaption", {}, `pattern ${state.place & 7}, ${state.place >> 3}`))));
  }

  function step3() {
    const own = block();
    const flat = steps().flat();
    const zeros = own.levels.filter((level) => level === 0).length;
    const kept = samplesOf(own.levels, steps(), state.kept);
    return section("3", "Weights become small integers", `Each weight is divided by a step and rounded: this is where JPEG loses something, and where quality ${picture.quality} acts. Of these 64, ${zeros} are 0 now.`,
      make("div", { class: "look-row" }, table("step sizes", flat, String, () => ""), table("levels", own.levels, String, (value) => signed(value, 6)),
        make("figure", {}, grey([...kept]), make("figcaption", {}, state.kept < 64 ? `decoded from the first ${state.kept}` : "decoded again"))));
  }

  function chip(part) {
    return make("button", { type: "button", class: `look-chip${links.touches(state.runs, part) ? " on" : ""}`, "data-key": `part-${part.index}`, onclick: () => point([part], part.k >= 0 ? { block: part.block, place: ZIGZAG[Math.min(63, part.k)] } : {}) },
      make("b", {}, part.name), make("code", {}, part.bits));
  }

  // How the level of pattern 0, 0 is written: what comes before it does not count behind a restart marker.
  function firstLevel() {
    const { component, prediction, levels } = block();
    const leads = links.blocksOf(state.mcu).find((one) => one.component === component).index === state.block;
    if (!leads || (state.mcu && state.mcu % picture.restart_interval !== 0)) {
      return `The first level, ${levels[0]}, is written as its difference from ${prediction}, the one of the block before.`;
    }
    return `The first level, ${levels[0]}, is written whole: ${state.mcu ? "behind a restart marker, what came before does not count" : "no block of its plane comes before"}.`;
  }

  function step4() {
    const own = links.parts.filter((part) => part.block === state.block);
    return section("4", "Integers become symbols, symbols become bits", `In zigzag order, from coarse to fine. ${firstLevel()} “DC 5” says: a number of 5 bits follows. “AC 2/3” says: two zeros, then a level of 3 bits, which follow; EOB: only zeros are left. “amp” are a number’s bits, at most four at a time; it is negative if they begin with 0. Frequent symbols have short codes (Huffman).`,
      make("div", { class: "look-chips" }, ...own.map(chip)));
  }

  function step5() {
    const span = links.spanOf(state.mcu);
    const notes = [...new Set(links.bytesIn(span).map((byte) => NOTES[byte.kind]))].join("");
    const own = byteBoxes(links.bytesIn(span), links.parts, {
      kinds: KINDS, on: (part) => links.touches(state.runs, part), other: (part) => part.mcu !== state.mcu,
      choose: (part) => point([part], part.k >= 0 && part.mcu === state.mcu ? { block: part.block, place: ZIGZAG[part.k] } : {}),
    });
    const [first, end] = span;
    return section("5", "Bits become bytes", `Bits ${number(first)} to ${number(end - 1)} of the file’s scan, this MCU’s, packed eight to a byte. Codes begin anywhere in a byte, which is why bytes are a hard alphabet for a language model.${notes}`, own);
  }

  function step6() {
    return section("6", "Symbols become tokens", `${tokensAre(model)} A token knows no borders: the first one here may hold the end of the MCU before.`,
      tokenChips(links.tokensIn(links.spanOf(state.mcu)), {
        name: (token) => links.name(token), on: (token) => links.touches(state.runs, token), chosen: state.token,
        choose: (token) => set({ token: token.index, runs: token.runs }),
      }));
  }

  const step7 = () => expected("7", links.tokens[state.token ?? 0], model, "grammar of JPEG", (id) => links.name(id));

  openMcu(Math.floor(picture.rows / 2) * picture.columns + Math.floor(picture.columns / 2));
}
