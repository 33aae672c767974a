// The views of the page in chromium: what a link shows, Path, Travel, several models in Compare, controls, large images. Run by
// scripts/test.sh after the page and the command line have been built:
//
//   node --test tests/e2e/views.test.mjs

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { serve } from "../../scripts/serve.mjs";
import { DIST, SHOTS, VIEWS, difference, done, drawn, launch, link, native, png, problem, settled, until, visit } from "./harness.mjs";

/** Largest difference from the native interpreter, on pixels in [-1, 1]. */
const TOLERANCE = 2e-3;
/** Those that show pictures. */
const PICTURES = Object.keys(VIEWS).filter((name) => !["model", "bench"].includes(name));

let site, gpu, plain;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  site = await serve(DIST);
  gpu = await launch({ webgpu: true });
  plain = await launch({ webgpu: false });
});

after(async () => {
  for (const part of [gpu, plain, site]) await part?.close();
});

/** The pixels of every canvas that is shown, as text. */
const canvases = (page) =>
  page.evaluate(() => [...document.querySelectorAll("canvas")].filter((c) => c.checkVisibility() && c.width > 1).map((c) => c.toDataURL()));
const image = (draw, k) => {
  const size = draw.shape[1] * draw.shape[2] * draw.shape[3];
  return { shape: draw.shape.slice(1), pixels: draw.pixels.slice(k * size, (k + 1) * size) };
};

for (const [name, address] of Object.entries(VIEWS)) {
  test(`${name}: a second browser shows from the link what the first one shows`, async () => {
    let first, carried;
    await visit(plain, site.url + address, async (page) => {
      await settled(page);
      assert.equal(await problem(page), "");
      assert.equal(await page.getAttribute(`#tab-${name}`, "aria-selected"), "true");
      first = await canvases(page);
      carried = await link(page);
      assert.ok(carried.length < 300, `${carried.length} characters: ${carried}`);
    });
    if (PICTURES.includes(name)) assert.ok(first.length > 0 && new Set(first).size === first.length, "canvases, each with another picture");
    await visit(plain, `${site.url}#${carried}`, async (page) => {
      await settled(page);
      assert.deepEqual(await canvases(page), first);
      assert.equal(await link(page), carried);
    });
  });
}

test("on WebGPU too, a second profile shows the very same pixels", async () => {
  let first, carried;
  const read = async (page) => ({ canvases: await canvases(page), draw: await drawn(page) });
  await visit(gpu, `${site.url}#m=fashion-boot&seed=7&n=1&view=draw&backend=webgpu`, async (page) => {
    await done(page);
    assert.equal(await page.evaluate(() => limbeck.backend()), "webgpu");
    [first, carried] = [await read(page), await link(page)];
  });
  await visit(gpu, `${site.url}#${carried}`, async (page) => {
    await done(page);
    const second = await read(page);
    assert.deepEqual(second.canvases, first.canvases);
    assert.equal(difference(second.draw, first.draw), 0);
    assert.equal(await link(page), carried);
  });
});

test("a path begins with the noise and ends with the image, on both engines", async (t) => {
  for (const backend of ["cpu", "webgpu"]) {
    await visit(gpu, `${site.url}#m=fashion-sid&m2=fashion-boot&seed=5&i=1&view=path&backend=${backend}`, async (page) => {
      await done(page);
      // The boot student's row, then the SiD student's with 4, 2 and 1 steps.
      for (const [row, id, steps] of [[0, "fashion-boot", 1], [1, "fashion-sid", 4], [2, "fashion-sid", 2], [3, "fashion-sid", 1]]) {
        const path = await drawn(page, row);
        assert.equal(path.levels.length, steps);
        assert.equal(path.shape[0], 1 + 2 * steps);
        assert.ok(path.levels.every((l, k) => k === 0 || l < path.levels[k - 1]), `falling noise levels: ${path.levels}`);
        const expected = image(native(id, { seed: 5, count: 2, steps }), 1);
        const worst = difference(image(path, 0), expected);
        assert.ok(worst <= TOLERANCE, `${backend}, ${id}, ${steps} steps: ${worst} apart`);
        // The last estimate is the image; the first state is noise, unlike it.
        assert.ok(difference(image(path, 2 * steps), expected) <= TOLERANCE);
        assert.ok(difference(image(path, 1), expected) > 0.5);
        t.diagnostic(`${backend}, ${id}, ${steps} steps: ${path.ms.toFixed(0)} ms, at most ${worst.toExponential(1)} apart`);
      }
    });
  }
});

test("a path plays, pauses, steps, and shows estimates", async () => {
  await visit(plain, site.url + VIEWS.path, async (page) => {
    await done(page);
    const place = () => page.inputValue("#path-place");
    const last = Number(await page.getAttribute("#path-place", "max"));
    assert.equal(last, 8);
    assert.equal(await place(), "5");
    await page.click("#path-on");
    assert.equal(await place(), "6");
    await page.click("#path-back");
    await page.keyboard.press("ArrowLeft");
    assert.equal(await place(), "4");
    const noisy = await canvases(page);
    await page.selectOption("#path-show", "x0");
    assert.notDeepEqual(await canvases(page), noisy);
    assert.match(await link(page), /&show=x0/);
    await page.click("#path-play");
    assert.equal(await page.textContent("#path-play"), "Pause");
    await until(page, () => document.getElementById("path-play").textContent === "Play");
    assert.equal(await place(), String(last));
  });
});

