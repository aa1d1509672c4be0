// The view «Look inside»: one picture on its way from pixels to tokens, as `jpeglm inspect` shows it.

import { trace } from "./api.js";
import { part } from "./controls.js";
import { lookCodes } from "./inside/codes.js";
import { look } from "./inside/look.js";

const KINDS = {
  jpeg: [look, "From pixels to waves, from waves to small integers, symbols, bits and bytes, and at last to the tokens that the model reads and writes. Point at anything: it is marked in every step."],
  codes: [lookCodes, "From a patch of pixels to a vector, from the vector to the nearest code of a codebook, and at last to the tokens that the model reads and writes."],
};
const SAMPLE = { name: "the example", url: "/studio/astronaut.jpg" };

export const view = { id: "inside", title: "Look inside", mount: (studio) => new Inside(studio) };

class Inside {
  constructor(studio) {
    this.studio = studio;
    this.models = studio.models.filter(({ traces }) => traces);
    const others = studio.models.filter(({ traces }) => !traces).map(({ id }) => id);
    this.work = null; // the AbortController of what is read
    this.source = null; // { name, bytes } of what is shown
    this.asked = null; // of what is to be, which may still be read
    const form = part("inside-settings");
    form.elements.model.replaceChildren(...this.models.map(({ id }) => new Option(id, id)));
    form.addEventListener("submit", (event) => { event.preventDefault(); this.read(); });
    form.elements.model.addEventListener("change", () => { this.label(); this.read(); });
    for (const name of ["words", "class"]) form.elements[name].addEventListener("change", () => this.read());
    part("inside-choose").addEventListener("click", () => part("inside-file").click());
    part("inside-file").addEventListener("change", ({ target }) => { this.open(target.files[0]); target.value = ""; });
    part("inside-sample").addEventListener("click", () => this.sample());
    part("inside-others").textContent = others.length ? `Not here: ${others.join(", ")}. Only JPEG and the codes of a VQ-VAE can be looked into.` : "";
    this.form = form;
    this.label();
    if (!this.models.length) studio.say(new Error("No model of this server writes JPEG or the codes of a VQ-VAE, so there is nothing to look into."));
    else if (studio.wanted) this.show(studio.wanted);
    else this.sample();
  }

  label() {
    const model = this.models.find(({ id }) => id === this.form.elements.model.value);
    const classes = model?.classes ?? [];
    part("inside-words-field").hidden = !model?.words;
    part("inside-class-field").hidden = !classes.length;
    this.form.elements.class.replaceChildren(new Option("none given", ""), ...classes.map((name) => new Option(name, name)));
  }

  // What the model is told beside the picture.
  get prompt() {
    const { words, class: kind } = this.form.elements;
    if (!part("inside-class-field").hidden) return kind.value;
    return part("inside-words-field").hidden ? "" : words.value;
  }

  // { model, prompt, name, bytes }: what another view has drawn.
  show({ model, prompt, name, bytes }) {
    if (this.models.some(({ id }) => id === model)) this.form.elements.model.value = model;
    this.form.elements.words.value = prompt ?? "";
    this.label();
    if (!part("inside-class-field").hidden) this.form.elements.class.value = prompt ?? "";
    this.read({ name, bytes });
  }

  async sample() {
    const answer = await fetch(SAMPLE.url).catch(() => null);
    if (answer?.ok) await this.open(await answer.blob(), SAMPLE.name);
  }

  // A file that somebody gives.
  async open(file, name = file?.name) {
    if (file && this.models.length) await this.read({ name, bytes: new Uint8Array(await file.arrayBuffer()) });
  }

  // What cannot be read leaves everything as it is.
  async read(source = this.asked) {
    if (!source) return;
    this.asked = source;
    this.work?.abort();
    const work = this.work = new AbortController();
    const { model } = this.form.elements;
    part("inside-name").textContent = `Reading ${source.name} …`;
    try {
      const found = await trace({ model: model.value, prompt: this.prompt, image: source.bytes }, work.signal);
      const [show, lead] = KINDS[found.kind];
      show(part("look"), found);
      part("inside-lead").textContent = lead;
      this.source = source;
      this.studio.say(null);
      this.studio.tell(`${source.name} is open.`);
    } catch (error) {
      if (work.signal.aborted) return;
      this.asked = this.source;
      this.studio.say(error);
    }
    part("inside-name").textContent = this.source?.name ?? "";
  }
}
