// Runs' reports in headless Chromium:  report.mjs BROWSER FILE...

import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { Page } from './chromium.mjs';

const [browser, ...files] = process.argv.slice(2);
const page = await Page.open(browser);
try {
  const asked = [];
  await page.send('Network.enable');
  const hear = page.hear.bind(page);
  page.hear = (message) => {
    if (message.method === 'Network.requestWillBeSent') asked.push(message.params.request.url);
    hear(message);
  };
  for (const file of files) for (const how of [{}, { dark: true }, { width: 400, height: 860, touch: true }, { width: 400, height: 860, touch: true, dark: true }]) {
    const at = file + JSON.stringify(how);
    await page.go(`file://${resolve(file)}`, how);
    await page.until('document.readyState === "complete" && document.querySelectorAll("svg").length >= 2', 15, 'the page');
    const [wide, window] = await page.value('[document.documentElement.scrollWidth, innerWidth]');
    assert.ok(wide <= window && window === (how.width ?? 1280), `${at}: ${wide} pixels wide in ${window}`);
    assert.ok(await page.value('[...document.images].length > 0 && [...document.images].every((i) => i.naturalWidth > 0)'), `${at}: all images are there`);
    // Text against the ground that it stands on, as WCAG 2 has it.
    const [contrast, where, ground] = await page.value(`(() => { const light = (c) => c.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
        .map((v) => v <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
      const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return light(c); } };
      let worst = [99, ''];
      for (const s of ['h1', 'header p', 'h2', '.figures b', '.figures span', 'h3', 'thead th', 'td small', 'th[scope=row]', '.run td', 'figcaption', '.wrongly b', '.views span', '.legend', '.right', 'svg .tick', 'svg .name', 'text.s0', 'text.s1']) {
        const e = document.querySelector(s); if (!e || e.matches('rect')) continue;
        const style = getComputedStyle(e), a = light(e.matches('text') ? style.fill : style.color), b = behind(e);
        const c = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); if (c < worst[0]) worst = [c, s];
      }
      return [...worst, light(getComputedStyle(document.body).backgroundColor)]; })()`);
    assert.ok(contrast >= 4.5, `${at}: contrast ${contrast} of ${where}`);
    assert.ok(how.dark ? ground < 0.05 : ground > 0.8, `${at}: its ground is ${ground}`);
    const small = await page.value('Math.min(...[...document.querySelectorAll("svg .tick")].map((t) => t.getBoundingClientRect().height))');
    assert.ok(small >= 8, `${at}: text ${small} pixels high in a drawing`);
    // A drawing's text stays inside of it.
    const out = await page.value(`[...document.querySelectorAll('svg')].flatMap((s) => { const b = s.getBoundingClientRect();
      return [...s.querySelectorAll('text')].filter((t) => { const r = t.getBoundingClientRect(); return r.left < b.left - 1 || r.right > b.right + 1 || r.top < b.top - 1 || r.bottom > b.bottom + 1; })
        .map((t) => t.textContent); })`);
    assert.deepEqual(out, [], at);
    // The decays' slider, by its keys: the last is shown first, then the one before.
    const seen = () => page.value(`[document.querySelector('#decay-epoch').textContent, [...document.querySelectorAll('img[data-epoch]')]
      .filter((i) => i.getBoundingClientRect().height > 0).map((i) => i.dataset.epoch).join(), document.querySelector('#decay-slider').offsetWidth > 60]`);
    assert.deepEqual(await seen(), ['after epoch 3', '3', true], at);
    await page.value('document.querySelector("#decay-slider").focus()');
    for (const type of ['keyDown', 'keyUp']) await page.send('Input.dispatchKeyEvent', { type, key: 'ArrowLeft', code: 'ArrowLeft', windowsVirtualKeyCode: 37 });
    await page.until('document.querySelector("#decay-epoch").textContent === "after epoch 1"', 5, 'the slider');
    assert.deepEqual(await seen(), ['after epoch 1', '1', true], at);
  }
  assert.deepEqual(page.errors, []);
  assert.ok(asked.length >= 4 * files.length && asked.every((url) => /^(file|data):/.test(url)), `asked for ${asked}`);
  console.log('ok');
} finally {
  await page.close();
}
