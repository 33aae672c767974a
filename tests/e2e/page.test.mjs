// The page in chromium: it opens links, draws with the shipped models on WebGPU and on the CPU, and the pixels are those of the native
// interpreter. Run by scripts/test.sh after the page and the command line have been built:
//
//   node --test tests/e2e/page.test.mjs

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { serve } from "../../scripts/serve.mjs";
import { DIST, ROOT, SHOTS, difference, done, drawn, failed, launch, native, png, problem, shipped, until, visit } from "./harness.mjs";

/** Largest difference from the native interpreter, on pixels in [-1, 1]. */
const TOLERANCE = 2e-3;
/** A link to two pictures by the shipped student. */
const STUDENT = "#m=fashion-boot&seed=7&n=2&view=draw";

let site, elsewhere, folder, gpu, plain;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "limbeck-models-"));
  const bundle = readFileSync(shipped("fashion-boot"));
  const flipped = Buffer.from(bundle);
  flipped.fill(0xff, bundle.length - 4096);
  const oversized = Buffer.alloc(64);
  oversized.writeBigUInt64LE(1n << 60n);
  const files = { "good": bundle, "short": bundle.subarray(0, bundle.length >> 1), "flipped": flipped, "oversized": oversized, "empty": Buffer.alloc(0) };
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(folder, `${name}.safetensors`), bytes);
  writeFileSync(join(folder, "page.safetensors"), "<!doctype html><title>not a model</title>");
  site = await serve(DIST);
  elsewhere = await serve(folder, 0, { "Access-Control-Allow-Origin": "*" });
  gpu = await launch({ webgpu: true });
  plain = await launch({ webgpu: false });
});

after(async () => {
  for (const part of [gpu, plain, site, elsewhere]) await part?.close();
  if (folder) rmSync(folder, { recursive: true });
});

/** The link that opens a bundle of the other server. */
const from = (name, rest = "&seed=7&n=2&view=draw&backend=cpu") => `#m=${encodeURIComponent(`${elsewhere.url}${name}`)}${rest}`;
const engine = (page) => page.evaluate(() => limbeck.engine());

test("the list of shipped models is that of the files", () => {
  const { models } = JSON.parse(readFileSync(join(ROOT, "models/index.json"), "utf8"));
  for (const id of ["fashion-teacher", "fashion-boot", "fashion-sid"]) {
    const bytes = readFileSync(shipped(id));
    const entry = models.find((m) => m.id === id);
    assert.ok(entry, `models/index.json lacks ${id}: run limbeck index`);
    assert.equal(entry.sha256, createHash("sha256").update(bytes).digest("hex"), `${id}: run limbeck index`);
    assert.equal(entry.bytes, bytes.length);
  }
});

test("a link draws on WebGPU what the native interpreter draws", async (t) => {
  await visit(gpu, `${site.url}${STUDENT}&backend=webgpu`, async (page) => {
    const adapter = await page.evaluate(async () => Boolean(await navigator.gpu?.requestAdapter()));
    assert.ok(adapter, "this chromium gives no WebGPU adapter");
    await done(page);
    const { backend, adapter: name, note } = await engine(page);
    assert.equal(backend, "webgpu", note);
    const draw = await drawn(page);
    assert.deepEqual([draw.shape, draw.labels, draw.seed], [[2, 1, 28, 28], [0, 1], "7"]);
    const worst = difference(draw, native("fashion-boot", { seed: 7, count: 2 }));
    t.diagnostic(`${name}: ${draw.ms.toFixed(0)} ms, at most ${worst.toExponential(1)} apart`);
    assert.ok(worst <= TOLERANCE, `${worst} apart`);
    assert.match(await page.textContent("#chip"), /WebGPU/);
  });
});

test("a link draws on the CPU what the native interpreter draws", async (t) => {
  await visit(gpu, `${site.url}${STUDENT}&backend=cpu`, async (page) => {
    await done(page);
    assert.equal((await engine(page)).backend, "cpu");
    const draw = await drawn(page);
    const worst = difference(draw, native("fashion-boot", { seed: 7, count: 2 }));
    t.diagnostic(`${draw.ms.toFixed(0)} ms, at most ${worst.toExponential(1)} apart`);
    assert.ok(worst <= TOLERANCE, `${worst} apart`);
  });
});

test("a few-step student draws in 1, 2 and 4 steps on both engines", async (t) => {
  for (const backend of ["webgpu", "cpu"]) {
    for (const steps of [1, 2, 4]) {
      await visit(gpu, `${site.url}#m=fashion-sid&seed=5&n=1&steps=${steps}&view=draw&backend=${backend}`, async (page) => {
        await done(page);
        assert.equal((await engine(page)).backend, backend);
        const draw = await drawn(page);
        assert.equal(draw.calls, steps);
        const worst = difference(draw, native("fashion-sid", { seed: 5, count: 1, steps }));
        t.diagnostic(`${backend}, ${steps} steps: ${draw.ms.toFixed(0)} ms, at most ${worst.toExponential(1)} apart`);
        assert.ok(worst <= TOLERANCE, `${worst} apart`);
      });
    }
  }
});

