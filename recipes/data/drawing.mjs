// Draws DiceBear's avatars and any SVG: one JSON object a line in, RGB pixels out.
//
// Run by drawing.py in the folder whose node_modules it uses. A line is {"svg": "<svg …"} or
// {"style": "adventurer", "options": {…}}. The answer is its length, uint32 little endian, and then
// side × side × 3 bytes, or, if the SVG cannot be drawn, a sentence of any other length.
import { createInterface } from 'node:readline';
import { Resvg } from '@resvg/resvg-js';

const side = Number(process.env.SIDE);
const styles = {};

async function svgOf({ svg, style, options }) {
  if (svg !== undefined) return svg;
  const { createAvatar } = await import('@dicebear/core');
  styles[style] ??= await import(`@dicebear/${style}`);
  return createAvatar(styles[style], options).toString();
}

function draw(svg) {
  const { width, height, pixels } = new Resvg(svg, {
    fitTo: { mode: 'width', value: side },
    background: 'white',
    font: { loadSystemFonts: false },
  }).render();
  if (width !== side || height !== side) throw new Error(`it is not square: ${width} × ${height}`);
  const out = Buffer.alloc(side * side * 3);
  for (let from = 0, to = 0; to < out.length; from += 4) {
    out[to++] = pixels[from];
    out[to++] = pixels[from + 1];
    out[to++] = pixels[from + 2];
  }
  return out;
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = draw(await svgOf(JSON.parse(line)));
  } catch (error) {
    answer = Buffer.from(`${String(error.message ?? error).split('\n')[0]} `);
    if (answer.length === side * side * 3) answer = answer.subarray(1);
  }
  const head = Buffer.alloc(4);
  head.writeUInt32LE(answer.length);
  process.stdout.write(Buffer.concat([head, answer]));
}
