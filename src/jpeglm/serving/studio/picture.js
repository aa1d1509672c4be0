// One picture on the page: pixels as they are below, and over them, drawn in the screen's own
// resolution, what is not written yet, the border or hole, and the tint by bits.

// From few bits to many: dark blue, violet, orange, pale yellow (inferno, without its black end).
const RAMP = [[32, 24, 84], [101, 26, 110], [170, 46, 91], [229, 92, 48], [251, 164, 34], [250, 236, 134]];

export class Picture {
  constructor(element, label) {
    this.element = element;
    this.pixels = document.createElement("canvas");
    this.over = document.createElement("canvas");
    this.pixels.className = "pixels";
    this.over.className = "over";
    this.pixels.setAttribute("role", "img");
    this.label = label;
    this.over.setAttribute("aria-hidden", "true");
    element.append(this.pixels, this.over);
    this.clear({ width: 64, height: 64, columns: 1, rows: 1 });
    new ResizeObserver(() => this.paint()).observe(element);
  }

  set label(text) {
    this.pixels.setAttribute("aria-label", text);
  }

  // An empty picture of this shape: { width, height, columns, rows }.
  clear(shape) {
    this.shape = shape;
    this.bitmap = null;
    this.written = () => true; // whether a unit is there
    this.hole = null; // whether a unit is to be drawn anew, or null
    this.border = null; // units that stay, or null
    this.cursor = null;
    this.bits = null; // of each unit, null where there are none
    this.scale = [0, 1]; // bits that the tint's ends stand for
    [this.pixels.width, this.pixels.height] = [shape.width, shape.height];
    this.element.style.setProperty("--shape", `${shape.width} / ${shape.height}`);
    this.paint();
  }

  show(changes) {
    Object.assign(this, changes);
    this.paint();
  }

  paint() {
    const { width, height, columns, rows } = this.shape;
    const below = this.pixels.getContext("2d");
    below.clearRect(0, 0, width, height);
    if (this.bitmap) below.drawImage(this.bitmap, 0, 0, width, height);
    this.pixels.classList.toggle("grey", Boolean(this.bits));
    const box = this.element.getBoundingClientRect();
    const scale = window.devicePixelRatio || 1;
    this.over.width = Math.round(box.width * scale);
    this.over.height = Math.round(box.height * scale);
    const pen = this.over.getContext("2d");
    const [w, h] = [this.over.width / columns, this.over.height / rows];
    const style = getComputedStyle(this.element);
    const ink = (name) => style.getPropertyValue(name);
    for (let unit = 0; unit < columns * rows; unit++) {
      const x = Math.round((unit % columns) * w);
      const y = Math.round(Math.floor(unit / columns) * h);
      const [right, below_] = [Math.round(((unit % columns) + 1) * w), Math.round((Math.floor(unit / columns) + 1) * h)];
      const cell = [x, y, right - x, below_ - y];
      if (!this.bitmap || !this.written(unit)) {
        const [left, top] = [(unit % columns) * (width / columns), Math.floor(unit / columns) * (height / rows)];
        below.clearRect(left, top, width / columns, height / rows);
        this._unwritten(pen, cell, ink, scale);
      }
      if (this.bits && this.bitmap && this.written(unit)) this._tinted(pen, cell, this.bits[unit], scale);
      if (this._goes(unit) && !this.bits) this._veiled(pen, cell, ink, scale);
    }
    this._outline(pen, w, h, ink, scale);
    if (this.cursor !== null && this.element.matches(":focus-visible")) {
      const [x, y] = [(this.cursor % columns) * w, Math.floor(this.cursor / columns) * h];
      pen.lineWidth = 3 * scale;
      pen.strokeStyle = ink("--mark");
      pen.strokeRect(x + 2 * scale, y + 2 * scale, w - 4 * scale, h - 4 * scale);
    }
  }

  // Whether a unit is to be drawn anew.
  _goes(unit) {
    if (this.hole) return this.hole[unit];
    return this.border !== null && unit >= this.border;
  }

  _unwritten(pen, [x, y, w, h], ink, scale) {
    pen.fillStyle = ink("--blank");
    pen.fillRect(x, y, w, h);
    pen.fillStyle = ink("--dot");
    const size = Math.round(3 * scale);
    pen.fillRect(Math.round(x + w / 2 - size / 2), Math.round(y + h / 2 - size / 2), size, size);
  }

  _tinted(pen, [x, y, w, h], bits, scale) {
    if (bits === null || bits === undefined) {
      pen.fillStyle = "rgb(128 128 128 / 0.55)";
      pen.fillRect(x, y, w, h);
      return;
    }
    const [least, most] = this.scale;
    const share = Math.min(1, Math.max(0, (bits - least) / Math.max(most - least, 1e-9)));
    pen.fillStyle = `rgb(${colour(share).join(" ")} / 0.7)`;
    pen.fillRect(x, y, w, h);
    if (w < 30 * scale) return;
    pen.fillStyle = share > 0.6 ? "#1b1033" : "#fff";
    pen.font = `600 ${Math.round(Math.min(13 * scale, w / 2.6))}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillText(String(Math.round(bits)), x + w / 2, y + h / 2);
  }

  _veiled(pen, [x, y, w, h], ink) {
    pen.fillStyle = ink("--veil");
    pen.fillRect(x, y, w, h);
  }

  // The line between what stays and what goes.
  _outline(pen, w, h, ink, scale) {
    const { columns, rows } = this.shape;
    const path = new Path2D();
    for (let unit = 0; unit < columns * rows; unit++) {
      if (!this._goes(unit)) continue;
      const [column, row] = [unit % columns, Math.floor(unit / columns)];
      const edges = [
        [row > 0, unit - columns, column, row, column + 1, row],
        [row < rows - 1, unit + columns, column, row + 1, column + 1, row + 1],
        [column > 0, unit - 1, column, row, column, row + 1],
        [column < columns - 1, unit + 1, column + 1, row, column + 1, row + 1],
      ];
      for (const [inside, other, x, y, right, low] of edges) {
        if (!inside || this._goes(other)) continue;
        path.moveTo(x * w, y * h);
        path.lineTo(right * w, low * h);
      }
    }
    pen.lineCap = "square";
    for (const [width, colour_] of [[5, "rgb(0 0 0 / 0.35)"], [3, ink("--mark")]]) {
      pen.lineWidth = width * scale;
      pen.strokeStyle = colour_;
      pen.stroke(path);
    }
  }

  // The unit below a pointer.
  unitAt(event) {
    const box = this.element.getBoundingClientRect();
    const { columns, rows } = this.shape;
    const part = (at, begin, length, count) =>
      Math.min(count - 1, Math.max(0, Math.floor(((at - begin) / length) * count)));
    const column = part(event.clientX, box.left, box.width, columns);
    return part(event.clientY, box.top, box.height, rows) * columns + column;
  }
}

function colour(share) {
  const at = share * (RAMP.length - 1);
  const [low, part] = [Math.min(Math.floor(at), RAMP.length - 2), at - Math.min(Math.floor(at), RAMP.length - 2)];
  return RAMP[low].map((value, i) => Math.round(value + (RAMP[low + 1][i] - value) * part));
}

// Of a model of /v1/models.
export function shapeOf(model) {
  const [width, height] = model.size.split("x").map(Number);
  const [columns, rows] = model.grid.split("x").map(Number);
  return { width, height, columns, rows };
}

export function bitmapOf(file) {
  return createImageBitmap(new Blob([file]));
}
