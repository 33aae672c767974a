// The page in Firefox: on WebGPU (on lavapipe, Mesa's Vulkan on the CPU) and without, the pixels are those of the native interpreter.
// Run by scripts/test.sh after the page and the command line have been built:
//
//   node --test tests/e2e/firefox.test.mjs

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { serve } from "../../scripts/serve.mjs";
import { DIST, SHOTS, difference, done, drawn, eventually, native, png, problem, until, visitFirefox } from "./harness.mjs";

const TOLERANCE = 2e-3;
const STUDENT = "#m=fashion-boot&seed=7&n=2&view=draw";

let site;

before(async () => { site = await serve(DIST); });
after(() => site?.close());

/** The pixels of every canvas that is shown. Not as PNGs: Firefox adds a number of the profile's own to each (chunk `deBG`). */
const canvases = (page) =>
  page.evaluate(() => [...document.querySelectorAll("canvas")].filter((c) => c.checkVisibility() && c.width > 1).map((c) => {
    const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
    return [c.width, c.height, data.reduce((sum, v) => (Math.imul(sum, 31) + v) | 0, 0)];
  }));

/** The file that Save would hand to the visitor. */
async function saved(page) {
  await page.evaluate(() => {
    const make = URL.createObjectURL;
    URL.createObjectURL = (blob) => {
      window.saved = blob;
      return make.call(URL, blob);
    };
    HTMLAnchorElement.prototype.click = () => {};
    document.getElementById("save").click();
  });
  await until(page, () => window.saved);
  return Buffer.from(await page.evaluate(async () => [...new Uint8Array(await window.saved.arrayBuffer())]));
}

test("a link draws on WebGPU what the native interpreter draws, and in a second profile the very same", async (t) => {
  let first;
  await visitFirefox({ webgpu: true }, `${site.url}${STUDENT}&backend=webgpu`, async (page) => {
    const adapter = await page.evaluate(async () => Boolean(await navigator.gpu?.requestAdapter()));
    assert.ok(adapter, "this firefox gives no WebGPU adapter");
    await done(page);
    const { backend, adapter: name, note } = await page.evaluate(() => limbeck.engine());
    assert.equal(backend, "webgpu", note);
    const draw = await drawn(page);
    const worst = difference(draw, native("fashion-boot", { seed: 7, count: 2 }));
    t.diagnostic(`${name}: ${draw.ms.toFixed(0)} ms, at most ${worst.toExponential(1)} apart`);
    assert.ok(worst <= TOLERANCE, `${worst} apart`);
    assert.equal(await problem(page), "");
    first = { draw, canvases: await canvases(page), link: await page.evaluate(() => limbeck.link()) };
  });
  await visitFirefox({ webgpu: true }, `${site.url}#${first.link}`, async (page) => {
    await done(page);
    assert.equal(await page.evaluate(() => limbeck.backend()), "webgpu");
    assert.equal(difference(await drawn(page), first.draw), 0);
    assert.deepEqual(await canvases(page), first.canvases);
  });
});

/** One link for each view, quick to draw on a CPU. */
const VIEWS = {
  compare: "#m=fashion-boot&m2=fashion-sid&steps2=2&seed=7&n=2&view=compare&backend=cpu",
  path: "#m=fashion-sid&m2=fashion-teacher&steps2=4&seed=7&i=3&t=600&view=path&backend=cpu",
  travel: "#m=fashion-boot&seed=7&seed2=99&c=7&c2=9&t=500&view=travel&backend=cpu",
  model: "#m=fashion-sid&view=model&backend=cpu",
  bench: "#m=fashion-sid&view=bench&backend=cpu",
};

/** What a view shows in a fresh profile. */
async function look(name, link) {
  let seen;
  await visitFirefox({ webgpu: false }, site.url + link, async (page) => {
    await until(page, () => ["done", "ready"].includes(document.documentElement.dataset.state));
    assert.equal(await problem(page), "", name);
    const selected = await page.evaluate((view) => document.getElementById(`tab-${view}`).getAttribute("aria-selected"), name);
    assert.equal(selected, "true");
    seen = { link: await page.evaluate(() => limbeck.link()), draw: ["model", "bench"].includes(name) ? null : await drawn(page), canvases: await canvases(page) };
    if (seen.draw) seen.file = await saved(page);
    await page.screenshot({ path: join(SHOTS, `firefox-${name}.png`), fullPage: true });
  });
  return seen;
}

for (const [name, link] of Object.entries(VIEWS)) {
  test(`${name}: a second profile shows from the link what the first one shows`, async () => {
    mkdirSync(SHOTS, { recursive: true });
    const first = await look(name, link);
    const second = await look(name, `#${first.link}`);
    assert.equal(second.link, first.link);
    assert.deepEqual(second.canvases, first.canvases);
    if (!first.draw) return;
    assert.equal(difference(second.draw, first.draw), 0);
    assert.ok(png(first.file).width > 0);
    assert.ok(second.file.equals(first.file), "saved files hold the same bytes, and nothing of the profile");
  });
}

test("without WebGPU the CPU draws it, keeps the model, and a second visit downloads nothing", async (t) => {
  await visitFirefox({ webgpu: false }, `${site.url}${STUDENT}`, async (page) => {
    await done(page);
    const { backend, note } = await page.evaluate(() => limbeck.engine());
    assert.equal(backend, "cpu");
    assert.match(note, /WebGPU/);
    const first = await drawn(page);
    const worst = difference(first, native("fashion-boot", { seed: 7, count: 2 }));
    t.diagnostic(`${first.ms.toFixed(0)} ms, at most ${worst.toExponential(1)} apart`);
    assert.ok(worst <= TOLERANCE, `${worst} apart`);
    await until(page, () => document.querySelectorAll("#kept li").length === 1);
    await eventually(page, async () => { await navigator.serviceWorker.ready; return true; });
    await page.click("#tab-model");
    mkdirSync(SHOTS, { recursive: true });
    await page.screenshot({ path: join(SHOTS, "firefox-model.png"), fullPage: true });
    await page.click("#tab-draw");
    await until(page, () => location.hash.includes("m=fashion-boot") && !location.hash.includes("view=model"));
    // The network is gone: page and model come from what was kept.
    await site.close();
    await page.reload();
    await done(page);
    assert.equal(difference(await drawn(page), first), 0);
    assert.equal(await problem(page), "");
  });
});
