// The page as a site: without a network, from a sub-path, after a new deployment, and as `limbeck publish` writes it. Run by
// scripts/test.sh after the page and the command line have been built:
//
//   node --test tests/e2e/site.test.mjs

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { serve } from "../../scripts/serve.mjs";
import { DIST, LIMBECK, ROOT, difference, done, drawn, eventually, launch, native, problem, shipped, until, visit } from "./harness.mjs";

const TOLERANCE = 2e-3;
const STUDENT = "#m=fashion-boot&seed=7&n=2&view=draw&backend=cpu";

let browser, folder, expected;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "limbeck-site-"));
  expected = native("fashion-boot", { seed: 7, count: 2 });
  browser = await launch({ webgpu: false });
});

after(async () => {
  await browser?.close();
  if (folder) rmSync(folder, { recursive: true });
});

/** What the page loaded, and that a service worker keeps it. */
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
  for (const name of ["boot", "worker", "theme"]) renameSync(join(dir, files.find((f) => f.startsWith(`${name}-`))), join(dir, `${name}.js`));
  appendFileSync(join(dir, "boot.js"), `\ndocument.documentElement.dataset.mark = "${mark}";\n`);
  const index = join(dir, "index.html");
  const page = readFileSync(index, "utf8").replace(/src="\.\/boot-[0-9a-f]+\.js" data-worker="[^"]*"/, 'src="./boot.js"');
  writeFileSync(index, page.replace(/src="theme-[0-9a-f]+\.js"/, 'src="theme.js"'));
  execFileSync("node", ["scripts/seal.mjs", dir], { cwd: ROOT, stdio: ["ignore", "ignore", "inherit"] });
}

test("a new deployment replaces the old one whole", async () => {
  const dir = join(folder, "deployed");
  cpSync(DIST, dir, { recursive: true });
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
        assert.ok(difference(await drawn(page), expected) <= TOLERANCE);
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
      assert.ok(difference(await drawn(page), expected) <= TOLERANCE);
    }, { serviceWorkers: "allow" });
  } finally {
    await host?.close();
  }
});
