// How page and models reach a visitor: downloads that are slow, broken or compressed, what the browser keeps, the page without a
// network, a new deployment, and a GPU that is lost. Run by scripts/test.sh after the page and the command line have been built:
//
//   node --test tests/e2e/delivery.test.mjs

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { serve } from "../../scripts/serve.mjs";
import { DIST, LIMBECK, ROOT, SHOTS, difference, done, drawn, eventually, failed, launch, native, problem, shipped, until, visit } from "./harness.mjs";

const TOLERANCE = 2e-3;
const DRAW = "&seed=7&n=2&view=draw&backend=cpu";
const STUDENT = `#m=fashion-boot${DRAW}`;

let browser, site, folder, bundle, expected, odd;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "limbeck-delivery-"));
  bundle = readFileSync(shipped("fashion-boot"));
  expected = native("fashion-boot", { seed: 7, count: 2 });
  site = await serve(DIST);
  odd = await oddServer();
  browser = await launch({ webgpu: true });
});

after(async () => {
  for (const part of [browser, site, odd]) await part?.close();
  if (folder) rmSync(folder, { recursive: true });
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

/** A copy of the page's folder that another build can be put over. */
function copySite(name) {
  const dir = join(folder, name);
  cpSync(DIST, dir, { recursive: true });
  return dir;
}

/** What the page loaded, and whether a service worker keeps it. */
const build = (page) => page.evaluate(() => document.getElementById("boot").getAttribute("src"));
const ready = (page) => page.evaluate(async () => { await navigator.serviceWorker.ready; });

test("without a network a second visit draws the same pixels, from a sub-path too", async () => {
  mkdirSync(join(folder, "host/some/path"), { recursive: true });
  cpSync(DIST, join(folder, "host/some/path"), { recursive: true });
  let host = await serve(join(folder, "host"));
  const address = `${host.url}some/path/${STUDENT}`;
  try {
    await visit(browser, address, async (page, context) => {
      await done(page);
      const first = await drawn(page);
      assert.ok(difference(first, expected) <= TOLERANCE);
      await ready(page);
      await until(page, () => document.querySelectorAll("#kept li").length === 1);
      const entries = await page.evaluate(async () => {
        const all = [];
        for (const name of await caches.keys()) for (const request of await (await caches.open(name)).keys()) all.push([name, request.url]);
        return all;
      });
      assert.equal(entries.filter(([, url]) => url.endsWith(".safetensors")).length, 0, "a model is kept by its hash, not by the service worker");
      assert.equal(entries.filter(([name]) => name === "limbeck-models-v1").length, 1);
      await context.setOffline(true);
      await host.close();
      host = null;
      await page.close();
      const again = await context.newPage();
      await again.goto(address);
      await done(again);
      assert.equal(difference(await drawn(again), first), 0);
      assert.equal(await problem(again), "");
      assert.match(await again.textContent("#kept"), /opens without a network/);
    }, { serviceWorkers: "allow" });
  } finally {
    await host?.close();
  }
});

test("a published site works from a sub-path, and its previews lead into it", async () => {
  const out = join(folder, "published/a/site");
  execFileSync(LIMBECK, ["publish", "--models", shipped("fashion-boot"), "--page", DIST, "--out", out, "--base-url", "https://example.org/a/site"], { stdio: ["ignore", "ignore", "pipe"] });
  const host = await serve(join(folder, "published"));
  try {
    await visit(browser, `${host.url}a/site/m/fashion-boot.html`, async (page) => {
      await page.waitForURL(/\/a\/site\/#/);
      await done(page);
      const draw = await drawn(page);
      const worst = difference(draw, native("fashion-boot", { seed: 0, count: draw.shape[0] }));
      assert.ok(worst <= TOLERANCE, `${worst} apart`);
      assert.equal(await problem(page), "");
      assert.deepEqual(await page.$$eval("#model option", (options) => options.map((o) => o.textContent)), ["Clothes in one step"]);
    });
    // What other sites read: they do not follow the way on.
    const text = await (await fetch(`${host.url}a/site/m/fashion-boot.html`)).text();
    assert.match(text, /property="og:image" content="https:\/\/example\.org\/a\/site\/m\/fashion-boot\.png"/);
    const picture = Buffer.from(await (await fetch(`${host.url}a/site/m/fashion-boot.png`)).arrayBuffer());
    assert.deepEqual([picture.toString("latin1", 1, 4), picture.readUInt32BE(16), picture.readUInt32BE(20)], ["PNG", 1200, 630]);
  } finally {
    await host.close();
  }
});

/** Turns a copy of the page into another build of it. */
function rebuild(dir, mark) {
  const files = readdirSync(dir);
  for (const name of ["boot", "worker"]) renameSync(join(dir, files.find((f) => f.startsWith(`${name}-`))), join(dir, `${name}.js`));
  appendFileSync(join(dir, "boot.js"), `\ndocument.documentElement.dataset.mark = "${mark}";\n`);
  const index = join(dir, "index.html");
  writeFileSync(index, readFileSync(index, "utf8").replace(/src="\.\/boot-[0-9a-f]+\.js" data-worker="[^"]*"/, 'src="./boot.js"'));
  execFileSync("node", ["scripts/seal.mjs", dir], { cwd: ROOT, stdio: ["ignore", "ignore", "inherit"] });
}

test("a new deployment replaces the old one whole", async () => {
  const dir = copySite("deployed");
  let host = await serve(dir);
  /** In the page: the worker of this build is in charge, and has tidied up. */
  const kept = async (version) => {
    const registration = await navigator.serviceWorker.getRegistration();
    const builds = (await caches.keys()).filter((key) => key.startsWith("limbeck-page-"));
    return registration.active?.state === "activated" && !registration.installing && !registration.waiting && builds.at(-1).endsWith(version);
  };
  const mark = (page) => page.evaluate(() => document.documentElement.dataset.mark ?? "");
  try {
    await visit(browser, `${host.url}${STUDENT}`, async (page, context) => {
      await done(page);
      await ready(page);
      const old = await build(page);
      for (const name of ["second", "third", "fourth"]) {
        rebuild(dir, name);
        // At once, not at the visit after the next.
        await page.reload();
        await done(page);
        assert.equal(await mark(page), name);
        await right(page);
        // Until the new files are kept.
        const [, version] = readFileSync(join(dir, "sw.js"), "utf8").match(/VERSION = "(\w+)"/);
        await eventually(page, kept, version);
      }
      assert.notEqual(await build(page), old);
      const builds = await page.evaluate(async () => (await caches.keys()).filter((key) => key.startsWith("limbeck-page-")));
      assert.equal(builds.length, 2, "this build and the one before it");
      await context.setOffline(true);
      await host.close();
      host = null;
      await page.reload();
      await done(page);
      assert.equal(await mark(page), "fourth");
      await right(page);
    }, { serviceWorkers: "allow" });
  } finally {
    await host?.close();
  }
});

/** Prepares the worker of a page that draws on the CPU with a script, and chooses an engine. */
async function onGpu(page, choice, prepare) {
  await done(page);
  const [worker] = page.workers();
  await worker.evaluate(`(() => { ${prepare}
    const request = GPUAdapter.prototype.requestDevice;
    self.devices = [];
    GPUAdapter.prototype.requestDevice = async function (...a) { const d = await request.apply(this, a); self.devices.push(d); return d; };
  })()`);
  await page.locator("details.more", { has: page.locator("#backend") }).evaluate((d) => { d.open = true; });
  await page.selectOption("#backend", choice);
  await until(page, () => limbeck.engine()?.backend === "webgpu");
  return worker;
}

const lose = (worker) => worker.evaluate("(() => { const n = self.devices.length; self.devices.forEach((d) => d.destroy()); return n; })()");

test("a device lost in the middle: the CPU goes on, and the page says so", async () => {
  // The automatic choice leaves software adapters alone, so this one passes for a card.
  const disguise = `for (const [key, value] of [["description", "A card"], ["isFallbackAdapter", false]])
    Object.defineProperty(GPUAdapterInfo.prototype, key, { get: () => value });`;
  await visit(browser, `${site.url}#m=fashion-boot&seed=1&n=1&view=draw&backend=cpu`, async (page) => {
    const worker = await onGpu(page, "auto", disguise);
    await page.evaluate(() => { location.hash = "#m=fashion-teacher&seed=7&n=2&view=draw"; });
    await until(page, () => limbeck.draw(0)?.seed === "7" && limbeck.draw(0).calls > 1 && !limbeck.draw(0).done);
    assert.ok(await lose(worker) >= 1);
    await until(page, () => limbeck.engine()?.backend === "cpu");
    assert.match((await page.evaluate(() => limbeck.engine())).note, /WebGPU failed \(.*\), so the CPU goes on/);
    await done(page);
    const draw = await drawn(page);
    const worst = difference(draw, native("fashion-teacher", { seed: 7, count: 2, steps: draw.steps, guidance: draw.guidance }));
    assert.ok(worst <= TOLERANCE, `${worst} apart`);
    assert.equal(await problem(page), "");
  });
});

test("a device lost where WebGPU was asked for: words, and the next draw opens another one", async () => {
  await visit(browser, `${site.url}#m=fashion-boot&seed=1&n=1&view=draw&backend=cpu`, async (page) => {
    const worker = await onGpu(page, "webgpu", "");
    await done(page);
    await lose(worker);
    await page.fill("#seed", "7");
    await page.press("#seed", "Tab");
    await until(page, () => limbeck.draw(0)?.seed === "7" && limbeck.draw(0).done);
    assert.equal((await page.evaluate(() => limbeck.engine())).backend, "webgpu");
    assert.equal(await worker.evaluate("self.devices.length"), 2);
    const worst = difference(await drawn(page), native("fashion-boot", { seed: 7, count: 1 }));
    assert.ok(worst <= TOLERANCE, `${worst} apart`);
  });
});

test("the list of models names the files that are there", () => {
  const { models } = JSON.parse(readFileSync(join(DIST, "models/index.json"), "utf8"));
  for (const { file, bytes, sha256 } of models) {
    const found = readFileSync(join(DIST, "models", file));
    assert.deepEqual([found.length, createHash("sha256").update(found).digest("hex")], [bytes, sha256], file);
  }
});
