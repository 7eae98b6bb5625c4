// One query of a picture and its mask: what the upper half of the page does. All numbers come from ppma.wasm (look.hpp);
// here are the controls, the drawing, and the pointer.

import { Colours, Ppma, percent, reach } from './ppma.js';

const masks = [  // in the order of look.hpp's View
  { name: 'None', words: 'No mask: attention goes by likeness alone, wherever a token lies.', paths: [] },
  { name: 'RMT', words: 'Fixed decays of 0.9, the same on every edge: the mask falls with the Manhattan distance and knows nothing of the picture.',
    paths: ['', ''] },
  { name: 'V2H polyline', words: 'One path from key to query: down or up the key’s column, then along the query’s row. The mask is the product of the decays on it.',
    paths: ['V2H'] },
  { name: '2-D polyline', words: 'PPMA’s own: both L-shaped paths, V2H and H2V, each with a softmax of its own, and their mean. It reaches across a figure and around one corner.',
    paths: ['V2H', 'H2V'] },
  { name: 'Cross scan', words: 'Two sequences through all tokens, row by row and column by column: neighbours in the picture may be a whole row apart.',
    paths: ['by rows', 'by columns'] },
  { name: 'Hilbert', words: 'Two sequences along a Hilbert curve and its transpose. They keep places together better, and still tear neighbours apart.',
    paths: ['curve', 'transposed'] },
  { name: '2DMamba', words: 'One way only: a token sees what lies above and to its left, through one decay for both directions.', paths: ['H2V'] },
  { name: 'PPMLA, linear', words: 'The polyline mask on linear attention, which has no softmax: products of positive features under L + Lᵀ, in time O(N). Shares are of its sum.',
    paths: ['V2H', 'H2V'] },
];
const side = 504;  // pixels of a picture: every grid divides it

const $ = (id) => document.getElementById(id);
const picture = document.createElement('canvas'), veil = document.createElement('canvas');
picture.width = picture.height = side;
const state = { n: 28, view: 3, query: [18, 19], key: null, brush: 0, tool: 'move', painted: [new Set(), new Set()], contrast: 30, scene: '0' };
let ppma, colours, style, wanted = false, drawn = [], seenTimer;

const tokens = () => state.n * state.n;
const map = (which) => ppma.floats(ppma.call('map', which), tokens());
const radio = (name) => document.querySelector(`input[name="${name}"]:checked`);
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const inside = (at) => at.map((x) => clamp(x, 0, state.n - 1));

// Errors of the library, of the browser and of this page, in words.
function trouble(error) {
  $('trouble').textContent = error ? `${error.message ?? error}` : '';
}
addEventListener('error', (event) => trouble(event.error ?? event.message));
addEventListener('unhandledrejection', (event) => trouble(event.reason));

// ---- pictures --------------------------------------------------------------------------------

const unpaint = () => state.painted.forEach((edges) => edges.clear());
function setTokens() {
  unpaint();
  ppma.call('tokens', state.n, state.contrast);
  changed();
}
function showScene(number) {
  const bytes = ppma.bytes(ppma.call('scene', number, side), 4 * side * side);
  picture.getContext('2d').putImageData(new ImageData(bytes.slice(), side, side), 0, 0);
  const starts = [[0.66, 0.69], [0.3, 0.45], [0.63, 0.41], [0.2375, 0.5], [0.3, 0.25]];
  state.query = inside(starts[number].map((x) => Math.floor(x * state.n)));
  state.key = null;
  setTokens();
}
async function showFile(file) {
  if (!file) return;
  const image = await createImageBitmap(file).catch(() => null);
  if (!image) return trouble(`${file.name}: this browser cannot read it as an image`);
  const edge = Math.min(image.width, image.height), context = picture.getContext('2d');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, side, side);
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, (image.width - edge) / 2, (image.height - edge) / 2, edge, edge, 0, 0, side, side);
  const pixels = context.getImageData(0, 0, side, side).data;
  ppma.bytes(ppma.call('picture', side), pixels.length).set(pixels);
  state.key = null;
  const own = $('scene').querySelector('[value=own]');
  own.hidden = false;
  $('scene').value = state.scene = 'own';
  setTokens();
  trouble();
}

// ---- decays ----------------------------------------------------------------------------------

