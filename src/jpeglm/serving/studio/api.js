// The server's API: what it knows, what a picture costs, pictures while they are drawn.
// Whatever goes wrong is a Problem, whose message is a sentence for people.

export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

const GONE = "The server does not answer. See whether it still runs where you started it, then try again.";
let key = "";

export function useKey(text) {
  key = text;
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(GONE);
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

async function problemOf(answer) {
  const body = await answer.json().catch(() => null);
  const words = body?.error?.message ?? `the server answered ${answer.status}, and nothing more`;
  return new Problem(sentence(words), answer.status);
}

function sentence(words) {
  return `${words[0].toUpperCase()}${words.slice(1).replace(/\.$/, "")}.`;
}

// Those that draw pictures, as /v1/models has them.
export async function models() {
  const { data } = await (await ask("/v1/models")).json();
  return data.filter((model) => model.media === "picture");
}

// The picture as the model reads it, and what every unit of it costs.
export async function score({ model, prompt, image, mask }, signal) {
  const body = form({ model, prompt }, image, mask);
  const told = await (await ask("/v1/images/scores", { method: "POST", body, signal })).json();
  return { ...told, file: bytesOf(told.b64_json) };
}

// Everything between the picture's pixels and the model's tokens (docs/inspect.md).
export async function trace({ model, prompt, image }, signal) {
  const body = form({ model, prompt }, image);
  return (await ask("/v1/images/traces", { method: "POST", body, signal })).json();
}

// Events of pictures that are drawn, as they come: { index, ended, units, tokens, bits, unit_bits, file }.
export async function* draw({ image, mask, ...fields }, signal) {
  const asked = { ...fields, stream: true };
  const options = image
    ? { body: form(asked, image, mask) }
    : { body: JSON.stringify(asked), headers: { "Content-Type": "application/json" } };
  const path = image ? "/v1/images/edits" : "/v1/images/generations";
  const answer = await ask(path, { method: "POST", signal, ...options });
  for await (const { name, data } of events(answer.body)) {
    if (name === "error") throw new Problem(sentence(data.error.message));
    yield { ...data, ended: name.endsWith(".completed"), file: bytesOf(data.b64_json) };
  }
}

function form(fields, image, mask) {
  const made = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) made.append(name, String(value));
  }
  made.append("image", new Blob([image]), "image");
  if (mask) made.append("mask", mask, "mask.png");
  return made;
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Problem(GONE);
    });
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const [name, data] = part.split("\n");
      yield { name: name.slice("event: ".length), data: JSON.parse(data.slice("data: ".length)) };
    }
  }
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