test("without WebGPU the CPU takes over, and the page says so", async () => {
  await visit(plain, `${site.url}${STUDENT}`, async (page) => {
    await done(page);
    const { backend, note } = await engine(page);
    assert.equal(backend, "cpu");
    assert.match(note, /WebGPU/);
    assert.equal(await page.textContent("#chip"), "CPU");
    const worst = difference(await drawn(page), native("fashion-boot", { seed: 7, count: 2 }));
    assert.ok(worst <= TOLERANCE, `${worst} apart`);
  });
});

test("the automatic choice prefers the CPU to a software adapter", async () => {
  await visit(gpu, `${site.url}${STUDENT}`, async (page) => {
    await done(page);
    const { backend, note } = await engine(page);
    assert.equal(backend, "cpu");
    assert.match(note, /software adapter/);
  });
});

test("teacher beside student, from the same noise, both timed", async (t) => {
  await visit(plain, `${site.url}#m=fashion-boot&seed=3&n=1&view=compare&backend=cpu`, async (page) => {
    await done(page);
    const [student, teacher] = [await drawn(page, 0), await drawn(page, 1)];
    assert.deepEqual([student.shape, student.seed, student.labels], [teacher.shape, teacher.seed, teacher.labels]);
    assert.equal(student.calls, 1);
    assert.ok(teacher.calls > student.calls && teacher.ms > student.ms, `${teacher.calls} calls in ${teacher.ms} ms`);
    for (const [name, draw] of [["student", student], ["teacher", teacher]]) {
      assert.equal((await page.textContent(`#${name}-role`)).toLowerCase(), name);
      assert.match(await page.textContent(`#${name}-time`), /^[\d.]+ (ms|s)$/);
      assert.equal(await page.textContent(`#${name}-calls`), String(draw.calls));
      assert.ok(await page.isVisible(`#canvas-${name}`));
    }
    assert.match(await page.textContent("#verdict"), /times faster/);
    const { steps, guidance } = teacher;
    const worst = difference(teacher, native("fashion-teacher", { seed: 3, count: 1, steps, guidance }));
    t.diagnostic(`student ${student.ms.toFixed(0)} ms, teacher ${teacher.ms.toFixed(0)} ms; the teacher at most ${worst.toExponential(1)} apart`);
    assert.ok(worst <= TOLERANCE, `${worst} apart`);
  });
});

test("a copied link shows the same pictures elsewhere", async () => {
  const permissions = ["clipboard-read", "clipboard-write"];
  let link, draw;
  await visit(plain, `${site.url}${STUDENT}&backend=cpu&colour=blue`, async (page) => {
    await done(page);
    await page.selectOption("#class", "3");
    await page.fill("#seed", "18446744073709551615");
    await page.press("#seed", "Tab");
    await page.focus("#count");
    await page.keyboard.press("ArrowRight");
    await until(page, () => limbeck.draw(0)?.done && limbeck.draw(0).labels.join() === "3,3,3" && limbeck.draw(0).seed === "18446744073709551615");
    draw = await drawn(page);
    await page.click("#copy");
    await until(page, () => document.getElementById("status").textContent.startsWith("Link copied"));
    link = await page.evaluate(() => navigator.clipboard.readText());
  }, { permissions });
  assert.ok(link.startsWith(`${site.url}#v=1&m=fashion-boot&h=`), link);
  assert.match(link, /&colour=blue/, "unknown keys are kept");
  await visit(plain, link, async (page) => {
    await done(page);
    const again = await drawn(page);
    assert.deepEqual(again.labels, draw.labels);
    assert.equal(difference(again, draw), 0);
    assert.equal(await page.inputValue("#class"), "3");
    assert.equal(await page.inputValue("#count"), "3");
    assert.equal(await problem(page), "");
  });
});

test("models from this device and from another site", async () => {
  const expected = native("fashion-boot", { seed: 7, count: 2 });
  await visit(plain, `${site.url}#m=fashion-teacher&seed=7&n=2&view=model&backend=cpu`, async (page) => {
    await until(page, () => document.documentElement.dataset.state === "ready");
    await page.setInputFiles("#file", { name: "mine.safetensors", mimeType: "", buffer: readFileSync(shipped("fashion-boot")) });
    await until(page, () => document.getElementById("model").value === "file:mine.safetensors");
    await page.click("#tab-draw");
    await done(page);
    assert.ok(difference(await drawn(page), expected) <= TOLERANCE);
    await page.setInputFiles("#file", join(folder, "short.safetensors"));
    await failed(page);
    assert.match(await problem(page), /not a model that the page can draw with/);
  });
  await visit(plain, site.url + from("good.safetensors"), async (page) => {
    await done(page);
    assert.ok(difference(await drawn(page), expected) <= TOLERANCE);
  });
});

