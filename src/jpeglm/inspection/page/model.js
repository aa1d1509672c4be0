// The links of a trace: whatever is pointed at is a set of bits of the scan, and so are its symbols, blocks and tokens.
import { ZIGZAG } from "./jpeg.js";

const overlap = (a, b) => a[0] < b[1] && b[0] < a[1];

export class Links {
  constructor(trace) {
    this.trace = trace;
    this.parts = trace.parts.map(([name, bits, first, end, block, k, symbol], index) => ({
      name, bits, first, end, block, k, symbol, index, mcu: trace.blocks[block].mcu,
    }));
    this.tokens = trace.tokens.map((token, index) => ({ ...token, index }));
    this.bytes = trace.scan.hex.match(/../g).map((hex, index) => ({ hex, index, kind: trace.scan.kinds[index] }));
    this.rank = new Array(64);
    ZIGZAG.forEach((place, k) => (this.rank[place] = k));
  }

  partsOf(mcu) {
    return this.parts.filter((part) => part.mcu === mcu);
  }

  // Blocks of an MCU, each with its place among the trace's blocks.
  blocksOf(mcu) {
    return this.trace.blocks.map((block, index) => ({ ...block, index })).filter((block) => block.mcu === mcu);
  }

  spanOf(mcu) {
    const own = this.partsOf(mcu);
    return [own[0].first, own[own.length - 1].end];
  }

  tokensIn(span) {
    const last = this.parts[this.parts.length - 1].end;
    return this.tokens.filter((token) =>
      token.runs.length ? token.runs.some((run) => overlap(run, span)) : span[1] === last,
    );
  }

  bytesIn([first, end]) {
    return this.bytes.slice(first >> 3, (end + 7) >> 3);
  }

  touches(runs, thing) {
    const own = thing.runs ?? [[thing.first, thing.end]];
    return own.some((one) => runs.some((run) => overlap(one, run)));
  }

  // The parts that say a coefficient: its own code and amplitude, or the code that a run of zeros ends with.
  partsAbout(block, place) {
    const k = this.rank[place];
    const own = this.parts.filter((part) => part.block === block && part.k >= 0);
    const said = own.find((part) => part.k >= k) ?? own[own.length - 1];
    return own.filter((part) => part.k === said.k);
  }

  // Row-major places of the coefficients of a block that the selected bits say something about.
  placesIn(runs, block) {
    const found = new Set();
    let next = 0;
    for (const part of this.parts.filter((one) => one.block === block && one.k >= 0)) {
      if (this.touches(runs, part)) {
        const end = part.name === "EOB" ? 63 : part.k;
        for (let k = Math.min(next, part.k); k <= end; k++) found.add(ZIGZAG[k]);
      }
      next = part.name.startsWith("amp") ? part.k + 1 : Math.max(next, part.name === "EOB" ? 64 : part.k);
      if (part.name === "ZRL") next = part.k + 1;
    }
    return found;
  }

  name(token) {
    return this.trace.names[token];
  }
}