// Closes or opens the edges of the tokens around (row, column): of both axes, or of one (0 alpha, 1 beta).
function paint(row, column, tool, axes = [0, 1]) {
  for (const axis of axes) {
    const decay = map(axis);
    for (let i = row - state.brush; i <= row + state.brush; ++i)
      for (let j = column - state.brush; j <= column + state.brush; ++j) {
        if (i < 0 || j < 0 || i >= state.n || j >= state.n || Math.hypot(i - row, j - column) > state.brush + 0.5) continue;
        const t = i * state.n + j;
        state.painted[axis].add(t);
        decay[t] = tool === 'close' ? Math.max(0.001, 0.55 * decay[t]) : Math.min(1, 1 - 0.55 * (1 - decay[t]));
      }
  }
  changed();
}

// ---- drawing ---------------------------------------------------------------------------------

// Draws once before the next frame, however much has changed.
function changed() {
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => { wanted = false; draw(); });
}
function line(context, points, width, colour) {
  context.beginPath();
  points.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.lineWidth = width;
  context.strokeStyle = colour;
  context.stroke();
}
const wall = (colour, decay) => `rgba(${colour},${(0.9 - 1.5 * decay).toFixed(2)})`;
function drawWalls(context, cell, unit) {
  // Edges that were painted; all that cost much while a brush is in hand.
  const { n, painted } = state, seen = (axis, t) => painted[axis].has(t) || state.tool !== 'move', alpha = map(0), beta = map(1);
  context.lineCap = 'round';
  for (const [width, colour] of [[3 * unit, '255,255,255'], [1.2 * unit, '20,20,22']])
    for (let i = 0; i < n; ++i)
      for (let j = 0; j < n; ++j) {
        const t = i * n + j, x = j * cell, y = i * cell;
        if (j > 0 && alpha[t] < 0.6 && seen(0, t)) line(context, [[x, y], [x, y + cell]], width, wall(colour, alpha[t]));
        if (i > 0 && beta[t] < 0.6 && seen(1, t)) line(context, [[x, y], [x + cell, y]], width, wall(colour, beta[t]));
      }
}
function drawVeil(context, width) {
  const mask = map(2), { n } = state;
  veil.width = veil.height = n;
  const own = veil.getContext('2d'), image = own.createImageData(n, n), dark = matchMedia('(prefers-color-scheme: dark)').matches ? 16 : 252;
  for (let t = 0; t < n * n; ++t) {
    image.data.fill(dark, 4 * t, 4 * t + 3);
    image.data[4 * t + 3] = 205 * (1 - Math.sqrt(Math.min(1, mask[t])));
  }
  own.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(veil, 0, 0, width, width);
}
function drawPaths(context, cell, unit) {
  const names = masks[state.view].paths, inks = [style.getPropertyValue('--v2h'), style.getPropertyValue('--h2v')];
  context.lineJoin = context.lineCap = 'round';
  names.forEach((name, which) => {
    const count = ppma.call('path', state.view, which, ...state.key, ...state.query);
    const cells = ppma.ints(ppma.call('cells'), 2 * count), points = [];
    for (let k = 0; k < count; ++k) points.push([(cells[2 * k + 1] + 0.5) * cell, (cells[2 * k] + 0.5) * cell]);
    if (!count) return;
    line(context, points, 6.5 * unit, 'rgba(255,255,255,.95)');
    line(context, points, 3.6 * unit, inks[name === 'H2V' ? 1 : which]);
  });
}
function dot(context, at, cell, radius, fill) {
  context.beginPath();
  context.arc((at[1] + 0.5) * cell, (at[0] + 0.5) * cell, radius, 0, 7);
  if (fill) { context.fillStyle = fill; context.fill(); return; }
  for (const [width, colour] of [[radius * 0.75, '#111'], [radius * 0.38, '#fff']]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke();
  }
}
function drawPicture() {
  const canvas = $('picture'), unit = Math.min(2, devicePixelRatio || 1), width = Math.round(canvas.clientWidth * unit);
  if (canvas.width !== width) canvas.width = canvas.height = width;
  const context = canvas.getContext('2d'), cell = width / state.n;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, 0, 0, width, width);
  if ($('dim').checked) drawVeil(context, width);
  drawWalls(context, cell, unit);
  if (state.key) {
    drawPaths(context, cell, unit);
    dot(context, state.key, cell, 6 * unit, '#fff');
    dot(context, state.key, cell, 4 * unit, '#111');
  }
  dot(context, state.query, cell, Math.max(6.5 * unit, 0.55 * cell));
}
function draw() {
  const began = performance.now();
  ppma.call('look', state.view, ...state.query);
  const computed = performance.now() - began, { n } = state;
  const shares = [map(3), map(4)], most = shares.map((s) => s.reduce((a, b) => Math.max(a, b), 0));
  drawPicture();
  colours.draw($('map-alpha'), map(0), n, 0);
  colours.draw($('map-beta'), map(1), n, 0);
  colours.draw($('map-mask'), map(2), n, 0);
  colours.draw($('map-plain'), shares[0], n, 1, most[0]);
  colours.draw($('map-masked'), shares[1], n, 1, most[1]);
  for (const mark of document.querySelectorAll('.play .marked')) {
    mark.style.setProperty('--x', `${100 * (state.query[1] + 0.5) / n}%`);
    mark.style.setProperty('--y', `${100 * (state.query[0] + 0.5) / n}%`);
  }
  say(shares, most);
  drawn = [...drawn.slice(-29), [computed, performance.now() - began]];
  const middle = (k) => drawn.map((d) => d[k]).sort((a, b) => a - b)[drawn.length >> 1].toFixed(1);
  $('time').textContent = `One query of ${n * n} tokens: ${middle(0)} ms, with drawing ${middle(1)} ms`;
}
function say(shares, most) {
  const mask = map(2), { n, query, key } = state, [without, under] = shares.map(reach);
  let half = 0;
  for (const m of mask) half += m >= 0.5;
  const number = (x) => (x < 0.001 ? 'less than 0.001' : `${Number(x.toPrecision(2))}`);
  let words = `The query, row ${query[0] + 1}, column ${query[1] + 1} of ${n}, sees ${half} of ${n * n} tokens with half their weight or more. ` +
    `Its attention reaches as far as ${Math.round(under)} equal tokens; without the mask ${Math.round(without)}.`;
  if (key) {
    const through = masks[state.view].paths.slice(0, ppma.call('paths')).map((name, which) =>
      `${name ? `<b class="${name === 'H2V' || which ? 'h2v' : 'v2h'}">${name}</b> ` : ''}${number(ppma.floats(ppma.call('path_row', which), n * n)[key[0] * n + key[1]])}`);
    if (through.length > 1 && through[0] === through[1]) through.pop();
    if (through.length) words += ` What passes from the key, row ${key[0] + 1}, column ${key[1] + 1}: ${through.join(', ')}.`;
  }
  $('seen').innerHTML = words;
  $('note-mask').textContent = `of the query`;
  $('note-plain').textContent = `up to ${percent(most[0])}`;
  $('note-masked').textContent = `up to ${percent(most[1])}`;
  clearTimeout(seenTimer);
  seenTimer = setTimeout(() => { $('said').textContent = `${masks[state.view].name}. ${$('seen').textContent}`; }, 400);
}