test("a travel begins and ends with the images of its seeds", async () => {
  const address = `${site.url}#m=fashion-boot&seed=3&seed2=8&i=2&c=1&c2=4&view=travel`;
  let travel;
  await visit(plain, `${address}&backend=cpu`, async (page) => {
    await done(page);
    travel = await drawn(page);
    assert.equal(travel.shape[0], 33);
    assert.deepEqual([travel.labels[0], travel.labels[16], travel.labels[17], travel.labels[32]], [1, 1, 4, 4]);
    for (const [frame, seed, label] of [[0, 3, "1"], [32, 8, "4"]]) {
      const expected = image(native("fashion-boot", { seed, count: 3, label }), 2);
      assert.ok(difference(image(travel, frame), expected) <= TOLERANCE, `frame ${frame}`);
    }
    // Neighbours differ, though less than the ends.
    const step = difference(image(travel, 4), image(travel, 5));
    assert.ok(step > 0 && step < difference(image(travel, 0), image(travel, 32)), `${step}`);
  });
  // From one noise, the class alone changes: little by little, the middle included.
  await visit(plain, `${site.url}#m=fashion-boot&seed=3&seed2=3&c=1&c2=4&t=250&view=travel&backend=cpu`, async (page) => {
    await done(page);
    const way = await drawn(page);
    assert.match(await page.textContent("#travel-out"), /25 % from seed 3 to seed 3, 75 % Trouser and 25 % Coat/);
    const apart = (a, b) => image(way, a).pixels.reduce((sum, v, i) => sum + Math.abs(v - image(way, b).pixels[i]), 0);
    const steps = Array.from({ length: 32 }, (_, k) => apart(k, k + 1));
    assert.ok(steps.every((s) => s > 0 && s < 0.25 * apart(0, 32)), `steps of ${steps.map((s) => s.toFixed(1))} in ${apart(0, 32)}`);
    const expected = image(native("fashion-boot", { seed: 3, count: 1, label: "4" }), 0);
    assert.ok(difference(image(way, 32), expected) <= TOLERANCE);
  });
  // A software adapter would take minutes for all of it.
  await visit(gpu, `${address}&backend=webgpu`, async (page) => {
    await until(page, () => limbeck.draw(0)?.shape[0] >= 2);
    const begin = await drawn(page);
    for (const frame of [0, 1]) assert.ok(difference(image(begin, frame), image(travel, frame)) <= TOLERANCE, `frame ${frame}`);
    await page.click("#generate");
    await until(page, () => document.getElementById("generate").textContent === "Generate");
  });
});

test("a travel is saved as an animation that a browser plays", async () => {
  await visit(plain, site.url + VIEWS.travel, async (page) => {
    await done(page);
    await page.click("#travel-play");
    await until(page, () => Number(document.getElementById("travel-place").value) > 18);
    await page.click("#travel-play");
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#travel-save")]);
    const bytes = readFileSync(await download.path());
    writeFileSync(join(SHOTS, "travel.png"), bytes);
    const { width, height, texts } = png(bytes);
    assert.deepEqual([width, height], [224, 224]);
    assert.match(texts.Source, /view=travel/);
    assert.match(texts.Software, /limbeck/);
    // The browser's own decoder counts the frames, and they differ.
    const frames = await page.evaluate(async (data) => {
      const decoder = new ImageDecoder({ data: Uint8Array.from(data), type: "image/png" });
      await decoder.tracks.ready;
      await decoder.completed;
      const count = decoder.tracks.selectedTrack.frameCount;
      const sums = [];
      for (const k of [0, 1, 32, 63]) {
        const { image } = await decoder.decode({ frameIndex: k });
        const canvas = new OffscreenCanvas(image.displayWidth, image.displayHeight);
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        sums.push(context.getImageData(0, 0, canvas.width, canvas.height).data.reduce((a, b) => a + b, 0));
      }
      return { count, sums };
    }, [...bytes]);
    assert.equal(frames.count, 64);
    // There and back: the last frame is the second.
    assert.equal(frames.sums[1], frames.sums[3]);
    assert.notEqual(frames.sums[0], frames.sums[2]);
  });
});

