// Settings ⇄ the fragment of a link: which the browser keeps to itself, no server sees it.

export function toFragment(settings) {
  const pairs = Object.entries(settings).filter(([, value]) => value !== undefined && value !== "");
  return new URLSearchParams(pairs).toString();
}

export function fromFragment(fragment) {
  return Object.fromEntries(new URLSearchParams(fragment.replace(/^#/, "")));
}

// A hole of a few units as hexadecimal digits, four units each.
export function toHex(hole) {
  let digits = "";
  for (let i = 0; i < hole.length; i += 4) {
    digits += [0, 1, 2, 3].reduce((value, j) => value * 2 + (hole[i + j] ? 1 : 0), 0).toString(16);
  }
  return digits;
}

export function fromHex(digits, units) {
  return Array.from({ length: units }, (_, i) =>
    Boolean((parseInt(digits[i >> 2] ?? "0", 16) || 0) & (8 >> (i & 3))));
}
