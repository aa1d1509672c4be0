// The view «Look inside»: one picture on its way from pixels to tokens, as `jpeglm inspect` shows it.

import { trace } from "./api.js";
import { part } from "./controls.js";
import { look } from "./inside/look.js";

const SAMPLE = { name: "the example", url: "/studio/astronaut.jpg" };

export const view = { id: "inside", title: "Look inside", mount: (studio) => new Inside(studio) };

class Inside {
  constructor(studio) {
    this.studio = studio;
    this.models = studio.models.filter(({ traces }) => traces);
    this.work = null; // the AbortController of what is read
    this.source = null; // { name, bytes }
    const form = part("inside-settings");
    form.elements.model.replaceChildren(...this.models.map(({ id }) => new Option(id, id)));
    form.addEventListener("submit", (event) => { event.preventDefault(); this.read(); });
    form.elements.model.addEventListener("change", () => { this.label(); this.read(); });
    form.elements.words.addEventListener("change", () => this.read());
    part("inside-choose").addEventListener("click", () => part("inside-file").click());
    part("inside-file").addEventListener("change", ({ target }) => { this.open(target.files[0]); target.value = ""; });
    part("inside-sample").addEventListener("click", () => this.sample());
    this.form = form;
    this.label();
    if (!this.models.length) studio.say(new Error("No model of this server writes JPEG, so there is nothing to look into."));
    else if (studio.wanted) this.show(studio.wanted);
    else this.sample();
  }

  label() {
    const model = this.models.find(({ id }) => id === this.form.elements.model.value);
    part("inside-words-field").hidden = !model?.words;
  }

  // { model, prompt, name, bytes }: what another view has drawn.
  show({ model, prompt, name, bytes }) {
    if (this.models.some(({ id }) => id === model)) this.form.elements.model.value = model;
    this.form.elements.words.value = prompt ?? "";
    this.label();
    this.source = { name, bytes };
    this.read();
  }

  async sample() {
    const answer = await fetch(SAMPLE.url).catch(() => null);
    if (answer?.ok) await this.open(await answer.blob(), SAMPLE.name);
  }

  async open(file, name = file?.name) {
    if (!file) return;
    this.source = { name, bytes: new Uint8Array(await file.arrayBuffer()) };
    await this.read();
  }

  async read() {
    if (!this.source) return;
    this.work?.abort();
    const work = this.work = new AbortController();
    const { model, words } = this.form.elements;
    part("inside-name").textContent = `Reading ${this.source.name} …`;
    try {
      const prompt = part("inside-words-field").hidden ? "" : words.value;
      const found = await trace({ model: model.value, prompt, image: this.source.bytes }, work.signal);
      look(part("look"), found);
      part("inside-name").textContent = this.source.name;
      this.studio.say(null);
      this.studio.tell(`${this.source.name} is open.`);
    } catch (error) {
      if (work.signal.aborted) return;
      part("inside-name").textContent = "";
      this.studio.say(error);
    }
  }
}
