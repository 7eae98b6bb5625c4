// The network that learns, in a thread of its own so that the page stays fluid. Messages in: start (with a seed), run, stop,
// look; out: ready, step, accuracy, seen, failed.

import { Colours, Ppma } from './ppma.js';

const between_tests = 52, between_looks = 13;  // steps
let ppma, running = false, step = 0, images, steps, side, looking;

// What is asked for in the meantime is done before the next step.
const channel = new MessageChannel();
let next;
channel.port1.onmessage = () => next();
const others = () => new Promise((resolve) => { next = resolve; channel.port2.postMessage(0); });

function test() {
  let right = 0;
  const all = 400, part = 100;  // in parts, to need less memory
  for (let first = 0; first < all; first += part) right += ppma.call('learn_accuracy', first, part) / (all / part);
  postMessage({ type: 'accuracy', images: step * images, accuracy: right });
}
function look() {
  const { index, row, column } = looking, n = ppma.call('learn_see', index, row, column);
  const maps = [0, 1, 2, 3, 4].map((which) => ppma.floats(ppma.call('learn_map', which), n * n).slice());
  postMessage({
    type: 'seen', n, maps, side, index, row, column,
    image: ppma.bytes(ppma.call('learn_image'), 4 * side * side).slice(),
    figure: ppma.text(ppma.call('figure', index % 10)), named: ppma.text(ppma.call('figure', ppma.call('learn_name', index))),
  });
}
async function run() {
  running = true;
  while (running && !ppma.call('learn_done')) {
    const began = performance.now(), loss = ppma.call('learn_step');
    ++step;
    postMessage({ type: 'step', images: step * images, loss, count: images, time: performance.now() - began });
    if (step % between_looks === 0) look();
    if (step % between_tests === 0) test();
    await others();
  }
  if (running) { test(); postMessage({ type: 'done' }); }
  running = false;
}
const orders = {
  async start({ seed, ...at }) {
    looking = at;
    running = false;
    ppma ??= await Ppma.load(fetch('ppma.wasm'));
    ppma.call('learn_start', seed);
    step = 0;
    [images, steps, side] = [0, 1, 2].map((which) => ppma.call('learn_size', which));
    postMessage({ type: 'ready', tables: new Colours(ppma).tables, total: images * steps, parameters: ppma.call('learn_size', 3) });
    test();
    look();
  },
  run,
  stop() { running = false; },
  look({ index, row, column }) { looking = { index, row, column }; look(); },
};
onmessage = async ({ data }) => {
  try {
    await orders[data.type](data);
  } catch (error) {
    postMessage({ type: 'failed', words: error.message });
  }
};
