// What every kind of trace ends with: bits in bytes, tokens, and what the model expected.
import { make, number } from "./dom.js";

export function section(digit, title, words, ...content) {
  return make("section", { class: "look-step", "aria-labelledby": `look-${digit}` },
    make("h2", { id: `look-${digit}` }, make("span", { class: "look-digit" }, digit), title), make("p", {}, words), ...content);
}

// Bytes { hex, index, kind } with the bits of parts { first, end, name } as buttons; kinds: what a kind is called, "" of
// data; on(part): whether it is marked; other(part): whether it belongs elsewhere; choose(part).
export function byteBoxes(bytes, parts, { kinds, on, other, choose }) {
  const boxes = bytes.map((byte) => {
    const first = 8 * byte.index;
    const inside = parts.filter((part) => part.first < first + 8 && part.end > first);
    const digits = parseInt(byte.hex, 16).toString(2).padStart(8, "0");
    const bits = byte.kind === 1 ? [make("span", { class: "look-stuffed" }, digits)] : inside.map((part) => {
      const from = Math.max(0, part.first - first), to = Math.min(8, part.end - first);
      return make("button", { type: "button", class: on(part) ? "on" : other(part) ? "other" : null, title: part.name, onclick: () => choose(part) }, digits.slice(from, to));
    });
    return make("div", { class: `look-byte kind-${byte.kind}`, title: kinds[byte.kind] || null }, make("b", {}, byte.hex.toUpperCase()), make("span", {}, ...bits));
  });
  return make("div", { class: "look-bytes" }, ...boxes);
}

export const tokensAre = (model) =>
  `The model’s alphabet is ${model.alphabet}, merged by byte-pair encoding into a vocabulary of ${number(model.vocabulary)}. The deeper the colour, the more the token surprised the model.`;

// Tokens { index, token, bits } as buttons; name(id), on(token), chosen: an index; choose(token).
export function tokenChips(tokens, { name, on, chosen, choose }) {
  const most = Math.max(...tokens.map((token) => token.bits), 1);
  return make("div", { class: "look-chips" }, ...tokens.map((token) => make("button", {
    type: "button", class: `look-chip${token.index === chosen ? " chosen" : ""}${on(token) ? " on" : ""}`, "data-key": `token-${token.index}`,
    style: `--share: ${(token.bits / most).toFixed(3)}`, onclick: () => choose(token),
  }, make("b", {}, name(token.token)), make("code", {}, `${number(token.bits, 1)} bits`))));
}

// The last step: what the model expected in a token’s place; grammar: what forbids tokens; name(id).
export function expected(digit, token, model, grammar, name) {
  const rows = token.likeliest.map(([id, chance, legal]) => [id, chance, legal]);
  if (!rows.some(([id]) => id === token.token)) rows.push([token.token, 2 ** -token.bits, true]);
  const most = Math.max(...rows.map(([, chance]) => chance));
  return section(digit, "What the model expected here", `Of ${number(model.vocabulary)} tokens the ${grammar} allows ${number(token.legal)} here; the model gave ${number(100 * token.illegal_mass, 2)} % to the others, which are never drawn. The true one was ${token.rank ? `expected after ${number(token.rank)} ${token.rank > 1 ? "others" : "other"}` : "what it expected most"} and costs ${number(token.bits, 1)} bits.`,
    make("table", { class: "look-chances" }, make("tbody", {}, ...rows.map(([id, chance, legal]) => make("tr", { class: id === token.token ? "true" : legal ? null : "illegal" },
      make("th", { scope: "row" }, name(id)), make("td", { class: "look-bar" }, make("i", { style: `width: ${Math.max(0.5, (100 * chance) / most)}%` })),
      make("td", {}, `${number(100 * chance, 1)} %`), make("td", {}, id === token.token ? "the true one" : legal ? "" : "not allowed"))))));
}
