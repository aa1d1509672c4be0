// Look inside a clip: one frame, one macroblock of it, and everything that is said about it, from where it comes from to a
// language model's tokens.
import { bitmapOf, choices, grey, make, number } from "./dom.js";
import { rgb } from "./jpeg.js";
import { byteBoxes, expected, section, tokenChips, tokensAre } from "./steps.js";

const CLIP_TINTS = [["none", "as it is"], ["file", "bits in the file"], ["model", "bits under the model"]];
const CLIP_KINDS = ["", "03 behind two zeros, so that no data look like a start code", "start code"];
const ZIGZAG_4 = [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15];
const CODED = Array.from({ length: 16 }, (_, i) => ((i % 2) + 2 * (Math.floor(i / 4) % 2)) + 4 * ((Math.floor(i / 2) % 2) + 2 * Math.floor(i / 8)));
const MODES = ["↓ from above", "→ from the left", "their mean", "↙", "↘", "↓↘", "→↘", "↓↙", "→↗"];
const AREA_MODES = ["↓ from above", "→ from the left", "their mean", "a slope"];
const SVG = Object.assign(document.createElement("template"), { innerHTML: "<svg></svg>" }).content.firstChild.namespaceURI;

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Films use 16 to 235 of brightness, 16 to 240 of colour (ITU-R BT.601).
const film = (y, cb, cr) => rgb((y - 16) * (255 / 219), (cb - 128) * (255 / 224) + 128, (cr - 128) * (255 / 224) + 128);

// Samples of Y, Cb, Cr (Cb and Cr half as wide) as a small canvas that CSS enlarges.
function coloured({ Y, Cb, Cr }, label) {
  const canvas = make("canvas", { width: 16, height: 16, class: "pixels", role: "img", "aria-label": label });
  const data = new Uint8ClampedArray(1024);
  Y.forEach((y, i) => {
    const half = (i >> 5) * 8 + ((i & 15) >> 1);
    data.set([...film(y, Cb[half], Cr[half]), 255], 4 * i);
  });
  canvas.getContext("2d").putImageData(new ImageData(data, 16, 16), 0, 0);
  return canvas;
}

const planesOf = (make_) => Object.fromEntries(["Y", "Cb", "Cr"].map((name) => [name, make_(name)]));
const samples = (quarters) => number(Math.abs(quarters) / 4, quarters % 4 ? 2 : 0).replace(/0$/, quarters % 2 ? "0" : "");

// How far a vector goes, in words.
function way([x, y]) {
  const far = [x && `${samples(x)} ${x > 0 ? "right" : "left"}`, y && `${samples(y)} ${y > 0 ? "down" : "up"}`].filter(Boolean);
  return far.join(" and ");
}

// Frames that are taken apart are in the trace itself and in `others`; one chooses among them.
export function lookClip(root, trace) {
  const { others = {}, ...whole } = trace;
  const apart = { ...others, [trace.clip.frame]: {} };
  const chosen = (frame) => lookFrame(root, { ...whole, ...apart[frame], clip: { ...trace.clip, frame } }, Object.keys(apart).map(Number), (next) => {
    chosen(next);
    root.querySelector(`[data-key="frame-${next}"]`).focus({ preventScroll: true });
  });
  chosen(trace.clip.frame);
}

