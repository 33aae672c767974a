// What goes around the views in chromium: sharing, PNGs, embedding, themes, keyboard, accessibility. Run by scripts/test.sh after the
// page and the command line have been built:
//
//   node --test tests/e2e/around.test.mjs

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import jsQR from "jsqr";
import { serve } from "../../scripts/serve.mjs";
import { DIST, SHOTS, VIEWS, audit, difference, done, drawn, launch, link, png, problem, settled, until, visit } from "./harness.mjs";

let site, plain;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  site = await serve(DIST);
  plain = await launch({ webgpu: false });
});

after(async () => {
  for (const part of [plain, site]) await part?.close();
});

/** Drops a file on the page. */
const drop = (page, name, bytes) =>
  page.evaluate(([name, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(bytes)], name));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
  }, [name, [...bytes]]);

test("a saved PNG that is dropped restores its pictures", async () => {
  let bytes, draw;
  await visit(plain, `${site.url}#m=fashion-sid&steps=2&seed=41&n=3&c=8&view=draw&backend=cpu`, async (page) => {
    await done(page);
    draw = await drawn(page);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save")]);
    bytes = readFileSync(await download.path());
    assert.match(png(bytes).texts.Description, /seed 41, .* in 2 steps/);
  });
  await visit(plain, `${site.url}#m=fashion-boot&seed=1&n=1&view=draw&backend=cpu`, async (page) => {
    await done(page);
    await drop(page, "saved.png", bytes);
    await until(page, () => limbeck.draw(0)?.seed === "41" && limbeck.draw(0).done);
    assert.equal(difference(await drawn(page), draw), 0);
    // Others are refused in words, and links in them are followed no further than any link.
    const bare = Buffer.concat([bytes.subarray(0, 33), bytes.subarray(bytes.length - 12)]);
    await drop(page, "bare.png", bare);
    await until(page, () => !document.getElementById("problem").hidden);
    assert.match(await problem(page), /`bare.png` holds no link/);
    await drop(page, "short.png", bytes.subarray(0, 60));
    await until(page, () => document.getElementById("problem-text").textContent.includes("short.png"));
  });
});

test("the QR code holds the link, and the frame shows the pictures alone", async () => {
  const permissions = ["clipboard-read", "clipboard-write"];
  let frame;
  await visit(plain, site.url + VIEWS.draw, async (page) => {
    await done(page);
    await page.keyboard.press("l");
    const whole = `${site.url}#${await link(page)}`;
    assert.equal(await page.inputValue("#share-link"), whole);
    const { width, data } = await page.evaluate(() => {
      const c = document.getElementById("share-code");
      return { width: c.width, data: [...c.getContext("2d").getImageData(0, 0, c.width, c.width).data] };
    });
    assert.equal(jsQR(Uint8ClampedArray.from(data), width, width)?.data, whole);
    await page.screenshot({ path: join(SHOTS, "share.png") });
    frame = await page.inputValue("#share-frame");
    await page.click("#share-frame-copy");
    await until(page, () => document.getElementById("status").textContent.startsWith("Copied"));
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), frame);
  }, { permissions });
  assert.match(frame, /^<iframe src="[^"]*&amp;embed=1&amp;backend=cpu" width="100%"/);
  await visit(plain, frame.match(/src="([^"]*)"/)[1].replaceAll("&amp;", "&"), async (page) => {
    await done(page);
    assert.equal((await drawn(page)).shape[0], 9);
    for (const hidden of ["#tab-draw", "#controls", ".top", "#theme"]) assert.equal(await page.isVisible(hidden), false, hidden);
    assert.equal(await page.isVisible("#canvas-draw"), true);
    assert.match(await page.getAttribute("#leave", "href"), /#v=1&m=fashion-boot&h=[0-9a-f]{16}&seed=7&n=9&backend=cpu$/);
    await page.screenshot({ path: join(SHOTS, "embed.png") });
  });
});

test("the browser's own sheet for sharing, where there is one", async () => {
  const before = (page) => page.addInitScript(() => {
    navigator.share = async (what) => { window.shared = what; };
  });
  await visit(plain, site.url + VIEWS.draw, async (page) => {
    await done(page);
    await page.click("#open-share");
    await page.click("#share-send");
    assert.equal((await page.evaluate(() => window.shared)).url, `${site.url}#${await link(page)}`);
  }, { before });
});

