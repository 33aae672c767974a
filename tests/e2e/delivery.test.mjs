// How models reach a visitor: downloads that are slow, broken or compressed, and what the browser keeps. Run by scripts/test.sh after
// the page and the command line have been built:
//
//   node --test tests/e2e/delivery.test.mjs

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { serve } from "../../scripts/serve.mjs";
import { DIST, ROOT, SHOTS, difference, done, drawn, eventually, failed, launch, native, problem, shipped, until, visit } from "./harness.mjs";

const TOLERANCE = 2e-3;
const DRAW = "&seed=7&n=2&view=draw&backend=cpu";
const STUDENT = `#m=fashion-boot${DRAW}`;

let browser, site, bundle, expected, odd;

before(async () => {
  bundle = readFileSync(shipped("fashion-boot"));
  expected = native("fashion-boot", { seed: 7, count: 2 });
  site = await serve(DIST);
  odd = await oddServer();
  browser = await launch({ webgpu: false });
});

after(async () => {
  for (const part of [browser, site, odd]) await part?.close();
});

/** A server whose answers each test sets: `odd.answer = (request, response) => ...`. `odd.asked` holds the requests since then. */
async function oddServer() {
  const state = { asked: [], reply: null, set answer(f) { this.asked = []; this.reply = f; } };
  const server = createServer((request, response) => {
    state.asked.push({ method: request.method, range: request.headers.range });
    for (const [name, value] of [["Origin", "*"], ["Headers", "Range"]]) response.setHeader(`Access-Control-Allow-${name}`, value);
    response.setHeader("Access-Control-Expose-Headers", "ETag, Content-Range, Content-Encoding");
    if (request.method === "OPTIONS") return response.end();
    state.reply(request, response);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  state.url = `http://127.0.0.1:${server.address().port}/model.safetensors`;
  state.close = () => new Promise((closed) => { server.close(closed); server.closeAllConnections(); });
  return state;
}

/** The link to the odd server's model. */
const oddly = () => `${site.url}#m=${encodeURIComponent(odd.url)}${DRAW}`;

async function right(page) {
  const worst = difference(await drawn(page), expected);
  assert.ok(worst <= TOLERANCE, `${worst} apart`);
}

/** Sends part of the bundle and breaks the connection off. */
function breakOff(response, upto, headers = {}) {
  response.writeHead(200, { "Content-Length": bundle.length, ...headers });
  response.write(bundle.subarray(0, upto), () => setTimeout(() => response.destroy(), 100));
}

test("a broken connection goes on where it broke", async () => {
  const half = bundle.length >> 1;
  const etag = { ETag: '"one"' };
  odd.answer = ({ headers }, response) => {
    if (!headers.range) return breakOff(response, half, etag);
    const [, from] = headers.range.match(/^bytes=(\d+)-$/);
    const rest = bundle.subarray(Number(from));
    response.writeHead(206, { ...etag, "Content-Range": `bytes ${from}-${bundle.length - 1}/${bundle.length}`, "Content-Length": rest.length }).end(rest);
  };
  await visit(browser, oddly(), async (page) => {
    await done(page);
    await right(page);
    assert.equal(await problem(page), "");
    const ranges = odd.asked.filter((r) => r.method === "GET").map((r) => r.range);
    assert.equal(ranges.length, 2);
    const from = Number(ranges[1].match(/^bytes=(\d+)-$/)[1]);
    assert.ok(from > 0 && from <= half, `${from} of ${half}`);
  });
});

test("a server that continues another version, or nothing, is asked from the start", async (t) => {
  for (const [name, status] of [["another version", 206], ["no ranges", 200], ["an error", 416]]) {
    await t.test(name, async () => {
      let asked = 0;
      odd.answer = ({ headers }, response) => {
        asked += 1;
        if (asked === 1) return breakOff(response, bundle.length >> 1, { ETag: '"one"' });
        const from = Number(headers.range?.match(/^bytes=(\d+)-$/)[1] ?? 0);
        if (!headers.range || status === 200) return response.writeHead(200, { ETag: '"two"', "Content-Length": bundle.length }).end(bundle);
        if (status === 416) return response.writeHead(416).end();
        // The bytes of the second version would spoil those of the first.
        const rest = Buffer.alloc(bundle.length - from, 0x2a);
        response.writeHead(206, { ETag: '"two"', "Content-Range": `bytes ${from}-${bundle.length - 1}/${bundle.length}` }).end(rest);
      };
      await visit(browser, oddly(), async (page) => {
        await done(page);
        await right(page);
      });
    });
  }
});

test("a download that stays broken ends in words, and can be tried again", async () => {
  odd.answer = (_, response) => breakOff(response, 100_000);
  await visit(browser, oddly(), async (page) => {
    await failed(page);
    assert.match(await problem(page), /broke off after 0\.\d MB.*and again after 0\.\d MB/);
    assert.equal(await page.evaluate(() => limbeck.pixels(0)), null);
    odd.answer = (_, response) => response.end(bundle);
    await page.click("#retry");
    await done(page);
    await right(page);
    assert.equal(await problem(page), "");
  });
});

test("a slow download shows its progress, and another choice ends it", async () => {
  let closed = false;
  odd.answer = (_, response) => {
    response.writeHead(200, { "Content-Length": bundle.length });
    let sent = 0;
    const drip = setInterval(() => { if (sent < 1e6) response.write(bundle.subarray(sent, sent += 1e5)); }, 100);
    response.on("close", () => { closed = true; clearInterval(drip); });
  };
  await visit(browser, oddly(), async (page) => {
    const seen = new Set();
    const end = Date.now() + 60_000;
    for (let value = 0; value < 700_000;) {
      const [words, max] = await page.evaluate(() => { const b = document.getElementById("loading-bar"); return [`${b.value} ${document.getElementById("loading-text").textContent}`, b.max]; });
      value = Number(words.split(" ")[0]);
      assert.ok(Date.now() < end, `after a minute: ${words}`);
      if (value === 0) continue;
      assert.equal(max, bundle.length);
      assert.match(words, new RegExp(`: ${(value / 1e6).toFixed(1)} of 3\\.9 MB$`));
      seen.add(value);
    }
    assert.ok(seen.size >= 4, `the bar stood at ${[...seen]}`);
    assert.ok(await page.isVisible("#loading"));
    await page.selectOption("#model", "fashion-boot");
    await done(page);
    await right(page);
    assert.equal(await problem(page), "");
    for (let k = 0; k < 100 && !closed; k++) await page.waitForTimeout(50);
    assert.ok(closed, "the browser goes on downloading");
    // Chosen again, it begins anew.
    odd.answer = (_, response) => response.end(bundle);
    await page.evaluate((url) => { location.hash = `#m=${encodeURIComponent(url)}&seed=7&n=2&view=draw&backend=cpu`; }, odd.url);
    await until(page, (url) => document.documentElement.dataset.state === "done" && document.getElementById("model").value === url, odd.url);
    await right(page);
  });
});

test("the bar of a compressed transfer is that of the file", async () => {
  const small = gzipSync(bundle);
  assert.ok(small.length < bundle.length, "else the lengths do not tell");
  let go;
  odd.answer = (_, response) => {
    response.writeHead(200, { "Content-Length": small.length, "Content-Encoding": "gzip" });
    response.write(small.subarray(0, small.length >> 1));
    go = () => response.end(small.subarray(small.length >> 1));
  };
  await visit(browser, oddly(), async (page) => {
    await until(page, () => document.getElementById("loading-bar").value > 100_000);
    assert.match(await page.textContent("#loading-text"), /Fetching .*: \d\.\d of 3\.9 MB/);
    const [value, max] = await page.evaluate(() => { const b = document.getElementById("loading-bar"); return [b.value, b.max]; });
    assert.equal(max, bundle.length);
    assert.ok(value < max);
    go();
    await done(page);
    await right(page);
  });
});

test("a file that is not the listed one is refused", async () => {
  const changed = (route) => {
    const index = JSON.parse(readFileSync(join(ROOT, "models/index.json"), "utf8"));
    index.models.find((m) => m.id === "fashion-boot").sha256 = "0".repeat(64);
    return route.fulfill({ json: index });
  };
  const list = "**/models/index.json";
  await visit(browser, `${site.url}${STUDENT}`, async (page) => {
    await failed(page);
    assert.match(await problem(page), /not the expected file: its SHA-256 begins [0-9a-f]{16}, expected 0000/);
    assert.equal(await page.evaluate(() => limbeck.pixels(0)), null);
    assert.deepEqual(await page.evaluate(async () => (await (await caches.open("limbeck-models-v1")).keys()).length), 0);
  }, { before: (page) => page.route(list, changed) });
});

test("a model of another address is kept, asked after, and replaced", async () => {
  let etag = '"one"';
  odd.answer = ({ method }, response) => response.writeHead(200, { ETag: etag }).end(method === "HEAD" ? undefined : bundle);
  const gets = () => odd.asked.filter((r) => r.method === "GET").length;
  await visit(browser, oddly(), async (page) => {
    const kept = () => until(page, () => document.querySelectorAll("#kept li").length === 1);
    await done(page);
    await kept();
    await page.reload();
    await done(page);
    await right(page);
    assert.equal(gets(), 1, "the kept file is used");
    etag = '"two"';
    await page.reload();
    await done(page);
    assert.equal(gets(), 2, "another version is fetched");
    await kept();
    // Unreachable: the kept one, and the page says so.
    odd.answer = (_, response) => response.destroy();
    await page.reload();
    await done(page);
    await right(page);
    assert.match(await page.textContent("#kept"), /cannot be reached: this is the copy/);
    assert.equal(await problem(page), "");
  });
});

test("what is kept is listed with sizes, and deleted", async () => {
  mkdirSync(SHOTS, { recursive: true });
  await visit(browser, `${site.url}#m=fashion-boot&m2=fashion-sid&seed=7&n=1&view=compare&backend=cpu`, async (page) => {
    await done(page);
    await until(page, () => document.querySelectorAll("#kept li").length === 2);
    await page.click("#tab-model");
    const rows = await page.$$eval("#kept li", (items) => items.map((i) => i.textContent));
    assert.match(rows.join("\n"), /Clothes in one step3\.9 MB, since /);
    assert.match(rows.join("\n"), /Clothes in one to four steps3\.7 MB, since /);
    assert.match(await page.textContent("#kept"), /2 models, 7\.6 MB.*This site uses [\d.]+ MB of the [\d.]+ GB/);
    for (const [device, width, height] of [["desk", 1280, 900], ["phone", 360, 740]]) {
      await page.setViewportSize({ width, height });
      const [content, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(content <= room, `${device}: ${content} pixels wide in ${room}`);
      await page.locator("#kept").screenshot({ path: join(SHOTS, `kept-${device}.png`) });
    }
    await page.click('#kept button[aria-label="Delete Clothes in one step from this device"]');
    await until(page, () => document.querySelectorAll("#kept li").length === 1);
    assert.equal(await page.evaluate(async () => (await (await caches.open("limbeck-models-v1")).keys()).length), 1);
    await page.click("#tab-compare");
    await until(page, () => location.hash.includes("view=compare"));
    await page.reload();
    await done(page);
    await until(page, () => document.querySelectorAll("#kept li").length === 2);
    await page.click("#tab-model");
    await page.click('#kept button[aria-label="Delete all models from this device"]');
    await until(page, () => document.querySelectorAll("#kept li").length === 0);
    assert.match(await page.textContent("#kept"), /No model is kept/);
    assert.equal(await page.evaluate(() => caches.has("limbeck-models-v1").then((has) => has && caches.open("limbeck-models-v1").then((c) => c.keys()).then((k) => k.length > 0))), false);
  });
});

test("a cache that is absent or full stops nothing, and is said once", async (t) => {
  /** Runs a script in the page's worker before anything else: it stands before the worker's own. */
  const inWorker = (script) => (page) => page.route(/\/worker-[0-9a-f]+\.js$/, async (route) => {
    const body = await (await route.fetch()).text();
    await route.fulfill({ contentType: "text/javascript", body: `${script}\n${body}` });
  });
  const cases = [
    ["full", "Cache.prototype.put = () => Promise.reject(new DOMException('no room', 'QuotaExceededError'));", /does not keep `.*` for the next visit: no room/],
    ["refused", "CacheStorage.prototype.open = () => Promise.reject(new DOMException('The operation is insecure.', 'SecurityError'));", /does not keep .*: The operation is insecure/],
    ["absent", "Object.defineProperty(self, 'caches', { value: undefined });", /does not keep .*: it has no storage/],
  ];
  for (const [name, script, words] of cases) {
    await t.test(name, () => visit(browser, `${site.url}${STUDENT}`, async (page) => {
      await done(page);
      await right(page);
      await until(page, () => document.getElementById("kept").textContent.includes("does not keep"));
      assert.match(await page.textContent("#kept"), words);
      assert.equal(await problem(page), "");
    }, { before: inWorker(script) }));
  }
});

test("a kept file that was damaged is fetched anew", async () => {
  await visit(browser, `${site.url}${STUDENT}`, async (page) => {
    await done(page);
    await until(page, () => document.querySelectorAll("#kept li").length === 1);
    const spoil = async (bytes) => {
      const cache = await caches.open("limbeck-models-v1");
      const [key] = await cache.keys();
      if (bytes) await cache.put(key, new Response(new Uint8Array(bytes)));
      return (await (await cache.match(key)).arrayBuffer()).byteLength;
    };
    assert.equal(await page.evaluate(spoil, 1000), 1000);
    await page.reload();
    await done(page);
    await right(page);
    assert.equal(await problem(page), "");
    await eventually(page, async (length) => {
      const cache = await caches.open("limbeck-models-v1");
      const [key] = await cache.keys();
      return key !== undefined && (await (await cache.match(key)).arrayBuffer()).byteLength === length;
    }, bundle.length);
  });
});
