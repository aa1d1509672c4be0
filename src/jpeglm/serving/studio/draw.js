// The view «Draw»: what is asked for on the left, what comes on the right.

import { draw, score } from "./api.js";
import { Candidates, known } from "./candidates.js";
import { Controls, part } from "./controls.js";
import { fromFragment, fromHex, toFragment, toHex } from "./link.js";
import { Picture, bitmapOf, shapeOf } from "./picture.js";
import { Region } from "./region.js";

const FRAMES = 64; // pictures on the way of each, at most
const SAMPLE = { name: "the example", url: "/studio/astronaut.jpg" };

export const view = { id: "draw", title: "Draw", mount: (studio) => new Draw(studio) };

class Draw {
  // studio: { models, say(problem or null), tell(words) }.
  constructor(studio) {
    this.studio = studio;
    this.form = part("settings");
    this.controls = new Controls(this.form);
    this.editor = new Picture(part("editor"), "The picture that is given");
    this.region = new Region(this.editor, part("editor-hint"), () => this.changed());
    this.candidates = new Candidates(part("candidates"), {
      keep: (...kept) => this.keep(...kept),
      look: (bytes, number) => studio.look({ ...this.told, name: `picture ${number}`, bytes }),
      moved: () => this.moment(),
    });
    this.source = null; // { name, bytes } as it was given
    this.read = null; // { file, bitmap, unit_bits } of it, as the model reads it
    this.truth = null; // bits of its units, under what was asked for last
    this.reading = null; // the promise of `read`
    this.told = null; // { model, prompt } of what was drawn last
    this.work = null; // the AbortController of what is drawn
    const { model } = this.form.elements;
    model.replaceChildren(...studio.models.map(({ id }) => new Option(id, id)));
    this.listen();
    this.controls.newSeed();
    this.form.elements.n.value = 4;
    this.restore(fromFragment(location.hash));
  }

  get model() {
    return this.studio.models.find(({ id }) => id === this.form.elements.model.value);
  }

  get start() {
    return this.form.elements.start.value;
  }

  // Whether a unit is given and stays.
  stays() {
    if (this.start === "nothing") return () => false;
    const { tool, border, hole } = this.region;
    const kept = [...hole];
    return tool === "border" ? (unit) => unit < border : (unit) => !kept[unit];
  }

