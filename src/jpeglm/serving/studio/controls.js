// The settings of a drawing: what of them a model has, its own defaults, what is asked for.

const SAMPLING = ["temperature", "top_k", "top_p", "guidance"];
const EXAMPLES = {
  avatars: [
    "persona, blue shirt, brown skin, grey background, bald, glasses",
    "persona, red shirt, light skin, blue background, sunglasses",
    "toon, short blond hair, blue background, smile",
  ],
}; // of models that ship; what others know is for their makers to say

export class Controls {
  constructor(form) {
    this.form = form;
    this.fields = form.elements;
    this.model = null;
    this.picture = true; // whether one is given
  }

  // Show what this model takes, in its own defaults.
  use(model) {
    this.model = model;
    const { id, size, units, words, classes, holes } = model;
    const can = [words && "takes words", classes.length && `knows ${classes.length} classes`, holes && "fills holes"];
    const shape = `${size.replace("x", " × ")} pixels, ${units} blocks`;
    part("model-hint").textContent = [shape, ...can.filter(Boolean)].join(" · ");
    part("words-field").hidden = !words;
    part("class-field").hidden = !classes.length;
    part("guidance-field").hidden = !this.guided;
    this.fields.guidance.disabled = !this.guided;
    const names = classes.map((name) => new Option(name, name));
    this.fields.class.replaceChildren(...names, new Option("any of them", ""));
    const examples = EXAMPLES[id] ?? [];
    this.fields.words.value = examples[0] ?? "";
    part("examples").replaceChildren(...examples.map((text) => this._chip(text)));
    this.restore();
  }

  get guided() {
    return this.model.words || this.model.classes.length > 0;
  }

  get prompt() {
    if (this.model.words) return this.fields.words.value.trim();
    return this.model.classes.length ? this.fields.class.value : "";
  }

  // The model's own sampling, which may be another where a picture is given.
  get own() {
    return this.picture ? this.model.sampling_of_edits : this.model.sampling;
  }

  restore() {
    for (const name of SAMPLING) this.fields[name].value = this.own[name] ?? 1;
  }

  // Begin with a picture or with nothing; what was changed by hand stays.
  begin(picture) {
    const untouched = SAMPLING.every((name) => Number(this.fields[name].value) === (this.own[name] ?? 1));
    this.picture = picture;
    if (untouched) this.restore();
  }

  // Fields of a request.
  get request() {
    const { fields, prompt } = this;
    const told = { model: this.model.id, prompt, n: Number(fields.n.value), seed: Number(fields.seed.value) };
    for (const name of SAMPLING) {
      if (name !== "guidance" || (this.guided && prompt)) told[name] = Number(fields[name].value);
    }
    return told;
  }

  get settings() {
    const { fields } = this;
    const told = { n: fields.n.value, seed: fields.seed.value };
    for (const name of SAMPLING) if (!fields[name].disabled) told[name] = fields[name].value;
    if (this.model.words) told.words = fields.words.value;
    if (this.model.classes.length) told.class = fields.class.value || "any";
    return told;
  }

  set settings(told) {
    for (const name of ["n", "seed", "words", ...SAMPLING]) {
      if (name in told) this.fields[name].value = told[name];
    }
    if ("class" in told) this.fields.class.value = told.class === "any" ? "" : told.class;
  }

  newSeed() {
    const [seed] = crypto.getRandomValues(new Uint32Array(1));
    this.fields.seed.value = seed >>> 1;
  }

  _chip(text) {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.textContent = text;
    chip.addEventListener("click", () => {
      this.fields.words.value = text;
      this.fields.words.dispatchEvent(new Event("input", { bubbles: true }));
    });
    return chip;
  }
}

export function part(id) {
  return document.getElementById(id);
}
