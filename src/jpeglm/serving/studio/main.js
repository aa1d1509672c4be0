// The page: finds the models, mounts the views. A view is a module with a section of index.html:
// { id, title, mount(studio) }, mounted when it is first seen; what is mounted has open(file).

import { models, useKey } from "./api.js";
import { view as draw } from "./draw.js";
import { view as inside } from "./inside.js";

const VIEWS = [draw, inside];
const part = (id) => document.getElementById(id);
const mounted = new Map();

const studio = {
  models: [],
  // Say what is wrong; null: nothing is any more.
  say(problem) {
    part("problem").hidden = !problem;
    part("problem").textContent = problem?.message ?? "";
    part("key").hidden = problem?.status !== 401;
    if (problem) part("problem").scrollIntoView({ block: "nearest" });
  },
  wanted: null, // what `inside` is to show when it is mounted
  // Look into a picture that was drawn: { model, prompt, name, bytes }.
  look(drawn) {
    studio.wanted = drawn;
    const there = mounted.has(inside.id);
    see(inside);
    if (there) mounted.get(inside.id).show(drawn);
    scrollTo(0, 0);
    part("views").lastChild.focus();
  },
  // For those who do not see it.
  tell(words) {
    part("told").textContent = words;
  },
};

let seen = null; // the view that is shown

function see(view) {
  seen = view.id;
  for (const { id } of VIEWS) part(id).hidden = id !== view.id;
  for (const button of part("views").children) {
    button.setAttribute("aria-current", button.dataset.view === view.id ? "page" : "false");
  }
  if (!mounted.has(view.id)) mounted.set(view.id, view.mount(studio));
}

async function begin() {
  try {
    studio.models = await models();
    if (!studio.models.length) throw new Error("This server has no model that draws pictures.");
    studio.say(null);
    see(VIEWS[0]);
  } catch (error) {
    studio.say(error);
  }
}

// A picture that is pasted, or dropped anywhere, is for the view that is seen.
const open = (file) => file && mounted.get(seen)?.open(file);
const dropping = (over) => document.body.classList.toggle("dropping", over);
document.addEventListener("paste", ({ clipboardData }) => open(clipboardData?.files[0]));
document.addEventListener("dragover", (event) => { event.preventDefault(); dropping(true); });
document.addEventListener("dragleave", ({ relatedTarget }) => { if (!relatedTarget) dropping(false); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  dropping(false);
  open(event.dataTransfer.files[0]);
});

for (const view of VIEWS) {
  const button = document.createElement("button");
  button.textContent = view.title;
  button.dataset.view = view.id;
  button.addEventListener("click", () => see(view));
  part("views").append(button);
}
part("views").hidden = VIEWS.length < 2;
part("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(part("key-text").value);
  begin();
});
begin();