// apart: the frames that can be opened; choose(frame).
function lookFrame(root, trace, apart, choose) {
  const { clip, model, frames, macroblocks } = trace;
  const parts = trace.parts.map(([name, bits, first, end, macroblock, symbol], index) => ({ name, bits, first, end, macroblock, symbol, index }));
  const tokens = trace.tokens.map((token, index) => ({ ...token, index }));
  const bytes = trace.stream.hex.match(/../g).map((hex, index) => ({ hex, index, kind: trace.stream.kinds[index] }));
  const pictures = frames.map(({ shown }) => bitmapOf(shown));
  const state = { macroblock: 0, runs: [], block: 0, tint: "none", token: tokens[0].index };
  const shades = { file: macroblocks.map((one) => one.file), model: macroblocks.map((one) => one.model) };
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  const touches = (thing) => (thing.runs ?? [[thing.first, thing.end]]).some(([a, b]) => state.runs.some(([c, d]) => a < d && c < b));
  const name = (id) => trace.names[id];
  const own = () => macroblocks[state.macroblock];
  const corner = (place) => [16 * (place % clip.columns), 16 * Math.floor(place / clip.columns)];

  function set(changes) {
    Object.assign(state, changes);
    const key = document.activeElement?.dataset?.key;
    draw();
    if (key) root.querySelector(`[data-key="${key}"]`)?.focus({ preventScroll: true });
  }

  const runsOf = (list) => list.map((part) => [part.first, part.end]);

  function point(list, changes = {}) {
    const runs = runsOf(list);
    const found = list.length && tokens.find((token) => token.runs.some(([a, b]) => a < runs[0][1] && runs[0][0] < b));
    set({ runs, ...(found ? { token: found.index } : {}), ...changes });
  }

  function open(macroblock) {
    const [begin, end] = macroblocks[macroblock].parts;
    const first = tokens.find((token) => token.macroblocks.includes(macroblock));
    const blocks = macroblocks[macroblock].blocks;
    point(parts.slice(begin, Math.min(end, begin + 1)), { macroblock, block: Math.max(0, blocks.findIndex(({ levels }) => levels.some(Boolean))), ...(first ? { token: first.index } : {}) });
  }

  function draw() {
    root.replaceChildren(whole(), step1(), step2(), step3(), step4(), step5(), step6(),
      expected("7", tokens[state.token], model, "grammar of H.264", name));
  }

  function frameCanvas(frame, label) {
    const canvas = make("canvas", { width: clip.width, height: clip.height, class: "pixels", role: "img", "aria-label": label });
    pictures[frame].then((bitmap) => canvas.getContext("2d").drawImage(bitmap, 0, 0));
    return canvas;
  }

  function whole() {
    const grid = make("div", { class: "look-grid", role: "group", "aria-label": "macroblocks", style: `grid-template-columns: repeat(${clip.columns}, 1fr)` });
    const values = shades[state.tint];
    const [least, most] = values ? [Math.min(...values), Math.max(...values)] : [0, 1];
    macroblocks.forEach((one, place) => {
      const bits = `${one.type}, ${number(one.file)} bits in the file, ${number(one.model, 1)} under the model`;
      const share = values ? (values[place] - least) / (most - least || 1) : 0;
      grid.append(make("button", {
        type: "button", "data-key": `macroblock-${place}`, tabindex: place === state.macroblock ? 0 : -1, "aria-pressed": String(place === state.macroblock), title: bits,
        "aria-label": `macroblock ${place % clip.columns}, ${Math.floor(place / clip.columns)}: ${bits}`,
        style: values ? `background: rgb(214 64 18 / ${(0.1 + 0.65 * share).toFixed(3)})` : null, onclick: () => open(place),
      }));
    });
    grid.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: clip.columns, ArrowUp: -clip.columns }[event.key];
      const next = state.macroblock + (move ?? 0);
      if (!move || next < 0 || next >= macroblocks.length) return;
      event.preventDefault();
      open(next);
      root.querySelector(`[data-key="macroblock-${next}"]`).focus({ preventScroll: true });
    });
    const raw = 24 * clip.width * clip.height * frames.length;
    const file = total(frames.map((one) => one.file)), under = total(frames.map((one) => one.model));
    const bar = (title, bits, note) => make("tr", {}, make("th", { scope: "row" }, title), make("td", {}, number(bits)),
      make("td", { class: "look-bar" }, make("i", { style: `width: ${Math.max(0.5, (100 * bits) / raw)}%` })), make("td", {}, note));
    const strip = frames.map((one, at) => {
      const told = [frameCanvas(at, `frame ${at}`), make("figcaption", {}, make("b", {}, `${at} ${one.slice}`), ` ${number(one.file)} bits`)];
      const button = () => make("button", { type: "button", "data-key": `frame-${at}`, "aria-pressed": String(at === clip.frame), title: `Open frame ${at}`, onclick: () => choose(at) }, ...told);
      return make("figure", { class: at === clip.frame ? "look-now" : null }, ...(apart.length > 1 ? [button()] : told));
    });
    return make("div", {},
      make("div", { class: "look-strip" }, ...strip),
      make("p", { class: "look-hint" }, `The first frame (I) is written by itself; every other one (P) says how it differs from the frame before, which takes far fewer bits. Frame ${clip.frame} is opened here${apart.length > 1 ? "; choose another" : ""}.`),
      make("div", { class: "look-whole" },
        make("div", { class: "look-frame", style: `aspect-ratio: ${clip.width} / ${clip.height}` }, frameCanvas(clip.frame, `frame ${clip.frame} as it is shown`), grid),
        make("div", {},
          make("table", { class: "look-sums" }, make("caption", {}, `${frames.length} frames, in bits`),
            make("tbody", {}, bar("pixels", raw, `${clip.width} × ${clip.height}, 24 each`), bar("in the file", file, `H.264, quantiser ${clip.qp}`),
              bar("under the model", under, `${number(trace.all_tokens)} tokens; what an arithmetic coder driven by it needs`))),
          make("p", { class: "look-label" }, "Tint the frame by"), choices("Tint", CLIP_TINTS, state.tint, (tint) => set({ tint })),
          make("p", { class: "look-hint" }, "Choose a square of the frame: a macroblock of 16 × 16 samples, the piece that H.264 writes at a time. What you point at below is marked everywhere."))));
  }

  // The head of an arrow; a dot where it has no way to go.
  function tip([x, y], [to, down]) {
    const length = Math.hypot(to - x, down - y);
    if (length < 1) return svg("circle", { cx: to, cy: down, r: 0.8, class: "look-tip" });
    const [a, b] = [(to - x) / length, (down - y) / length], size = Math.min(2.4, length);
    const corners = [[to, down], [to - size * (a + b / 2), down - size * (b - a / 2)], [to - size * (a - b / 2), down - size * (b + a / 2)]];
    return svg("polygon", { points: corners.map((corner_) => corner_.join(",")).join(" "), class: "look-tip" });
  }

  // A frame with marks over it; marks: SVG in its samples.
  function marked(frame, caption, marks) {
    const over = svg("svg", { viewBox: `0 0 ${clip.width} ${clip.height}`, class: "look-marks", "aria-hidden": "true" }, ...marks);
    return make("figure", { class: "look-marked" }, make("div", { class: "look-frame", style: `aspect-ratio: ${clip.width} / ${clip.height}` }, frameCanvas(frame, caption), over), make("figcaption", {}, caption));
  }

  const box = (x, y, width, height, kind) => svg("rect", { x, y, width, height, class: kind });

  function step1() {
    const one = own();
    const [left, top] = corner(state.macroblock);
    const here = box(left, top, 16, 16, "look-here");
    const [column, row] = [left / 16, top / 16];
    if (!one.motion.length) {
      const many = one.type === "I 4×4";
      const words = `This macroblock is not taken from another frame: it is predicted from the samples just above it and to its left, ${many ? "each of its 16 blocks of 4 × 4 in its own way, written below as the direction in which samples are drawn on" : "the whole square in one way"}.`;
      const ways = many
        ? make("div", { class: "look-ways" }, ...Array.from({ length: 16 }, (_, place) => make("span", {}, MODES[one.modes[CODED.indexOf(place)]])))
        : make("p", {}, `Way: ${AREA_MODES[one.modes[0]]}.`);
      return section("1", "Where it comes from: beside it", words, make("div", { class: "look-row" }, marked(clip.frame, `frame ${clip.frame}, macroblock ${column}, ${row}`, [here]), ways));
    }
    const skipped = one.type === "skipped";
    const pieces = one.motion.map((part) => ({ ...part, left: left + part.x, top: top + part.y, from: [left + part.x + part.vector[0] / 4, top + part.y + part.vector[1] / 4] }));
    const back = Math.max(...one.motion.map(({ reference }) => reference));
    const words = skipped
      ? `Nothing is written for this macroblock but that it is skipped: it is copied from the frame before, moved as its neighbours suggest: ${way(one.motion[0].vector) || "not at all"}.`
      : `${pieces.length === 1 ? "The square is" : `${pieces.length} pieces of the square are each`} copied from a place in the frame before. Only how the place differs from what the neighbours’ motion suggests is written.`;
    const arrows = (list) => list.flatMap((piece) => {
      const middle = [piece.left + piece.width / 2, piece.top + piece.height / 2], origin = [piece.from[0] + piece.width / 2, piece.from[1] + piece.height / 2];
      return [svg("line", { x1: middle[0], y1: middle[1], x2: origin[0], y2: origin[1], class: "look-arrow" }), tip(middle, origin)];
    });
    const before = [...new Set(one.motion.map(({ reference }) => reference))].sort().map((reference) => {
      const list = pieces.filter((piece) => piece.reference === reference);
      return marked(clip.frame - 1 - reference, `frame ${clip.frame - 1 - reference}: what is copied, and the way there`, [here.cloneNode(), ...list.map((piece) => box(...piece.from, piece.width, piece.height, "look-from")), ...arrows(list)]);
    });
    const list = make("ul", { class: "look-motion" }, ...pieces.map((piece) => make("li", {},
      make("b", {}, `${piece.width} × ${piece.height} at ${piece.x}, ${piece.y}`), `: from ${way(piece.vector) || "the same place"}; suggested: ${way(piece.predicted) || "the same place"}${back ? `; ${piece.reference + 1} back` : ""}`)));
    return section("1", "Where it comes from: the frame before", `${words} Vectors count in quarters of a sample; between samples, values are interpolated.`,
      make("div", { class: "look-row" }, ...before, marked(clip.frame, `frame ${clip.frame}, macroblock ${column}, ${row}`, [here, ...pieces.map((piece) => box(piece.left, piece.top, piece.width, piece.height, "look-piece-edge"))])), list);
  }

  function step2() {
    const one = own();
    const sum = planesOf((plane) => one.prediction[plane].map((value, i) => Math.min(255, Math.max(0, value + one.residual[plane][i]))));
    const shown = make("canvas", { width: 16, height: 16, class: "pixels", role: "img", "aria-label": "as it is shown" });
    const [left, top] = corner(state.macroblock);
    pictures[clip.frame].then((bitmap) => shown.getContext("2d").drawImage(bitmap, -left, -top));
    const figure = (canvas, words) => make("figure", {}, canvas, make("figcaption", {}, words));
    const none = !Object.values(one.residual).flat().some(Boolean);
    return section("2", "What is added to it", `${none ? "Here nothing is added: the prediction is good enough." : "What is still missing, the residual, is added: grey is nothing, lighter is more, darker less."} At last a filter smooths the edges between blocks, where they would show.`,
      make("div", { class: "look-row" }, figure(coloured(one.prediction, "prediction"), "prediction"),
        figure(coloured(planesOf((plane) => one.residual[plane].map((value) => 128 + 2 * value)), "residual"), "+ residual, twice as strong"),
        figure(coloured(sum, "sum"), "= decoded"), figure(shown, "as it is shown, filtered")));
  }

  function step3() {
    const one = own();
    if (!one.blocks.length) return section("3", "The residual as small integers", "Nothing is added here, so no integers are written.");
    const block = one.blocks[Math.min(state.block, one.blocks.length - 1)];
    const title = (each) => each.name.includes("DC") ? each.name : `${each.name} ${each.column}, ${each.row}`;
    const buttons = one.blocks.map((each, at) => make("button", { type: "button", class: "look-plane", "data-key": `block-${at}`, "aria-pressed": String(each === block), onclick: () => point(parts.slice(...each.parts), { block: at }) },
      title(each), make("code", {}, ` ${each.levels.filter(Boolean).length}`)));
    const wide = block.levels.length === 4 ? 2 : 4;
    const rows = new Array(wide * wide).fill(null);
    block.levels.forEach((level, k) => { rows[wide === 2 ? k : ZIGZAG_4[k + 16 - block.levels.length]] = level; });
    const most = Math.max(...block.levels.map(Math.abs), 1);
    const shade = (value) => value ? `background: rgb(${value < 0 ? "38 104 170" : "214 96 18"} / ${(0.5 * Math.abs(value)) / most})` : null;
    const table = make("div", { class: `look-levels wide-${wide}`, role: "img", "aria-label": `levels of ${title(block)}: ${block.levels.join(" ")}` },
      ...rows.map((level) => make("span", { style: shade(level) }, level === null ? "·" : String(level))));
    const luma = block.name === "Y";
    const piece = luma ? Array.from({ length: 16 }, (_, i) => 128 + 2 * one.residual.Y[(4 * block.row + (i >> 2)) * 16 + 4 * block.column + (i & 3)]) : null;
    const dc = block.name.includes("DC") ? " DC are the means of several blocks, transformed once more." : block.levels.length === 15 ? " The first number, ·, is the mean, which is written apart." : "";
    return section("3", "The residual as small integers", `Blocks of 4 × 4 are written as sums of 16 waves, like JPEG’s 8 × 8; each weight is divided by a step and rounded (quantiser ${one.qp}; the step doubles every six). Behind each block stands how many of its numbers are not 0.${dc} Choose one.`,
      make("div", { class: "look-planes look-blocks" }, ...buttons),
      make("div", { class: "look-row" }, make("figure", {}, table, make("figcaption", {}, `levels of ${title(block)}`)),
        piece && make("figure", {}, grey(piece, 4), make("figcaption", {}, "what they add, twice as strong")),
        make("p", {}, `In zigzag order: ${block.levels.join(" ")}`)));
  }

  const chip = (part) => make("button", { type: "button", class: `look-chip${touches(part) ? " on" : ""}`, "data-key": `part-${part.index}`, onclick: () => {
    const block = own().blocks.findIndex(({ parts: [a, b] }) => a <= part.index && part.index < b);
    point([part], block >= 0 ? { block } : {});
  } }, make("b", {}, part.name), make("code", {}, part.bits));

  const said = () => parts.slice(...own().parts);

  function step4() {
    return section("4", "All of it becomes syntax elements, and those bits", "“skip” says how many macroblocks are only copied before this one; a size, of “mvd”, “skip” or “qp”, is followed by that many bits of its number; “pattern” says which quarters have a residual. Of a block, “coeff 3, 1 ones” says: three numbers, the last one ±1; then their signs, the others’ sizes, how many zeros lie between (“zeros”, “run”). Frequent elements have short codes, and which code table is used depends on the blocks beside it.",
      make("div", { class: "look-chips" }, ...said().map(chip)));
  }

  function step5() {
    const list = said();
    const [first, end] = [list[0].first, list[list.length - 1].end];
    const start = parts.filter((part) => part.symbol < 0 && part.first <= first).reverse().findIndex((part) => part.name === "start code");
    const heads = parts.filter((part) => part.symbol < 0 && part.first <= first && part.name !== "end of the slice").slice(-(start + 1));
    const near = bytes.slice(first >> 3, (end + 7) >> 3);
    const stuffed = near.some(({ kind }) => kind === 1) ? " A 03 is put behind two zeros, so that no data look like a start code." : "";
    const choose = (part) => point([part]);
    return section("5", "Bits become bytes", `Bits ${number(first)} to ${number(end - 1)} of the frame, this macroblock’s, packed eight to a byte.${stuffed} Before a slice’s first macroblock stand a start code, 00 00 01, and a header; the model never sees them, for they follow from the clip’s settings${model.alphabet === "bytes" ? ", unless its alphabet are the bytes" : ""}.`,
      make("div", { class: "look-chips look-heads" }, ...heads.map(chip)),
      byteBoxes(near, parts, { kinds: CLIP_KINDS, on: touches, other: (part) => part.macroblock !== state.macroblock, choose }));
  }

  function step6() {
    const list = tokens.filter((token) => token.macroblocks.includes(state.macroblock));
    return section("6", "Elements become tokens", `${tokensAre(model)} In this alphabet a macroblock is called by its row and column where the file counts those that are skipped.`.replace(/ In this.*/, (words) => model.alphabet === "avc-placed-symbols" ? words : ""),
      tokenChips(list, { name, on: touches, chosen: state.token, choose: (token) => set({ token: token.index, runs: token.runs }) }));
  }

  // First the macroblock of which most is said.
  const length = ({ type, parts: [a, b] }) => type === "skipped" ? 0 : b - a;
  open(macroblocks.reduce((best, one, place) => (length(one) > length(macroblocks[best]) ? place : best), 0));
}
