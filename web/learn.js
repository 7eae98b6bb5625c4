// The lower half of the page: starts and stops the network in worker.js, and shows what it says.

import { Colours, percent } from './ppma.js';

const $ = (id) => document.getElementById(id);
const svg = $('curve'), chart = { left: 26, right: 414, top: 8, bottom: 190 };
const look = { index: 3, row: 0.5, column: 0.5 };
let worker, colours, total = 1, curve = [], running = false, done = false, seconds = 0, since = 0, rates = [], seed = 1, said = 0;

const send = (type, more = {}) => worker.postMessage({ type, ...more });
const passed = () => seconds + (running ? (performance.now() - since) / 1000 : 0);

function drawCurve() {
  const x = (images) => chart.left + (chart.right - chart.left) * images / total;
  const y = (accuracy) => chart.bottom - (chart.bottom - chart.top) * accuracy / 100;
  const rule = (at, kind) => `<line class="${kind}" x1="${chart.left}" x2="${chart.right}" y1="${y(at)}" y2="${y(at)}"/>`;
  const points = curve.map(([images, accuracy]) => `${x(images).toFixed(1)},${y(accuracy).toFixed(1)}`), last = points.at(-1)?.split(',');
  svg.innerHTML = [0, 50, 100].map((at) => `${rule(at, 'axis')}<text x="${chart.left - 6}" y="${y(at) + 4}" text-anchor="end">${at}</text>`).join('') +
    `${rule(90, 'goal')}<text x="${chart.left - 6}" y="${y(90) + 8}" text-anchor="end">90</text><text x="${chart.left + 6}" y="${y(100) + 13}">% of new images named</text>` +
    (total > 1 ? [0, 0.5, 1].map((part) => `<text x="${x(part * total)}" y="${chart.bottom + 18}" text-anchor="${part === 1 ? 'end' : part ? 'middle' : 'start'}">${
      Math.round(part * total / 1000)},000${part === 1 ? ' images' : ''}</text>`.replace('>0,000', '>0')).join('') : '') +
    (points.length ? `<polyline class="line" points="${points.join(' ')}"/><circle class="dot" cx="${last[0]}" cy="${last[1]}" r="4"/>` : '');
  svg.setAttribute('aria-label', curve.length ? `Accuracy on new images: ${curve.at(-1)[1].toFixed(0)} percent after ${curve.at(-1)[0]} images` : 'Accuracy over images: no run yet');
}
function buttons() {
  $('start').textContent = done ? 'Done' : running ? 'Stop' : curve.length > 1 ? 'Go on' : 'Start';
  $('start').disabled = done;
  $('restart').disabled = curve.length < 2 && !running;
}
function showTime() {
  const s = Math.floor(passed());
  $('n-time').textContent = s ? `${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')}` : '–';
}
function mean(values) { return values.reduce((a, b) => a + b, 0) / values.length; }

const news = {
  ready({ tables, total: all, parameters }) {
    colours = Object.assign(Object.create(Colours.prototype), { tables });
    total = all;
    $('parameters').textContent = parameters.toLocaleString('en');
    $('next').disabled = false;
  },
  step({ images, loss, count, time }) {
    rates = [...rates.slice(-19), time];
    $('n-images').textContent = images.toLocaleString('en');
    $('n-rate').textContent = Math.round(1000 * count / mean(rates));
    $('n-loss').textContent = loss.toFixed(2);
    showTime();
  },
  accuracy({ images, accuracy }) {
    curve.push([images, accuracy]);
    $('n-accuracy').textContent = images ? `${accuracy.toFixed(1)} %` : '–';
    drawCurve();
    buttons();
    if (images && Math.floor(accuracy / 10) > said) {
      said = Math.floor(accuracy / 10);
      $('progress').textContent = `${accuracy.toFixed(0)} percent of new images named after ${images} images.`;
    }
  },
  seen({ n, maps, image, side, figure, named, row, column }) {
    const canvas = $('l-image');
    canvas.width = canvas.height = side;
    canvas.getContext('2d').putImageData(new ImageData(image, side, side), 0, 0);
    ['alpha', 'beta', 'mask', 'plain', 'masked'].forEach((name, k) => {
      // Decays over their own range, but no finer than 0.02: what is the same must not look different.
      const most = Math.max(...maps[k]), least = k < 2 ? Math.min(...maps[k]) : 0;
      colours.draw($(`l-${name}`), maps[k], n, k > 2 ? 1 : 0, k === 2 ? 1 : most, k < 2 ? Math.min(least, most - 0.02) : 0);
      if (k < 2) $(`l-${name}-note`).textContent = `${least.toFixed(3)} to ${most.toFixed(3)}`;
    });
    $('l-name').textContent = `a ${figure}; named ${named}`;
    for (const mark of document.querySelectorAll('#learnt .marked')) {
      mark.style.setProperty('--x', `${100 * column}%`);
      mark.style.setProperty('--y', `${100 * row}%`);
    }
  },
  done() { pause(); done = true; buttons(); },
  failed({ words }) { pause(); $('trouble').textContent = words; },
};

function begin() {
  worker ??= Object.assign(new Worker('worker.js', { type: 'module' }), {
    onmessage: ({ data }) => news[data.type](data),
    onerror: (event) => news.failed({ words: event.message || 'the network could not be loaded' }),
  });
  pause();
  [curve, rates, seconds, said, done] = [[], [], 0, 0, false];
  for (const name of ['accuracy', 'images', 'rate', 'loss', 'time']) $(`n-${name}`).textContent = '–';
  send('start', { seed, ...look });
  buttons();
}
function go() {
  if (!worker) begin();
  running = true;
  since = performance.now();
  send('run');
  buttons();
}
function pause() {
  seconds = passed();
  running = false;
  if (worker) send('stop');
  buttons();
}
function lookAt(more) {
  Object.assign(look, more);
  if (colours) send('look', look);
}

$('start').addEventListener('click', () => (running ? pause() : go()));
$('restart').addEventListener('click', () => { ++seed; begin(); go(); });
$('next').addEventListener('click', () => lookAt({ index: look.index + 1 }));
$('l-image').addEventListener('pointerdown', (event) => {
  const box = event.currentTarget.getBoundingClientRect();
  lookAt({ row: (event.clientY - box.top) / box.height, column: (event.clientX - box.left) / box.width });
});
$('l-image').addEventListener('keydown', (event) => {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step) return;
  const move = (x, by) => Math.max(0, Math.min(0.999, x + by / 32));
  lookAt({ row: move(look.row, step[0]), column: move(look.column, step[1]) });
  event.preventDefault();
});
for (const canvas of document.querySelectorAll('#learnt canvas')) {
  const frame = document.createElement('div');
  frame.className = 'marked';
  canvas.replaceWith(frame);
  frame.append(canvas);
}
setInterval(showTime, 1000);
drawCurve();
// The untrained network's view, once the reader comes here.
new IntersectionObserver((entries, self) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  self.disconnect();
  if (!worker) begin();
}, { rootMargin: '200px' }).observe($('learnt'));
