// The page in headless Chromium:  page.mjs FOLDER BROWSER CHECK     CHECK is one of those at the end
//                                 page.mjs FOLDER BROWSER speed          how long pictures and frames take
//                                 page.mjs FOLDER BROWSER pictures TO    writes pictures of it, to look at

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { Page, serve } from './chromium.mjs';

const [folder, browser, wanted, to] = process.argv.slice(2);
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const desk = {}, phone = { width: 390, height: 844, touch: true, scale: 2 };

// In the page: its own numbers, and what its pixels show.
const live = (expression) => `(async () => { const { map, ppma, state } = await import('./play.js'); return ${expression}; })()`;
const text = (id) => `document.getElementById('${id}').textContent`;
const colours = (id) => `(() => { const c = document.getElementById('${id}'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  const seen = new Set(); for (let k = 0; k < d.length; k += 4) seen.add(d[k] << 16 | d[k + 1] << 8 | d[k + 2]); return seen.size; })()`;
const middle = (id, x = 0.5, y = 0.5) => `(() => { document.getElementById('${id}').scrollIntoView({ block: 'center', behavior: 'instant' });
  const b = document.getElementById('${id}').getBoundingClientRect(); return [b.left + ${x} * b.width, b.top + ${y} * b.height]; })()`;

async function opened(page, url, how) {
  await page.go(url, how);
  await page.until('document.documentElement.dataset.drawn', 15, 'the first picture');
  assert.equal(await page.value(text('trouble')), '');
}
const choose = (name, value) => `document.querySelector('input[name="${name}"][value="${value}"]').click()`;
const settled = (page) => page.value('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(true)))))');

