// The functions of ppma_web.cpp, as the page calls them. Nothing here is generated: the module asks for a handful of
// functions of a system, and a page has none of what they tell about.

const system = (memory) => {
  const set = (pointer, value) => new DataView(memory().buffer).setUint32(pointer, value, true);
  return {
    env: { emscripten_notify_memory_growth() {} },
    wasi_snapshot_preview1: {
      environ_sizes_get(count, bytes) { set(count, 0); set(bytes, 0); return 0; },
      environ_get() { return 0; },
      clock_time_get() { return 0; },
      fd_close() { return 0; },
      fd_seek() { return 0; },
      fd_write() { return 0; },
      proc_exit(status) { throw new Error(`the module ended with status ${status}`); },
    },
  };
};

export class Ppma {
  // source: a Response (or its promise), or the bytes of ppma.wasm
  static async load(source) {
    const self = new Ppma();
    const imports = system(() => self.exports.memory);
    const bytes = source instanceof Uint8Array ? source : await (await source).arrayBuffer();
    self.exports = (await WebAssembly.instantiate(bytes, imports)).instance.exports;
    self.exports._initialize();
    return self;
  }
  // web_NAME(...); an error of the library becomes an Error with its words.
  call(name, ...values) {
    const result = this.exports[`web_${name}`](...values);
    const said = this.text(this.exports.web_error());
    if (said) throw new Error(said);
    return result;
  }
  // Arrays of the module. The module's memory moves when it grows: use them before the next call.
  floats(pointer, count) { return new Float32Array(this.exports.memory.buffer, pointer, count); }
  ints(pointer, count) { return new Int32Array(this.exports.memory.buffer, pointer, count); }
  bytes(pointer, count) { return new Uint8ClampedArray(this.exports.memory.buffer, pointer, count); }
  text(pointer) {
    const bytes = new Uint8Array(this.exports.memory.buffer, pointer);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }
}

// Colours of numbers: viridis for decays and masks, magma for attention.
export class Colours {
  constructor(ppma) {
    this.tables = [0, 1].map((map) => ppma.bytes(ppma.call('colours', map), 768).slice());
  }
  // Draws values of an n x n map, `low` to `high`, into a canvas of n x n pixels (the page scales it).
  draw(canvas, values, n, map, high = 1, low = 0) {
    const table = this.tables[map];
    if (canvas.width !== n) canvas.width = canvas.height = n;
    const context = canvas.getContext('2d');
    const image = context.createImageData(n, n);
    for (let t = 0; t < n * n; ++t) {
      const level = 3 * Math.max(0, Math.min(255, Math.round(255 * (values[t] - low) / (high - low || 1))));
      for (let c = 0; c < 3; ++c) image.data[4 * t + c] = table[level + c];
      image.data[4 * t + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }
}

export const percent = (x) => `${x >= 0.0995 ? Math.round(100 * x) : Number((100 * x).toPrecision(2))}\u00a0%`;
// As how many tokens a distribution reaches when all of them get the same: e^entropy.
export const reach = (shares) => {
  let entropy = 0;
  for (const p of shares) if (p > 0) entropy -= p * Math.log(p);
  return Math.exp(entropy);
};