test("the theme is remembered, and not fatal where nothing can be", async () => {
  const paper = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await visit(plain, site.url + VIEWS.model, async (page) => {
    await settled(page);
    const light = await paper(page);
    await page.selectOption("#theme", "dark");
    const dark = await paper(page);
    assert.notEqual(dark, light);
    await page.reload();
    await settled(page);
    assert.equal(await paper(page), dark);
    assert.equal(await page.inputValue("#theme"), "dark");
    await page.selectOption("#theme", "system");
    assert.equal(await paper(page), light);
  });
  const before = (page) => page.addInitScript(() => {
    Object.defineProperty(window, "localStorage", { get: () => { throw new DOMException("forbidden", "SecurityError"); } });
  });
  await visit(plain, site.url + VIEWS.model, async (page) => {
    await settled(page);
    await page.selectOption("#theme", "dark");
    assert.match(await page.textContent("#status"), /does not let the page remember/);
    assert.equal(await page.getAttribute("html", "data-theme"), "dark");
  }, { before });
});

test("the keyboard does it all", async () => {
  await visit(plain, site.url + VIEWS.model, async (page) => {
    await settled(page);
    await page.keyboard.press("?");
    assert.equal(await page.isVisible("#help"), true);
    await page.screenshot({ path: join(SHOTS, "help.png") });
    await page.keyboard.press("2");
    assert.equal(await page.getAttribute("#tab-model", "aria-selected"), "true", "a dialog keeps its keys");
    await page.keyboard.press("Escape");
    await page.keyboard.press("2");
    await done(page);
    assert.equal(await page.getAttribute("#tab-draw", "aria-selected"), "true");
    const seed = await page.inputValue("#seed");
    await page.keyboard.press("r");
    await done(page);
    assert.notEqual(await page.inputValue("#seed"), seed);
    await page.keyboard.press("4");
    await done(page);
    await page.keyboard.press(" ");
    await until(page, () => Number(document.getElementById("travel-place").value) > 2);
    await page.keyboard.press(" ");
    assert.equal(await page.textContent("#travel-play"), "Play");
  });
});

for (const [name, address] of Object.entries(VIEWS)) {
  test(`${name}: fits phone and desk, by day and by night, and axe finds nothing serious`, async () => {
    await visit(plain, site.url + address, async (page) => {
      await settled(page);
      for (const [device, width, height] of [["desk", 1280, 900], ["phone", 360, 740]]) {
        await page.setViewportSize({ width, height });
        for (const colorScheme of ["light", "dark"]) {
          await page.emulateMedia({ colorScheme });
          // The canvases follow the new size in the next frames; colours fade for 150 ms.
          await page.waitForTimeout(400);
          const where = `${name}, ${device}, ${colorScheme}`;
          const [content, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
          assert.ok(content <= room, `${where}: ${content} pixels wide in ${room}`);
          await page.screenshot({ path: join(SHOTS, `view-${device}-${colorScheme}-${name}.png`), fullPage: true });
          await audit(page, where);
          // The dialogs are the same in every view.
          for (const [key, id] of name === "compare" ? [["?", "help"], ["l", "share"], ["e", "large"]] : []) {
            await page.keyboard.press(key);
            await until(page, (id) => document.getElementById(id).open, id);
            const [width, left, right] = await page.evaluate((id) => {
              const box = document.getElementById(id).getBoundingClientRect();
              return [document.documentElement.scrollWidth, box.left, box.right];
            }, id);
            assert.ok(width <= room && left >= 0 && right <= room, `${where}, ${id}: from ${left} to ${right} of ${room}`);
            await page.screenshot({ path: join(SHOTS, `dialog-${device}-${colorScheme}-${id}.png`) });
            await audit(page, `${where}, dialog ${id}`);
            await page.keyboard.press("Escape");
            await until(page, (id) => !document.getElementById(id).open, id);
          }
        }
      }
    }, { bypassCSP: true });
  });
}