const checks = {
  async first(page, url) {
    const times = [];
    for (const how of [desk, { ...desk, dark: true }, phone, { ...phone, dark: true }]) {
      await opened(page, url, how);
      times.push(Number(await page.value('document.documentElement.dataset.drawn')));
      assert.ok(await page.value(colours('picture')) > 100, 'the picture is drawn');
      for (const name of ['mask', 'plain', 'masked', 'alpha', 'beta']) assert.ok(await page.value(colours(`map-${name}`)) > 5, `${name} is drawn`);
      const [wide, window] = await page.value('[document.documentElement.scrollWidth, innerWidth]');
      assert.ok(wide <= window && window === (how.width ?? 1280), `${wide} pixels wide in ${window}`);
      // Text against its ground, as WCAG 2 has it.
      const contrast = await page.value(`(() => { const light = (c) => c.match(/\\d+/g).slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0); const ground = light(getComputedStyle(document.documentElement).backgroundColor);
        return Math.min(...['h1', '.lead', '#seen', '.small', 'figcaption'].map((s) => light(getComputedStyle(document.querySelector(s)).color))
          .map((l) => (Math.max(l, ground) + 0.05) / (Math.min(l, ground) + 0.05))); })()`);
      assert.ok(contrast >= 4.5, `contrast ${contrast}`);
    }
    console.log(`drawn after ${times.join(', ')} ms`);
  },

  async hands(page, url) {
    await opened(page, url, desk);
    const query = () => page.value(live('[...state.query]')), sum = (which) => page.value(live(`map(${which}).reduce((a, b) => a + b, 0)`));
    const before = await query(), words = await page.value(text('seen'));
    await page.value("document.getElementById('picture').focus()");
    await page.key('ArrowLeft');
    await page.key('ArrowDown');
    await settled(page);
    assert.deepEqual(await query(), [before[0] + 1, before[1] - 1]);
    assert.notEqual(await page.value(text('seen')), words);
    await page.key('ArrowUp', true);
    await settled(page);
    assert.match(await page.value(text('seen')), /from the key, .*V2H .*, H2V /);

    const open = await sum(0);
    await page.key('-');
    assert.ok(await sum(0) < open, 'minus closes');
    await page.key('+');
    await page.key('Escape');
    const upwards = await sum(1);
    await page.value("document.getElementById('map-alpha').focus()");
    await page.key('-');
    assert.ok(await sum(0) < open && await sum(1) === upwards, 'on its map: alpha alone');
    await page.value("document.getElementById('reset').click()");
    assert.equal(await sum(0), open);

    // The pointer takes the query along from its ring, and by a click.
    let [x, y] = await page.value(middle('picture'));
    const at = await query(), cell = await page.value("document.getElementById('picture').clientWidth") / 28, ring = [x + (at[1] - 13.5) * cell, y + (at[0] - 13.5) * cell];
    await page.mouse('mousePressed', ...ring, true);
    await page.mouse('mouseMoved', ring[0] - 3 * cell, ring[1] + 2 * cell, true);
    await page.mouse('mouseReleased', ring[0] - 3 * cell, ring[1] + 2 * cell);
    await settled(page);
    assert.deepEqual(await query(), [at[0] + 2, at[1] - 3]);
    await page.mouse('mousePressed', x + 0.5 * cell, y + 0.5 * cell, true);
    await page.mouse('mouseReleased', x + 0.5 * cell, y + 0.5 * cell);
    await settled(page);
    assert.deepEqual(await query(), [14, 14]);

    // Every mask: its picture, and shares that sum to 1.
    const seen = new Set();
    for (let view = 0; view < 8; ++view) {
      await page.value(choose('mask', view));
      await settled(page);
      seen.add(await page.value(live("map(4).join()")));
      for (const which of [3, 4]) assert.ok(Math.abs(await sum(which) - 1) < 1e-3, `shares of mask ${view}`);
      await page.mouse('mouseMoved', x - 3.5 * cell, y - 6.5 * cell);
      await settled(page);
      const paths = await page.value(live("ppma.call('path', state.view, 0, ...state.key, ...state.query)"));
      assert.equal(paths > 0, view !== 0, `path of mask ${view}`);
    }
    assert.equal(seen.size, 8, 'eight masks, all different');

    // A brush on the picture closes both kinds of edges, on a map its own; reset undoes it.
    await page.value(choose('mask', 3));
    const decays = [await sum(0), await sum(1)];
    await page.value(choose('tool', 'close'));
    for (const [type, pressed] of [['mousePressed', true], ['mouseMoved', true], ['mouseReleased', false]]) await page.mouse(type, x + (type === 'mousePressed' ? 0 : 4 * cell), y, pressed);
    await settled(page);
    const painted = [await sum(0), await sum(1)];
    assert.ok(painted[0] < decays[0] - 1 && painted[1] < decays[1] - 1, `${decays} to ${painted}`);
    [x, y] = await page.value(middle('map-alpha'));
    await page.mouse('mousePressed', x, y, true);
    await page.mouse('mouseReleased', x, y);
    await settled(page);
    assert.ok(await sum(0) < painted[0] && await sum(1) === painted[1], 'only alpha');
    await page.value("document.getElementById('reset').click()");
    assert.deepEqual([await sum(0), await sum(1)], decays);

    for (const n of [14, 42, 56]) {
      await page.value(choose('grid', n));
      await settled(page);
      assert.equal(await page.value(live('map(2).length')), n * n);
      assert.equal(await page.value("document.getElementById('map-mask').width"), n);
    }
    for (let scene = 0; scene < 5; ++scene) {
      await page.value(`document.getElementById('scene').value = '${scene}'; document.getElementById('scene').dispatchEvent(new Event('change'))`);
      await settled(page);
      assert.ok(await page.value(colours('picture')) > 20, `scene ${scene}`);
    }
    // An image that is dropped: half black, half white, so one column of edges is dear.
    await page.value(`(async () => { const c = new OffscreenCanvas(300, 200); const k = c.getContext('2d'); k.fillStyle = '#fff'; k.fillRect(0, 0, 300, 200); k.fillStyle = '#000';
      k.fillRect(0, 0, 150, 200); const data = new DataTransfer(); data.items.add(new File([await c.convertToBlob()], 'half.png', { type: 'image/png' }));
      dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true })); })()`);
    await page.until("document.getElementById('scene').value === 'own'", 5);
    await settled(page);
    const least = await page.value(live('[...map(0)].indexOf(Math.min(...map(0))) % 56'));
    assert.ok(Math.abs(least - 28) <= 1, `the edge is at column ${least} of 56`);
    await page.value(`(() => { const data = new DataTransfer(); data.items.add(new File(['no image'], 'no.png')); dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true })); })()`);
    await page.until(`${text('trouble')}.includes('no.png')`, 5, 'an error in words');
  },

  async labels(page, url) {
    await opened(page, url, desk);
    const bare = await page.value(`[...document.querySelectorAll('canvas, svg, input, select, button')].filter((e) => !(e.ariaHidden === 'true' || e.getAttribute('aria-label')
      || e.labels?.length || e.textContent.trim())).map((e) => e.outerHTML)`);
    assert.deepEqual(bare, []);
    const reached = new Set();
    for (let k = 0; k < 30; ++k) {
      await page.key('Tab');
      const { name, outline } = await page.value(`(() => { const e = document.activeElement, shown = e.matches('input[type=radio], input[type=file]') ? (e.nextElementSibling ?? e.parentElement) : e;
        return { name: e.id || e.name || e.tagName, outline: e === document.body ? 'none' : getComputedStyle(shown).outlineStyle }; })()`);
      if (name === 'BODY') break;
      assert.notEqual(outline, 'none', `focus on ${name} is not seen`);
      reached.add(name);
    }
    for (const name of ['mask', 'picture', 'map-alpha', 'map-beta', 'tool', 'brush', 'reset', 'grid', 'contrast', 'scene', 'file', 'dim', 'start', 'l-image']) assert.ok(reached.has(name), `${name} is not reached by Tab`);
    await page.until(`${text('said')}.length > 40`, 5, 'the live text');
  },

  async learn(page, url) {
    await opened(page, url, desk);
    await page.value("document.getElementById('learnt').scrollIntoView()");
    await page.until("!document.getElementById('next').disabled", 20, 'the untrained network');
    const number = (id) => page.value(`Number(${text(id)}.replace(/[^0-9.]/g, ''))`), click = (id) => page.value(`document.getElementById('${id}').click()`);
    await page.until(`${colours('l-alpha')} > 1`, 10);
    const first = await page.value("document.getElementById('l-mask').toDataURL()");
    await click('start');
    // A tenth is guessing.
    await page.until(`Number.parseFloat(${text('n-accuracy')}) >= 25`, 240, 'a quarter of new images named');
    assert.notEqual(await page.value("document.getElementById('l-mask').toDataURL()"), first, 'the mask it learns changes');
    assert.ok(await number('n-loss') < 2.2);
    console.log(`${await page.value(text('n-accuracy'))} after ${await page.value(text('n-images'))} images, ${await page.value(text('n-rate'))} a second`);
    await click('start');
    await pause(1);
    const stopped = await number('n-images');
    await pause(1);
    assert.equal(await number('n-images'), stopped);
    await click('next');
    await page.until(`${text('l-name')}.length > 5`, 5);
    await click('start');
    await page.until(`Number(${text('n-images')}.replace(',', '')) > ${stopped}`, 20, 'it goes on');
    await click('restart');
    await page.until(`Number(${text('n-images')}.replace(',', '')) < ${stopped} && Number(${text('n-images')}.replace(',', '')) > 0`, 20, 'it starts anew');
  },

  // How fast it is here; no test.
  async speed(page, url) {
    await checks.first(page, url);
    await opened(page, url, desk);
    for (const n of [14, 28, 42, 56]) {
      await page.value(choose('grid', n));
      await settled(page);
      // Sixty frames, the query somewhere else in each.
      const times = await page.value(live(`await new Promise((done) => { const picture = document.getElementById('picture'), times = []; let last = performance.now();
        const step = (k) => { const now = performance.now(); times.push(now - last); last = now; if (k === 60) return done(times.slice(1));
          picture.dispatchEvent(new KeyboardEvent('keydown', { key: k % 16 < 8 ? 'ArrowRight' : 'ArrowLeft', cancelable: true })); requestAnimationFrame(() => step(k + 1)); };
        requestAnimationFrame(() => step(0)); })`));
      const median = times.sort((a, b) => a - b)[times.length >> 1];
      console.log(`median of ${times.length} frames ${median.toFixed(1)} ms; ${await page.value(text('time'))}`);
    }
  },

  async pictures(page, url) {
    // The README's: the upper half, with a path.
    await opened(page, url, desk);
    await page.value(`document.getElementById('picture').focus()`);
    for (let k = 0; k < 8; ++k) await page.key(k < 5 ? 'ArrowUp' : 'ArrowRight', true);
    await page.value('document.activeElement.blur()');
    await pause(1);
    writeFileSync(`${to}/web.png`, await page.screenshot({ x: 40, y: 205, width: 1200, height: 757 }));
    for (const [name, how] of Object.entries({ 'desk-light': desk, 'desk-dark': { ...desk, dark: true }, 'phone-light': phone, 'phone-dark': { ...phone, dark: true } })) {
      await opened(page, url, how);
      await page.value("document.getElementById('learnt').scrollIntoView()");
      await page.until("!document.getElementById('next').disabled", 20);
      await page.value('scrollTo(0, 0)');
      await pause(1);
      writeFileSync(`${to}/${name}.png`, await page.screenshot());
    }
  },
};

const { url, stop } = await serve(folder);
let page, failure;
try {
  page = await Page.open(browser);
  await checks[wanted](page, url);
  assert.deepEqual(page.errors, [], 'errors of the page');
} catch (error) {
  failure = error;
}
await page?.close();
stop();
if (failure) {
  console.error(failure.stack);
  process.exit(1);
}