test("controls that move redraw, and the last wish wins", async (t) => {
  await visit(plain, `${site.url}#m=fashion-boot&seed=0&n=1&view=draw&backend=cpu`, async (page) => {
    await done(page);
    const before = await page.evaluate(() => limbeck.jobs());
    await page.evaluate(async () => {
      const slider = document.getElementById("near");
      for (let seed = 1; seed <= 60; seed++) {
        slider.value = String(seed);
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        await new Promise((resolve) => setTimeout(resolve, 12));
      }
    });
    const moving = (await page.evaluate(() => limbeck.jobs())) - before;
    await page.evaluate(() => document.getElementById("near").dispatchEvent(new Event("change", { bubbles: true })));
    await done(page);
    const draw = await drawn(page);
    assert.equal(draw.seed, "60");
    assert.ok(difference(draw, native("fashion-boot", { seed: 60, count: 1 })) <= TOLERANCE);
    t.diagnostic(`${moving} draws while the slider moved through 60 seeds in 0.8 s`);
    assert.ok(moving >= 2, "it redraws while the control moves");
    assert.ok(moving <= 60);
    // All wishes at once: one is being drawn, one more follows.
    const jobs = await page.evaluate(() => {
      const slider = document.getElementById("near");
      const start = limbeck.jobs();
      for (let seed = 100; seed < 160; seed++) {
        slider.value = String(seed);
        slider.dispatchEvent(new Event("input", { bubbles: true }));
      }
      return limbeck.jobs() - start;
    });
    assert.equal(jobs, 1);
    await until(page, () => limbeck.draw(0)?.seed === "159" && limbeck.draw(0).done);
    await page.focus("#seed");
    await page.keyboard.press("ArrowUp");
    await until(page, () => limbeck.draw(0)?.seed === "160" && limbeck.draw(0).done);
  });
});

test("a model of any number of steps has a slider for them", async () => {
  await visit(plain, `${site.url}#m=fashion-teacher&steps=5&seed=7&n=1&view=draw&backend=cpu`, async (page) => {
    await done(page);
    assert.equal(await problem(page), "");
    const draw = await drawn(page);
    assert.deepEqual([draw.steps, draw.calls], [5, 9]);
    assert.ok(difference(draw, native("fashion-teacher", { seed: 7, count: 1, steps: 5 })) <= TOLERANCE);
    assert.equal(await page.inputValue("#slide"), "5");
    const move = (steps, kind) => page.evaluate(([steps, kind]) => {
      const slider = document.getElementById("slide");
      slider.value = String(steps);
      slider.dispatchEvent(new Event(kind, { bubbles: true }));
    }, [steps, kind]);
    await move(3, "input");
    assert.equal(await page.textContent("#slide-out"), "3");
    await move(3, "change");
    await until(page, () => limbeck.draw(0)?.steps === 3 && limbeck.draw(0).done);
    // Another sampler, the same number of steps.
    await page.selectOption("#steps", { label: "Euler" });
    await until(page, () => limbeck.draw(0)?.calls === 3 && limbeck.draw(0).done);
    assert.match(await link(page), /&sampler=euler&steps=3/);
    // A model with a list of its own has no slider.
    await page.selectOption("#model", "fashion-sid");
    await done(page);
    assert.equal(await page.isVisible("#slide"), false);
    assert.equal(await page.isVisible("#steps"), true);
  });
});

test("a model more, and one less", async () => {
  await visit(plain, `${site.url}#m=fashion-boot&m2=fashion-sid&steps2=1&seed=7&n=1&view=compare&backend=cpu`, async (page) => {
    await done(page);
    assert.equal(await page.isVisible("#card-third"), false);
    await page.selectOption("#third", "fashion-sid");
    await page.selectOption("#third-steps", { label: "2 steps" });
    await done(page);
    assert.equal((await drawn(page, 2)).calls, 2);
    assert.ok(difference(await drawn(page, 2), native("fashion-sid", { seed: 7, count: 1, steps: 2 })) <= TOLERANCE);
    assert.match(await page.textContent("#verdict"), /From the same noise: .*, .*, /);
    assert.match(await link(page), /&m3=fashion-sid&h3=[0-9a-f]{16}&steps3=2/);
    await page.selectOption("#third", "");
    await done(page);
    assert.equal(await page.isVisible("#card-third"), false);
    assert.doesNotMatch(await link(page), /m3/);
  });
});

test("an image is shown large, by mouse and by keyboard", async () => {
  await visit(plain, site.url + VIEWS.draw, async (page) => {
    await done(page);
    const canvas = await page.locator("#canvas-draw").boundingBox();
    // The middle of the grid of nine is the fifth image.
    await page.mouse.click(canvas.x + canvas.width / 2, canvas.y + canvas.height * 0.45);
    assert.match(await page.textContent("#large-title"), /Coat, image 5 of seed 7/);
    assert.match(await link(page), /&i=4/);
    await page.keyboard.press("ArrowRight");
    assert.match(await page.textContent("#large-title"), /Sandal, image 6/);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#large-save")]);
    assert.match(download.suggestedFilename(), /seed7-image6\.png$/);
    assert.deepEqual((({ width, height }) => [width, height])(png(readFileSync(await download.path()))), [224, 224]);
    await page.keyboard.press("Escape");
    // The event that tells the page comes after the dialog is gone.
    await until(page, () => !document.getElementById("large").open && !limbeck.link().includes("&i="));
    assert.doesNotMatch(await link(page), /&i=/);
    await page.focus("#canvas-draw");
    await page.keyboard.press("Enter");
    await page.click("#large-path");
    await done(page);
    assert.equal(await page.getAttribute("#tab-path", "aria-selected"), "true");
    assert.equal(await page.isVisible("#large"), false);
  });
});