// ---- pointer and keys ------------------------------------------------------------------------

function cellOf(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return inside([event.clientY - box.top, event.clientX - box.left].map((v) => Math.floor(v / box.width * state.n)));
}
// A brush paints `axes` of decays; the pointer that moves takes the query along, from its ring or by a click anywhere, and
// elsewhere shows the path from the token under it.
function listen(canvas, axes) {
  canvas.addEventListener('keydown', (event) => onKey(event, axes));
  let held = null, last = null;
  canvas.addEventListener('pointerdown', (event) => {
    const at = cellOf(event, canvas), near = 0.06 * state.n + 0.5;
    canvas.setPointerCapture(event.pointerId);
    held = state.tool !== 'move' ? 'brush' : Math.hypot(at[0] - state.query[0], at[1] - state.query[1]) <= near ? 'query' : 'key';
    last = at;
    if (held === 'brush') paint(...at, state.tool, axes);
    else if (held === 'key') { state.key = at; changed(); }
    canvas.dataset.moved = '';
  });
  canvas.addEventListener('pointermove', (event) => {
    const at = cellOf(event, canvas);
    if (last && at[0] === last[0] && at[1] === last[1] && held) return;
    canvas.dataset.moved = 'yes';
    if (held === 'brush') {  // every token between two events
      const steps = Math.max(Math.abs(at[0] - last[0]), Math.abs(at[1] - last[1]));
      for (let k = 1; k <= steps; ++k) paint(...[0, 1].map((x) => Math.round(last[x] + (at[x] - last[x]) * k / steps)), state.tool, axes);
    } else if (held === 'query') state.query = at;
    else if (state.tool === 'move') state.key = at;
    last = at;
    changed();
  });
  canvas.addEventListener('pointerup', (event) => {
    if (held === 'key' && !canvas.dataset.moved) {
      state.query = cellOf(event, canvas);
      state.key = null;
    }
    held = null;
    changed();
  });
  canvas.addEventListener('pointercancel', () => { held = null; });
  canvas.addEventListener('pointerleave', () => { if (!held && state.key) { state.key = null; changed(); } });
}
function onKey(event, axes) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const brush = { '-': 'close', '+': 'open', '=': 'open' }[event.key];
  if (step) {
    const moved = inside((event.shiftKey ? state.key ?? state.query : state.query).map((x, k) => x + step[k]));
    if (event.shiftKey) state.key = moved;
    else state.query = moved;
    changed();
  } else if (brush) paint(...state.query, brush, axes);
  else if (event.key === 'Escape') { state.key = null; changed(); }
  else return;
  event.preventDefault();
}