test("broken models are refused in words", async (t) => {
  const cases = ["short", "flipped", "oversized", "empty", "page", "absent"];
  for (const name of cases) {
    await t.test(name, () => visit(plain, site.url + from(`${name}.safetensors`), async (page) => {
      await failed(page);
      const words = await problem(page);
      assert.match(words, name === "absent" ? /the server answered 404/ : /not a model that the page can draw with|is empty/);
      assert.equal(await page.evaluate(() => limbeck.pixels(0)), null);
      // Not the end: the next model opens.
      await page.selectOption("#model", "fashion-boot");
      await done(page);
    }));
  }
  await t.test("another version than the link's", () => visit(plain, `${site.url}${STUDENT}&backend=cpu&h=0123456789abcdef`, async (page) => {
    await failed(page);
    assert.match(await problem(page), /another version/);
    assert.equal(await page.evaluate(() => limbeck.pixels(0)), null);
  }));
  await t.test("no list of models", async () => {
    const list = "**/models/index.json";
    const before = (page) => page.route(list, (route) => route.fulfill({ status: 500, body: "" }));
    await visit(plain, `${site.url}${STUDENT}&backend=cpu`, async (page) => {
      await failed(page);
      assert.match(await problem(page), /list of models.*500/);
      await page.unroute(list);
      await page.click("#retry");
      await done(page);
      assert.equal(await problem(page), "");
    }, { before });
  });
});

test("broken links are followed as far as they can be", async (t) => {
  const cases = [
    ["an unknown model", "#m=no-such-model&n=2&view=draw&backend=cpu", /no-such-model/, 2],
    ["too many pictures", "#m=fashion-boot&n=9999&view=draw&backend=cpu", /`n` is "9999", expected a whole number from 1 to 64/, 16],
    ["nonsense", "#m=fashion-boot&n=1&seed=-1&c=x&steps=0&w=NaN&view=draw&backend=gpu&%ff=%", /`seed`[^]*`c`[^]*`steps`[^]*`w`[^]*`backend`/, 1],
    ["steps the model does not take", "#m=fashion-boot&n=1&steps=5&view=draw&backend=cpu", /does not draw as the link asks/, 1],
    ["a class the model does not have", "#m=fashion-boot&n=1&c=77&view=draw&backend=cpu", /class 77/, 1],
    ["a later version", "#v=9&m=fashion-boot&n=1&view=draw&backend=cpu", /version 9/, 1],
    ["an address that is none", "#m=javascript:alert(1)&n=1&view=draw&backend=cpu", /`m`/, 1],
    ["far too long", `#m=fashion-boot&n=1&view=draw&backend=cpu&x=${"y".repeat(5000)}`, /5\d\d\d bytes/, 16],
  ];
  for (const [name, link, words, count] of cases) {
    await t.test(name, () => visit(plain, site.url + link, async (page) => {
      await done(page);
      assert.match(await problem(page), words);
      assert.equal((await drawn(page)).shape[0], count);
      await page.click("#dismiss");
      assert.equal(await problem(page), "");
    }));
  }
});

test("the PNG to save is one, and carries its link", async () => {
  await visit(plain, `${site.url}${STUDENT}&backend=cpu`, async (page) => {
    await done(page);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save")]);
    assert.match(download.suggestedFilename(), /^[a-z0-9-]+-seed7\.png$/);
    const { width, height, values, texts } = png(readFileSync(await download.path()));
    // Two images of 28 pixels, each four wide, four apart.
    assert.deepEqual([width, height], [2 * 112 + 4, 112]);
    assert.ok(values > 16, `${values} distinct samples`);
    assert.equal(texts.Source, `${site.url}#${await page.evaluate(() => limbeck.link())}`);
  });
});

test("a first visit compares, and fits phone and desk, by day and by night", async () => {
  mkdirSync(SHOTS, { recursive: true });
  await visit(plain, site.url, async (page) => {
    await done(page);
    assert.equal(await page.getAttribute("#tab-compare", "aria-selected"), "true");
    assert.equal(await problem(page), "");
    for (const [device, width, height] of [["desk", 1280, 900], ["phone", 360, 740]]) {
      await page.setViewportSize({ width, height });
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        for (const tab of ["model", "draw", "compare"]) {
          await page.click(`#tab-${tab}`);
          // The canvases follow the new size in the next frames.
          await page.waitForTimeout(150);
          const [content, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
          assert.ok(content <= room, `${device}, ${colorScheme}, ${tab}: ${content} pixels wide in ${room}`);
          await page.screenshot({ path: join(SHOTS, `${device}-${colorScheme}-${tab}.png`), fullPage: true });
        }
      }
    }
  });
});
