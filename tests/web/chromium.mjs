// Headless Chromium, driven over a pipe by its DevTools protocol; nothing to install but the browser. And a server for a folder.

import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';

const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm' };

// Serves a folder's files on 127.0.0.1; says on which port, and what was asked for.
export async function serve(folder) {
  const asked = [];
  const server = createServer(({ url }, answer) => {
    const path = url === '/' ? '/index.html' : url.split('?')[0];
    asked.push(path);
    try {
      const bytes = readFileSync(join(folder, path));
      answer.writeHead(200, { 'content-type': types[extname(path)] ?? 'application/octet-stream' }).end(bytes);
    } catch {
      answer.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, asked, stop: () => server.close() };
}

export class Page {
  // One page of a browser of its own.
  static async open(program) {
    const page = new Page();
    page.profile = mkdtempSync(join(tmpdir(), 'ppma-web-'));
    page.browser = spawn(program, ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--mute-audio', '--no-first-run',
      '--disable-dev-shm-usage', `--user-data-dir=${page.profile}`, '--remote-debugging-pipe', 'about:blank'],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    page.errors = [];
    page.waiting = new Map();
    page.number = 0;
    let rest = '';
    page.browser.stdio[4].setEncoding('utf8').on('data', (text) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop();
      messages.forEach((message) => page.hear(JSON.parse(message)));
    });
    const { targetInfos } = await page.send('Target.getTargets');
    const { targetId } = targetInfos.find((target) => target.type === 'page');
    page.session = (await page.send('Target.attachToTarget', { targetId, flatten: true })).sessionId;
    for (const domain of ['Page', 'Runtime', 'Log']) await page.send(`${domain}.enable`);
    return page;
  }
  send(method, params = {}) {
    const id = ++this.number;
    this.browser.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject, method }));
  }
  hear({ id, result, error, method, params }) {
    if (id) {
      const { resolve, reject, method: asked } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) reject(new Error(`${asked}: ${error.message}`));
      else resolve(result);
    }
    if (method === 'Runtime.exceptionThrown') this.errors.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === 'Log.entryAdded' && params.entry.level === 'error') this.errors.push(`${params.entry.text} ${params.entry.url ?? ''}`);
    if (method === 'Runtime.consoleAPICalled' && params.type === 'error') this.errors.push(params.args.map((a) => a.value ?? a.description).join(' '));
  }
  async go(url, { width = 1280, height = 900, dark = false, touch = false, scale = 1 } = {}) {
    await this.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: scale, mobile: touch });
    await this.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }] });
    await this.send('Page.navigate', { url });
  }
  // The value of an expression in the page; promises are waited for.
  async value(expression) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }
  async until(expression, seconds, what = expression) {
    for (const end = Date.now() + 1000 * seconds; Date.now() < end;) {
      if (await this.value(expression).catch(() => false)) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`not within ${seconds} s: ${what}. Errors of the page: ${this.errors.join('; ') || 'none'}`);
  }
  async key(key, shift = false) {
    const event = { key, code: key, modifiers: shift ? 8 : 0, windowsVirtualKeyCode: { ArrowLeft: 37, ArrowUp: 38, ArrowRight: 39, ArrowDown: 40, Tab: 9, ' ': 32 }[key] ?? 0,
      ...(key.length === 1 ? { text: key } : {}) };
    await this.send('Input.dispatchKeyEvent', { type: 'keyDown', ...event });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...event });
  }
  mouse(type, x, y, pressed = false) {
    return this.send('Input.dispatchMouseEvent', { type, x, y, button: type === 'mouseMoved' && !pressed ? 'none' : 'left', buttons: pressed ? 1 : 0, clickCount: 1 });
  }
  // Of all of the page, or of a part of it.
  async screenshot(part) {
    const clip = { x: 0, y: 0, scale: 1, ...(part ?? await this.value('({ width: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight })')) };
    return Buffer.from((await this.send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true, clip })).data, 'base64');
  }
  async close() {
    const ended = new Promise((resolve) => this.browser.once('exit', resolve));
    await Promise.race([this.send('Browser.close').catch(() => {}), new Promise((resolve) => setTimeout(resolve, 3000))]);
    this.browser.kill();
    await ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
