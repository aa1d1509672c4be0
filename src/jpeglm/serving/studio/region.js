// What of a picture stays: all above a border, which is dragged, or all around a hole, which is
// painted. By keyboard: arrows move the border, or a cursor with which the space bar paints.

export class Region {
  constructor(picture, hint, changed) {
    this.picture = picture;
    this.hint = hint;
    this.changed = changed;
    this.tool = "border";
    this.border = 0;
    this.hole = [];
    this.painting = null; // true or false while a stroke paints that
    const { element } = picture;
    element.addEventListener("pointerdown", (event) => this._down(event));
    element.addEventListener("pointermove", (event) => this._move(event));
    element.addEventListener("pointerup", () => this._up());
    element.addEventListener("pointercancel", () => this._up());
    element.addEventListener("keydown", (event) => this._key(event));
    for (const kind of ["focus", "blur"]) element.addEventListener(kind, () => picture.paint());
    element.tabIndex = 0;
  }

  get units() {
    return this.picture.shape.columns * this.picture.shape.rows;
  }

  // For a new shape: half stays, and a hole is in the middle.
  reset() {
    const { columns, rows } = this.picture.shape;
    this.border = Math.floor(this.units / 2);
    const inner = (at, count) => at >= Math.floor(count / 4) && at < Math.ceil((count * 3) / 4);
    this.hole = Array.from({ length: this.units }, (_, unit) =>
      inner(unit % columns, columns) && inner(Math.floor(unit / columns), rows));
    this.picture.cursor = null;
  }

  use(tool) {
    this.tool = tool;
    this.show();
  }

  set(border, hole) {
    if (border !== undefined) this.border = Math.min(this.units, Math.max(0, border));
    if (hole !== undefined) this.hole = hole;
    this.show();
  }

  show() {
    const { element, shape } = this.picture;
    const drawn = this.tool === "border" ? this.units - this.border : this.hole.filter(Boolean).length;
    const words = `${this.units - drawn} of ${this.units} blocks stay, ${drawn} are drawn`;
    if (this.tool === "border") {
      this.picture.show({ border: this.border, hole: null, cursor: null });
      attributes(element, {
        role: "slider", "aria-label": "Border of what stays", "aria-valuemin": 0, "aria-valuetext": words,
        "aria-valuemax": this.units, "aria-valuenow": this.border, "aria-orientation": "vertical",
        "aria-roledescription": null,
      });
      this.hint.textContent = `Drag the border: ${this.border} of ${this.units} blocks stay.`;
    } else {
      this.picture.show({ border: null, hole: this.hole, cursor: this.picture.cursor ?? 0 });
      const at = this.picture.cursor;
      const where = `row ${Math.floor(at / shape.columns) + 1}, column ${(at % shape.columns) + 1}`;
      attributes(element, {
        role: "slider", "aria-roledescription": "brush", "aria-label": "Hole: arrows move, space paints",
        "aria-valuemin": 0, "aria-valuemax": this.units - 1, "aria-valuenow": at, "aria-orientation": null,
        "aria-valuetext": `${where}, ${this.hole[at] ? "drawn anew" : "stays"}`,
      });
      this.hint.textContent = `Paint what is to be drawn anew: ${drawn} of ${this.units} blocks. Again takes it back.`;
    }
  }

  // Why nothing can be drawn; "" where it can.
  get problem() {
    if (this.tool === "border") {
      return this.border === this.units ? "All of the picture stays: move the border up to have some of it drawn." : "";
    }
    if (!this.hole.includes(true)) return "Nothing is painted: paint over what is to be drawn anew.";
    return this.hole.includes(false) ? "" : "All of the picture is painted: leave some of it, or begin with nothing.";
  }

  // The mask of OpenAI's image API: transparent where the picture is drawn anew.
  async mask() {
    const { width, height, columns, rows } = this.picture.shape;
    const canvas = new OffscreenCanvas(width, height);
    const pen = canvas.getContext("2d");
    pen.fillRect(0, 0, width, height);
    const [w, h] = [width / columns, height / rows];
    this.hole.forEach((drawn, unit) => {
      if (drawn) pen.clearRect((unit % columns) * w, Math.floor(unit / columns) * h, w, h);
    });
    return canvas.convertToBlob();
  }

  _down(event) {
    if (!this.picture.bitmap || event.button) return;
    event.preventDefault();
    const { element } = this.picture;
    element.focus({ focusVisible: false });
    element.setPointerCapture(event.pointerId);
    this.painting = !this.hole[this.picture.unitAt(event)];
    this._at(event);
  }

  _move(event) {
    if (this.painting !== null) this._at(event);
  }

  _up() {
    if (this.painting === null) return;
    this.painting = null;
    this.changed();
  }

  _at(event) {
    const unit = this.picture.unitAt(event);
    if (this.tool === "border") {
      // The far edge of the last unit is the end: everything stays.
      const { element, shape } = this.picture;
      const box = element.getBoundingClientRect();
      const last = event.clientY > box.bottom - box.height / shape.rows / 3 && unit === this.units - 1;
      this.set(last ? this.units : unit);
    } else {
      this.picture.cursor = unit;
      this.hole[unit] = this.painting;
      this.show();
    }
  }

  _key(event) {
    const { columns } = this.picture.shape;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -this.units, End: this.units };
    const brush = this.tool === "brush";
    if (brush && (event.key === " " || event.key === "Enter")) {
      this.hole[this.picture.cursor] = !this.hole[this.picture.cursor];
    } else if (event.key in steps) {
      const step = steps[event.key];
      if (!brush) this.border = Math.min(this.units, Math.max(0, this.border + step));
      else this.picture.cursor = Math.min(this.units - 1, Math.max(0, this.picture.cursor + step));
    } else {
      return;
    }
    event.preventDefault();
    this.show();
    this.changed();
  }
}

function attributes(element, values) {
  for (const [name, value] of Object.entries(values)) {
    if (value === null) element.removeAttribute(name);
    else element.setAttribute(name, value);
  }
}
