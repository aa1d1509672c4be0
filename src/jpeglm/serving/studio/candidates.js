// The pictures that a model draws, side by side: every frame as it comes, shown no faster than an
// eye follows, and shown again from any moment.

import { Picture, bitmapOf } from "./picture.js";

const LONGEST = 2600; // milliseconds that one picture takes to be shown, unless it is drawn slower
const SLOWEST = 110; // of one frame

export class Candidates {
  // keep(file, number): somebody goes on from a picture; look(file, number): looks into it.
  // moved(): another moment is shown.
  constructor(container, { keep, look, moved }) {
    Object.assign(this, { container, keep, look, moved });
    this.tiles = [];
    this.tinted = false;
    this.scale = [0, 0]; // bits that the tint's ends stand for
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.playing = false;
  }

  // n empty places; stays(unit): what is given, of `bitmap`; bits: of what is given, or null;
  // looks: whether one can look into what comes.
  prepare(n, shape, name, { bitmap = null, stays = () => false, bits = null, looks = true } = {}) {
    this.stays = stays;
    this.given = bits;
    this.pace = Math.min(SLOWEST, LONGEST / (shape.columns * shape.rows));
    this.playing = false;
    this.container.replaceChildren();
    this.tiles = Array.from({ length: n }, (_, i) => {
      const tile = new Tile(i + 1, shape, name, {
        keep: (file) => this.keep(file, i + 1),
        look: looks && ((file) => this.look(file, i + 1)),
      });
      tile.picture.show({ bitmap, written: bitmap ? stays : () => false });
      tile.ground = bitmap;
      this.container.append(tile.element);
      return tile;
    });
  }

  // An event of `api.draw`.
  async add(event) {
    const tile = this.tiles[event.index];
    const bitmap = await bitmapOf(event.file);
    tile.frames.push({ ...event, bitmap });
    const costs = known(event.unit_bits);
    this.scale = [Math.min(this.scale[0], ...costs), Math.max(this.scale[1], ...costs)];
    if (event.ended) tile.finish(event);
    this._play();
  }

  // Bits of all units that are drawn.
  get bits() {
    return known(this.tiles.flatMap((tile) => tile.frames.at(-1)?.unit_bits ?? []));
  }

  tint(on, scale, given) {
    [this.tinted, this.scale, this.given] = [on, scale, given];
    for (const tile of this.tiles) this._show(tile);
  }

  get frames() {
    return Math.max(0, ...this.tiles.map((tile) => tile.frames.length));
  }

  get moment() {
    return Math.max(0, ...this.tiles.map((tile) => tile.shown));
  }

  // Show how all were after so many frames.
  seek(moment) {
    this.playing = false;
    for (const tile of this.tiles) {
      tile.shown = Math.min(moment, tile.frames.length);
      this._show(tile);
    }
    this.moved();
  }

  replay() {
    this.seek(0);
    this._play();
  }

  _play() {
    if (this.playing) return;
    this.playing = true;
    let last = -Infinity;
    const step = (now) => {
      if (!this.playing) return;
      const behind = this.tiles.filter((tile) => tile.shown < tile.frames.length);
      if (!behind.length) {
        this.playing = false;
        this.moved();
        return;
      }
      if (this.still.matches || now - last >= this.pace) {
        last = now;
        for (const tile of behind) {
          tile.shown = this.still.matches ? tile.frames.length : tile.shown + 1;
          this._show(tile);
        }
        this.moved();
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  _show(tile) {
    const frame = tile.frames[tile.shown - 1];
    const costs = frame?.unit_bits;
    const written = (unit) => this.stays(unit) || (costs?.[unit] ?? null) !== null;
    const bits = this.tinted && frame
      ? costs.map((cost, unit) => cost ?? (this.stays(unit) ? this.given?.[unit] ?? null : null)) : null;
    tile.picture.show({ bitmap: frame?.bitmap ?? tile.ground, written, bits, scale: this.scale });
    tile.say(frame);
  }
}

export function known(bits) {
  return bits.filter((cost) => cost !== null);
}

class Tile {
  constructor(number, shape, name, { keep, look }) {
    this.number = number;
    this.frames = [];
    this.shown = 0; // frames
    this.name = name;
    [this.keep, this.look] = [keep, look];
    this.element = document.createElement("figure");
    this.element.className = "tile";
    const frame = document.createElement("div");
    frame.className = "picture";
    this.caption = document.createElement("figcaption");
    this.words = document.createElement("p");
    this.caption.append(this.words);
    this.element.append(frame, this.caption);
    this.picture = new Picture(frame, `Picture ${number}, not drawn yet`);
    this.picture.clear(shape);
    this.say();
  }

  say(frame) {
    this.words.textContent = frame
      ? `${frame.tokens.toLocaleString("en")} tokens, ${Math.round(frame.bits).toLocaleString("en")} bits`
      : "\u00a0";
  }

  finish({ file, tokens }) {
    this.picture.label = `Picture ${this.number}, drawn with ${tokens} tokens`;
    const keep = document.createElement("button");
    keep.type = "button";
    keep.textContent = "Keep";
    keep.title = "Go on from this picture";
    keep.setAttribute("aria-label", `Keep picture ${this.number} and go on from it`);
    keep.addEventListener("click", () => this.keep(file));
    const save = document.createElement("a");
    save.className = "button";
    save.href = URL.createObjectURL(new Blob([file], { type: "image/jpeg" }));
    save.download = `${this.name}-${this.number}.jpg`;
    save.textContent = "↓ .jpg";
    save.title = `Download the ${file.length} bytes that the model wrote`;
    save.setAttribute("aria-label", `Download picture ${this.number} as .jpg`);
    const row = document.createElement("div");
    row.className = "row";
    row.append(keep, save);
    if (this.look) {
      const look = document.createElement("button");
      look.type = "button";
      look.textContent = "Inside";
      look.title = "Look inside this file";
      look.setAttribute("aria-label", `Look inside picture ${this.number}`);
      look.addEventListener("click", () => this.look(file));
      save.before(look);
    }
    this.caption.append(row);
  }
}
