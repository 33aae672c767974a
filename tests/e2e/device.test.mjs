// The GPU: the race for the automatic choice, measurements, and a device that is lost while the page draws, computes wrong values, or
// cannot be had. Run by scripts/test.sh after the page and the command line have been built:
//
//   node --test tests/e2e/device.test.mjs

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { serve } from "../../scripts/serve.mjs";
import { DIST, SHOTS, audit, difference, done, drawn, launch, native, problem, settled, until, visit } from "./harness.mjs";

const TOLERANCE = 2e-3;

let browser, site;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  site = await serve(DIST);
  browser = await launch({ webgpu: true });
});

after(async () => {
  for (const part of [browser, site]) await part?.close();
});

/** The automatic choice leaves software adapters alone, so this one passes for a card. */
const DISGUISE = `for (const [key, value] of [["description", "A card"], ["isFallbackAdapter", false]])
  Object.defineProperty(GPUAdapterInfo.prototype, key, { get: () => value });`;

/** Puts a race of that card with the CPU where the page remembers races. */
async function remember(page, id, times) {
  const { models } = JSON.parse(readFileSync(join(DIST, "models/index.json")));
  const race = { adapter: "A card", sha256: models.find((m) => m.id === id).sha256, ...times };
  const build = readdirSync(DIST).find((name) => /^limbeck-web-.*\.js$/.test(name));
  await page.evaluate((kept) => localStorage.setItem("limbeck-races", kept), JSON.stringify({ build, races: [race] }));
}

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
  await visit(browser, `${site.url}#m=fashion-boot&seed=1&n=1&view=draw&backend=cpu`, async (page) => {
    // A race that was won on a former visit.
    await remember(page, "fashion-teacher", { gpu: 1, cpu: 2 });
    const worker = await onGpu(page, "auto", DISGUISE);
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

test("an adapter that computes wrong values is found out before anything is shown: the CPU draws instead", async () => {
  await visit(browser, `${site.url}#m=fashion-boot&seed=1&n=1&view=draw&backend=cpu`, async (page) => {
    // Weights arrive garbled, as they would through a driver that copies them wrongly.
    await onGpu(page, "webgpu", `const write = GPUQueue.prototype.writeBuffer;
      GPUQueue.prototype.writeBuffer = function (buffer, at, data, ...rest) {
        if (buffer.label === "weights") data = new Uint8Array(ArrayBuffer.isView(data) ? data.byteLength : data.byteLength ?? data.length).fill(0x2a);
        return write.call(this, buffer, at, data, ...(buffer.label === "weights" ? [] : rest));
      };`);
    await until(page, () => limbeck.engine()?.backend === "cpu");
    assert.match((await page.evaluate(() => limbeck.engine())).note, /WebGPU failed \(.*wrong values.*\), so the CPU goes on/);
    await done(page);
    const worst = difference(await drawn(page), native("fashion-boot", { seed: 1, count: 1 }));
    assert.ok(worst <= TOLERANCE, `${worst} apart`);
    assert.equal(await problem(page), "");
  });
});

test("a device that offers too little, and none at all: the CPU draws, and the page says why", async () => {
  for (const refuse of ["throw new DOMException('limits too small', 'OperationError')", "return null"]) {
    const method = refuse.startsWith("throw") ? "GPUAdapter.prototype.requestDevice" : "GPU.prototype.requestAdapter";
    await visit(browser, `${site.url}#m=fashion-boot&seed=1&n=1&view=draw&backend=cpu`, async (page) => {
      await done(page);
      const [worker] = page.workers();
      await worker.evaluate(`(() => { ${method} = async function () { ${refuse}; }; })()`);
      await page.locator("details.more", { has: page.locator("#backend") }).evaluate((d) => { d.open = true; });
      await page.selectOption("#backend", "webgpu");
      await until(page, () => limbeck.engine()?.note !== "");
      const engine = await page.evaluate(() => limbeck.engine());
      assert.equal(engine.backend, "cpu");
      assert.match(engine.note, refuse === "return null" ? /no adapter for WebGPU, so the CPU computes/ : /could not be started [^]*so the CPU computes/);
      await done(page);
      const worst = difference(await drawn(page), native("fashion-boot", { seed: 1, count: 1 }));
      assert.ok(worst <= TOLERANCE, `${worst} apart`);
    });
  }
});

test("the automatic choice: both engines race, the page says how it went, and remembers it", async (t) => {
  await visit(browser, `${site.url}#m=fashion-boot&seed=7&n=1&view=draw&backend=cpu`, async (page, context) => {
    const worker = await onGpu(page, "auto", DISGUISE);
    await until(page, () => limbeck.engine()?.note.startsWith("Both were tried"));
    // This card is a CPU in disguise, so the CPU wins.
    const { backend, gpu, note } = await page.evaluate(() => limbeck.engine());
    assert.deepEqual([backend, gpu], ["cpu", "A card"]);
    assert.match(note, /^Both were tried on `fashion-boot`: it took .* m?s here, .* s on WebGPU \(A card\)\.$/);
    assert.ok((await page.textContent("#engine-text")).endsWith(note));
    await done(page);
    assert.ok(difference(await drawn(page), native("fashion-boot", { seed: 7, count: 1 })) <= TOLERANCE);
    t.diagnostic(note);
    const kept = JSON.parse(await page.evaluate(() => localStorage.getItem("limbeck-races")));
    assert.equal(kept.races.length, 1);
    assert.ok(kept.races[0].cpu < kept.races[0].gpu);
    // Asked for, WebGPU draws whatever the race said.
    await page.selectOption("#backend", "webgpu");
    await until(page, () => limbeck.backend() === "webgpu");
    await page.selectOption("#backend", "auto");
    await until(page, () => limbeck.backend() === "cpu" && limbeck.engine().gpu === "A card");
    assert.equal(JSON.parse(await page.evaluate(() => localStorage.getItem("limbeck-races"))).races.length, 1, "no second race");
    // A card that computes wrongly is found in the race, and its picture is the CPU's.
    await worker.evaluate(`(() => {
      const read = GPUBuffer.prototype.getMappedRange;
      GPUBuffer.prototype.getMappedRange = function (...a) { const r = read.apply(this, a); new Float32Array(r)[100] += 5; return r; };
    })()`);
    await page.selectOption("#model", "fashion-sid");
    await page.selectOption("#steps", { label: "1 step" });
    await until(page, () => limbeck.engine()?.note.includes("answers wrongly"));
    assert.match(await page.textContent("#engine-text"), /WebGPU \(A card\) answers wrongly for `fashion-sid`, so the CPU computes\.$/);
    await until(page, () => limbeck.draw(0)?.model === "fashion-sid" && limbeck.draw(0).steps === 1 && limbeck.draw(0).done);
    assert.ok(difference(await drawn(page), native("fashion-sid", { seed: 7, count: 1, steps: 1 })) <= TOLERANCE);
  });
});

test("measurements: each engine, as a table and as text, with the network's answer", async (t) => {
  const permissions = ["clipboard-read", "clipboard-write"];
  await visit(browser, `${site.url}#m=fashion-sid&steps=2&seed=7&view=bench&backend=cpu`, async (page) => {
    await settled(page);
    assert.equal(await page.isDisabled("#bench-copy"), true);
    assert.deepEqual(await page.evaluate(() => limbeck.bench()), []);
    await page.click("#bench-start");
    await done(page);
    const rows = await page.evaluate(() => limbeck.bench());
    assert.deepEqual(rows.map((r) => [r.what, r.images, r.engine]), [["1 call", 1, "CPU"], ["1 call", 16, "CPU"], ["2 steps", 1, "CPU"], ["2 steps", 16, "CPU"]]);
    assert.ok(rows.every((r) => r.runs >= 3 && r.median > 0 && r.error === null));
    const [one, grid, two] = rows;
    assert.deepEqual([grid.macs, two.macs], [16 * one.macs, 2 * one.macs]);
    assert.match(await page.textContent("#bench-verdict"), /^An image takes .* m?s on the CPU\.$/);
    assert.equal(await page.locator("#bench-rows tr").count(), 4);
    await page.click("#bench-copy");
    await until(page, () => document.getElementById("status").textContent.startsWith("Copied"));
    const text = await page.evaluate(() => navigator.clipboard.readText());
    const { sha256 } = JSON.parse(readFileSync(join(DIST, "models/index.json"))).models.find((m) => m.id === "fashion-sid");
    assert.ok(text.includes(`fashion-sid (${sha256.slice(0, 8)}): 1.85 M parameters, 141.34 M multiply-adds a call`), text);
    assert.equal(text.split("\n").filter((line) => /^\| (1 call|2 steps) \| (1|16) \| CPU \| /.test(line)).length, 4);
    await page.screenshot({ path: join(SHOTS, "bench.png"), fullPage: true });
    await audit(page, "measured");
    const cpu = await page.evaluate(() => Array.from(limbeck.call(0)));
    // The same call on WebGPU: the same input, the same answer. What is measured can be stopped.
    await page.locator("details.more", { has: page.locator("#backend") }).evaluate((d) => { d.open = true; });
    await page.selectOption("#backend", "webgpu");
    await until(page, () => limbeck.backend() === "webgpu");
    await page.click("#bench-start");
    await until(page, () => limbeck.bench()[0]?.median > 0 && limbeck.bench()[0].engine === "WebGPU");
    await page.click("#bench-start");
    await until(page, () => document.getElementById("bench-start").textContent === "Measure");
    const [first, ...rest] = await page.evaluate(() => limbeck.bench());
    assert.ok(first.dispatches > 0 && rest.some((r) => r.median === null));
    const gpu = await page.evaluate(() => Array.from(limbeck.call(0)));
    assert.deepEqual(gpu.slice(0, 784), cpu.slice(0, 784));
    const apart = Math.max(...gpu.map((v, i) => Math.abs(v - cpu[i])));
    assert.ok(apart <= TOLERANCE, `${apart} apart`);
    t.diagnostic(`a call takes ${one.median.toFixed(0)} ms on the CPU, ${first.median.toFixed(0)} ms on WebGPU in ${first.dispatches} dispatches`);
  }, { permissions, bypassCSP: true });
});
