// What a decoder does with the levels of a block, in the order of ITU-T T.81.

export const ZIGZAG = Array.from({ length: 64 }, (_, i) => i).sort((a, b) => {
  const diagonal = (i) => (i >> 3) + (i & 7);
  const along = (i) => (diagonal(i) % 2 ? i >> 3 : i & 7);
  return diagonal(a) - diagonal(b) || along(a) - along(b);
}); // place in zigzag order → row-major place

const COSINE = Array.from({ length: 8 }, (_, u) =>
  Array.from({ length: 8 }, (_, x) => (Math.cos(((2 * x + 1) * u * Math.PI) / 16) / 2) * (u ? 1 : Math.SQRT1_2)),
);

// One of the 64 pictures that a block is a sum of: 64 values, row by row, of length 1.
export function basis(place) {
  const v = place >> 3, u = place & 7;
  return Array.from({ length: 64 }, (_, i) => COSINE[v][i >> 3] * COSINE[u][i & 7]);
}

// 64 samples of levels, row-major, whose zigzag place is below `kept`.
export function samplesOf(levels, steps, kept = 64) {
  const out = new Float64Array(64).fill(128);
  for (let k = 0; k < kept; k++) {
    const place = ZIGZAG[k];
    if (!levels[place]) continue;
    const weight = levels[place] * steps[place >> 3][place & 7];
    const wave = basis(place);
    for (let i = 0; i < 64; i++) out[i] += weight * wave[i];
  }
  return out;
}

export function rgb(y, cb, cr) {
  return [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)];
}

// RGBA of the whole picture from the first `kept` coefficients of each block; chroma is repeated.
export function decode(trace, kept) {
  const { width, height } = trace.picture;
  const planes = trace.components.map((_, number) => plane(trace, number, kept));
  const out = new Uint8ClampedArray(4 * width * height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const at = planes.map((one) => {
        const x = Math.floor((column * one.width) / width), y = Math.floor((row * one.height) / height);
        return one.samples[y * one.width + x];
      });
      const [r, g, b] = at.length === 1 ? [at[0], at[0], at[0]] : rgb(...at);
      out.set([r, g, b, 255], 4 * (row * width + column));
    }
  }
  return new ImageData(out, width, height);
}

function plane(trace, component, kept) {
  const own = trace.blocks.filter((block) => block.component === component);
  const width = 8 * (1 + Math.max(...own.map((block) => block.column)));
  const height = 8 * (1 + Math.max(...own.map((block) => block.row)));
  const samples = new Float64Array(width * height);
  for (const block of own) {
    const found = samplesOf(block.levels, trace.components[component].steps, kept);
    for (let i = 0; i < 64; i++) {
      samples[(8 * block.row + (i >> 3)) * width + 8 * block.column + (i & 7)] = found[i];
    }
  }
  return { width, height, samples };
}
