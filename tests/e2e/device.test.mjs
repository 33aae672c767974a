// A GPU that is lost while the page draws, computes wrong values, or cannot be had. Run by scripts/test.sh after the page and the command line have been built:
//
//   node --test tests/e2e/device.test.mjs

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { serve } from "../../scripts/serve.mjs";
import { DIST, difference, done, drawn, launch, native, problem, until, visit } from "./harness.mjs";

const TOLERANCE = 2e-3;

let browser, site;

before(async () => {
  site = await serve(DIST);
  browser = await launch({ webgpu: true });
});

after(async () => {
  for (const part of [browser, site]) await part?.close();
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
