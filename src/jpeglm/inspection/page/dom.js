// Elements in one line: make("button", { class: "chip", onclick }, "text", child).

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") element.style.cssText = value ?? ""; // a page's policy may forbid the attribute
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// Squares of grey for 64 values, as a small canvas that CSS enlarges.
export function grey(values, width = 8) {
  const height = values.length / width;
  const canvas = make("canvas", { width, height, class: "pixels" });
  const data = new Uint8ClampedArray(values.length * 4);
  values.forEach((value, i) => data.set([value, value, value, 255], 4 * i));
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  return canvas;
}

// The bitmap of a data URI, which a page's policy may forbid to load.
export function bitmapOf(uri) {
  const bytes = Uint8Array.from(atob(uri.split(",")[1]), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

// A button of a group of which one is pressed at a time; arrow keys go from one to the next.
export function choices(label, names, chosen, choose) {
  const group = make("div", { class: "choices", role: "group", "aria-label": label });
  names.forEach(([value, name]) =>
    group.append(make("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) }, name)),
  );
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const all = [...group.children];
    const at = all.indexOf(document.activeElement);
    if (step && all[at + step]) {
      all[at + step].focus();
      event.preventDefault();
    }
  });
  return group;
}

export const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