function controls() {
  masks.forEach(({ name }, k) => {
    const label = document.createElement('label');
    label.innerHTML = `<input type="radio" name="mask" value="${k}"><span>${name}</span>`;
    label.firstChild.checked = k === state.view;
    $('masks').append(label);
  });
  const chooseMask = () => {
    state.view = Number(radio('mask').value);
    $('mask-words').textContent = masks[state.view].words;
    changed();
  };
  $('masks').addEventListener('change', chooseMask);
  chooseMask();
  $('tools').addEventListener('change', () => { state.tool = radio('tool').value; changed(); });
  $('grids').addEventListener('change', () => {
    const n = Number(radio('grid').value);
    state.query = state.query.map((x) => Math.floor((x + 0.5) / state.n * n));
    state.n = n;
    state.key = null;
    drawn = [];
    setTokens();
  });
  $('brush').addEventListener('input', () => {
    state.brush = Number($('brush').value);
    $('brush-size').textContent = state.brush ? `${2 * state.brush + 1} tokens` : 'one token';
  });
  const contrast = () => {
    state.contrast = Number($('contrast').value);
    $('contrast-size').textContent = state.contrast;
    ppma.call('decays', state.contrast);
    unpaint();
    changed();
  };
  $('contrast').addEventListener('input', contrast);
  $('reset').addEventListener('click', contrast);
  $('scene').addEventListener('change', () => {
    if ($('scene').value !== 'own') showScene(Number($('scene').value));
    $('scene').querySelector('[value=own]').hidden = true;
  });
  $('file').addEventListener('change', () => showFile($('file').files[0]));
  addEventListener('dragover', (event) => event.preventDefault());
  addEventListener('drop', (event) => { event.preventDefault(); showFile(event.dataTransfer.files[0]); });
  $('dim').addEventListener('change', changed);
  listen($('picture'), [0, 1]);
  listen($('map-alpha'), [0]);
  listen($('map-beta'), [1]);
  for (const name of ['alpha', 'beta', 'mask', 'plain', 'masked']) {
    const canvas = $(`map-${name}`), frame = document.createElement('div');
    frame.className = 'marked';
    canvas.replaceWith(frame);
    frame.append(canvas);
  }
  new ResizeObserver(changed).observe($('picture'));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
}

export { map, ppma, state };  // for the tests

try {
  style = getComputedStyle(document.documentElement);
  ppma = await Ppma.load(fetch('ppma.wasm'));
  colours = new Colours(ppma);
  for (const k of [0, 1]) {
    const scale = $(`scale-${k}`).getContext('2d');
    for (let v = 0; v < 256; ++v) {
      scale.fillStyle = `rgb(${colours.tables[k].slice(3 * v, 3 * v + 3).join()})`;
      scale.fillRect(v, 0, 1, 1);
    }
  }
  showScene(0);
  draw();
  controls();
  document.documentElement.dataset.drawn = Math.round(performance.now());  // since the page was asked for
} catch (error) {
  trouble(error);
}
