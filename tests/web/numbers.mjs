// The numbers of numbers.cpp, from ppma.wasm:  numbers.mjs FOLDER
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const folder = process.argv[2];
const { Ppma } = await import(pathToFileURL(`${folder}/ppma.js`));
const ppma = await Ppma.load(new Uint8Array(readFileSync(`${folder}/ppma.wasm`)));
const say = (name, value) => console.log(`${name} ${value}`);

for (const n of [14, 28, 56]) {
  ppma.call('scene', 0, 504);
  ppma.call('tokens', n, 30);
  const row = Math.floor(n * 2 / 3), column = Math.floor(n * 7 / 10);
  for (let view = 0; view < 8; ++view) {
    ppma.call('look', view, row, column);
    for (let which = 0; which < 5; ++which) {
      const weighed = ppma.floats(ppma.call('map', which), n * n).reduce((sum, v, t) => sum + v * (1 + t % 7 + Math.floor(t / n) % 5), 0);
      say(`look ${n} ${view} ${which}`, weighed);
    }
    say(`path ${n} ${view}`, ppma.call('path', view, 0, 2, 3, row, column));
  }
}
try {
  ppma.call('look', 99, 0, 0);
} catch (error) {
  say('error', error.message.length);
}
ppma.call('learn_start', 1);
for (let step = 0; step < 3; ++step) say(`loss ${step}`, ppma.call('learn_step'));
const n = ppma.call('learn_see', 3, 0.5, 0.5);
for (let which = 0; which < 5; ++which) say(`learnt ${which}`, ppma.floats(ppma.call('learn_map', which), n * n).reduce((a, b) => a + b, 0));