  listen() {
    const { form } = this;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.work) this.stop("Stopped.");
      else this.go();
    });
    form.addEventListener("input", () => this.changed());
    form.elements.model.addEventListener("change", () => this.use(this.model));
    for (const radio of form.elements.start) radio.addEventListener("change", () => this.begin());
    for (const radio of form.elements.tool) {
      radio.addEventListener("change", () => { this.region.use(form.elements.tool.value); this.changed(); });
    }
    part("defaults").addEventListener("click", () => { this.controls.restore(); this.changed(); });
    part("link").addEventListener("click", () => this.copy());
    part("choose").addEventListener("click", () => part("file").click());
    part("file").addEventListener("change", ({ target }) => { this.open(target.files[0]); target.value = ""; });
    part("sample").addEventListener("click", () => this.sample());
    part("clear").addEventListener("click", () => {
      this.region.set(undefined, this.region.hole.map(() => false));
      this.changed();
    });
    part("tint").addEventListener("change", () => this.tint());
    part("replay").addEventListener("click", () => this.candidates.replay());
    part("moment").addEventListener("input", ({ target }) => this.candidates.seek(Number(target.value)));
    window.addEventListener("hashchange", () => this.restore(fromFragment(location.hash)));
  }

  // Settings and their link.

  restore(told) {
    const model = this.studio.models.find(({ id }) => id === told.model) ?? this.studio.models[0];
    this.form.elements.model.value = model.id;
    part("tint").checked = told.tint === "1";
    this.form.elements.fresh.checked = told.fresh === "1" || !("seed" in told);
    this.use(model, told);
  }

  get settings() {
    const told = { model: this.model.id, start: this.start, ...this.controls.settings };
    if (this.start === "picture") {
      told.tool = this.region.tool;
      if (told.tool === "border") told.border = this.region.border;
      else told.hole = toHex(this.region.hole);
    }
    if (part("tint").checked) told.tint = 1;
    return told;
  }

  changed() {
    const told = { ...this.settings, ...(this.form.elements.fresh.checked && { fresh: 1 }) };
    history.replaceState(null, "", `#${toFragment(told)}`);
    this.label();
    if (!this.work && !this.drawn) this.preview();
  }

  async copy() {
    const link = `${location.href.split("#")[0]}#${toFragment(this.settings)}`;
    try {
      await navigator.clipboard.writeText(link);
      this.said("link", "Copied");
      this.studio.tell("The link is copied. It holds the settings, not your picture.");
    } catch {
      location.hash = toFragment(this.settings);
      this.said("link", "It is in the address bar");
    }
  }

  said(id, words) {
    const button = part(id);
    const before = (button.dataset.words ??= button.textContent);
    button.textContent = words;
    setTimeout(() => { button.textContent = before; }, 2000);
  }

  label() {
    const n = Number(this.form.elements.n.value) || 1;
    const what = this.start === "nothing" ? "Draw" : this.region.tool === "border" ? "Draw the rest" : "Fill the hole";
    const times = ["", "", ", twice", ", three times", ", four times"][n] ?? `, ${n} times`;
    part("go").textContent = this.work ? "Stop" : what + times;
    part("go").classList.toggle("stop", Boolean(this.work));
    part("clear").hidden = this.region.tool !== "brush";
  }

  // The model, and what it begins with.

  use(model, told = {}) {
    this.stop();
    this.controls.use(model);
    const { start, tool } = this.form.elements;
    start.value = told.start ?? (this.controls.guided ? "nothing" : "picture");
    this.controls.begin(this.start === "picture");
    this.controls.settings = told;
    part("tool").hidden = !model.holes;
    tool.value = model.holes && told.tool === "brush" ? "brush" : "border";
    this.editor.clear(shapeOf(model));
    this.region.reset();
    this.region.tool = tool.value;
    const units = model.units;
    this.region.set("border" in told ? Number(told.border) || 0 : undefined,
                    "hole" in told ? fromHex(told.hole, units) : undefined);
    this.begin();
  }

  begin() {
    const picture = this.start === "picture";
    this.controls.begin(picture);
    this.parts();
    [this.read, this.truth, this.drawn] = [null, null, false];
    if (picture) this.reading = this.source ? this.encode(this.source) : this.sample();
    this.changed();
  }

  // Show what the beginning asks for.
  parts() {
    const picture = this.start === "picture";
    part("source").hidden = part("other").hidden = !picture;
    part("examples").hidden = picture || !part("examples").children.length;
  }

  async sample() {
    const answer = await fetch(SAMPLE.url).catch(() => null);
    if (answer?.ok) await this.open(await answer.blob(), SAMPLE.name);
  }

  // A file that somebody gives.
  async open(file, name = file?.name) {
    if (file) await this.give({ name, bytes: new Uint8Array(await file.arrayBuffer()) });
  }

  async keep(bytes, number) {
    await this.give({ name: `picture ${number}`, bytes });
    this.editor.element.focus();
    this.editor.element.scrollIntoView({ block: "nearest" });
    this.studio.tell(`Picture ${number} is the one to go on from.`);
  }

  async give(source) {
    this.stop();
    this.reading = this.encode(source);
    await this.reading;
  }

  // Have the model read a picture; what it cannot read leaves everything as it is.
  async encode(source) {
    const { model } = this;
    try {
      const image = source.bytes;
      const read = await score({ model: model.id, prompt: this.controls.prompt, image });
      read.bitmap = await bitmapOf(read.file);
      if (model !== this.model) return;
      [this.source, this.read, this.truth] = [source, read, read.unit_bits];
      this.form.elements.start.value = "picture";
      this.controls.begin(true);
      this.parts();
      this.editor.label = `The picture that is given: ${source.name}`;
      this.editor.show({ bitmap: read.bitmap });
      this.region.show();
      this.drawn = false;
      this.changed();
      this.studio.say(null);
    } catch (error) {
      this.studio.say(error);
    }
  }

  // What stays, in the places of what will come.
  preview() {
    part("figures").textContent = "";
    const { n } = this.controls.request;
    const given = this.read && this.start === "picture";
    const ground = given ? { bitmap: this.read.bitmap, stays: this.stays(), bits: this.truth } : {};
    this.candidates.prepare(Math.min(Math.max(n, 1), 10), shapeOf(this.model), this.model.id, { ...ground, looks: this.model.traces });
    part("replay-row").hidden = true;
    this.tint();
  }

  // Drawing.

  async go() {
    if (!this.form.reportValidity()) return;
    this.studio.say(null);
    if (this.form.elements.fresh.checked) this.controls.newSeed();
    const work = this.work = new AbortController();
    this.drawn = true;
    this.changed();
    try {
      await this.ask(work.signal);
    } catch (error) {
      if (work.signal.aborted) return;
      this.studio.say(error);
      part("figures").textContent = "";
      this.drawn = this.candidates.frames > 0;
    }
    this.end();
  }

  // Give up what is drawn now, if anything is.
  stop(words = "") {
    if (!this.work) return;
    this.work.abort();
    part("figures").textContent = words;
    this.end();
  }

  end() {
    this.work = null;
    this.changed();
    this.moment();
  }

  async ask(signal) {
    const asked = { ...this.controls.request, partial_images: Math.min(FRAMES, this.model.units) };
    const picture = this.start === "picture";
    if (picture) await this.reading;
    if (picture && !this.read) throw new Error("There is no picture to begin with: choose one.");
    if (picture && this.region.problem) throw new Error(this.region.problem);
    this.told = { model: asked.model, prompt: asked.prompt };
    const { tool, border } = this.region;
    const mask = picture && tool === "brush" ? await this.region.mask() : undefined;
    if (picture) asked.image = this.read.file;
    if (mask) asked.mask = mask;
    else if (picture) asked.keep = border / this.model.units;
    this.preview();
    part("stage").scrollIntoView({ block: "nearest" });
    this.studio.tell(`Drawing, seed ${asked.seed}.`);
    const truth = picture ? score({ model: asked.model, prompt: asked.prompt, image: asked.image, mask }, signal) : null;
    truth?.catch(() => {}); // it is awaited below, if drawing comes so far
    const begun = performance.now();
    const latest = [];
    for await (const event of draw(asked, signal)) {
      await this.candidates.add(event);
      signal.throwIfAborted();
      latest[event.index] = event;
      this.figures(latest, begun, latest.filter((one) => one?.ended).length === asked.n);
    }
    if (truth) this.truth = (await truth).unit_bits;
    this.tint();
    this.studio.tell(part("figures").textContent);
  }

  figures(latest, begun, ended) {
    const known = latest.filter(Boolean);
    const sum = (name) => known.reduce((total, one) => total + one[name], 0);
    const seconds = (performance.now() - begun) / 1000;
    const count = (number) => Math.round(number).toLocaleString("en");
    const rate = `${count(sum("tokens") / seconds)} tokens/s`;
    part("figures").textContent = ended
      ? `${count(sum("tokens"))} tokens in ${seconds.toFixed(1)} s, ${rate}; ${count(sum("bits"))} bits`
      : `Drawing: ${rate}, ${count(sum("bits"))} bits so far`;
  }

  // Looking.

  tint() {
    const on = part("tint").checked;
    const truth = this.start === "picture" ? this.truth : null;
    const all = [...this.candidates.bits, ...known(truth ?? [])];
    const scale = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
    this.candidates.tint(on, scale, truth);
    this.editor.show({ bits: on ? truth : null, scale });
    part("legend").hidden = !on || !all.length;
    part("legend-least").textContent = Math.round(scale[0]);
    part("legend-most").textContent = `${Math.round(scale[1])} bits a block`;
    part("legend-hint").textContent =
      "How many bits the model needs for each block: the more, the less it expected what is there."
      + (truth ? " The picture that was given is tinted too, so that true and drawn can be compared." : "");
  }

  moment() {
    const { frames, moment } = this.candidates;
    part("replay-row").hidden = frames < 2 || this.work !== null;
    part("moment").max = frames;
    part("moment").value = moment;
    const tiles = this.candidates.tiles.map((tile) => tile.frames[tile.shown - 1]);
    const tokens = tiles.reduce((total, frame) => total + (frame?.tokens ?? 0), 0);
    part("moment-text").textContent = `${tokens.toLocaleString("en")} tokens`;
  }
}
