// What the page's tests share: browsers, opening links, the native interpreter, and reading what comes out of both.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { inflateSync } from "node:zlib";
import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
export const DIST = join(ROOT, "dist");
const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, "target");
/** The command line. */
export const LIMBECK = join(TARGET, "release/limbeck");
/** Where screenshots go. */
export const SHOTS = join(TARGET, "e2e");

/** Longest wait for pictures, ms: a software adapter on a busy machine of two cores is slow. */
const PATIENCE = 240_000;

/** The path of a shipped model; tests fail where it is absent. */
export function shipped(id) {
  const path = join(ROOT, "models", `${id}.safetensors`);
  assert.ok(existsSync(path), `${path} is missing: the tests draw with the shipped models`);
  return path;
}

/** A browser's program: what the environment variable names, a path or a name on PATH, or else `usual`. */
function program(variable, usual) {
  const name = process.env[variable] || usual;
  if (name.includes("/")) return name;
  const found = (process.env.PATH ?? "").split(":").map((dir) => join(dir, name)).find(existsSync);
  assert.ok(found, `${name} is not on PATH; the environment variable ${variable} may name another one`);
  return found;
}

/** Starts a browser; with `webgpu`, on the software adapter that chromium carries with it. */
export function launch({ webgpu }) {
  const quiet = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  const gpu = webgpu ? ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"] : ["--disable-features=WebGPU"];
  return chromium.launch({ executablePath: program("CHROMIUM", "chromium"), headless: true, args: ["--headless=new", ...quiet, ...gpu] });
}

/** The description of Mesa's Vulkan on the CPU, by which Firefox has WebGPU without a card. */
function lavapipe() {
  const dir = "/usr/share/vulkan/icd.d";
  const name = existsSync(dir) && readdirSync(dir).find((file) => /^lvp_icd.*\.json$/.test(file));
  assert.ok(name, `${dir} holds no lvp_icd*.json: Debian's mesa-vulkan-drivers brings it`);
  return join(dir, name);
}

/**
 * Starts Firefox, and hands `use` a page with those methods of playwright's that the helpers here need. With `webgpu`, WebGPU runs on
 * lavapipe; without, there is none. The page must not have thrown or logged an error.
 */
export async function visitFirefox({ webgpu }, address, use) {
  const extraPrefsFirefox = { "dom.webgpu.enabled": webgpu, "gfx.webgpu.ignore-blocklist": webgpu, "dom.webgpu.workers.enabled": webgpu };
  const env = { ...process.env, ...(webgpu ? { VK_DRIVER_FILES: lavapipe() } : {}) };
  const executablePath = program("FIREFOX", "firefox-esr");
  const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true, env, extraPrefsFirefox, protocolTimeout: PATIENCE });
  const faults = [];
  try {
    const page = await browser.newPage();
    page.on("pageerror", (e) => faults.push(`uncaught: ${e.message}`));
    page.on("console", (m) => { if (m.type() === "error") faults.push(`console: ${m.text()}`); });
    await page.goto(address);
    await use({
      goto: (address) => page.goto(address),
      evaluate: (f, argument) => page.evaluate(f, argument),
      waitForFunction: (f, argument, options) => page.waitForFunction(f, options, argument),
      textContent: (selector) => page.$eval(selector, (e) => e.textContent),
      selectOption: (selector, value) => page.select(selector, value),
      click: (selector) => page.click(selector),
      reload: () => page.reload(),
      screenshot: (options) => page.screenshot(options),
    });
  } finally {
    await browser.close();
  }
  assert.deepEqual(faults, []);
}

/**
 * Opens the page in a fresh context, hands it to `use`, and closes it. Whatever else `use` checks, the page must not have thrown or
 * logged an error; that a file could not be loaded is the browser's own note, which cases with broken inputs expect.
 */
export async function visit(browser, address, use, { before, ...options } = {}) {
  // Routes do not see what a service worker fetches; delivery.test.mjs allows it.
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true, serviceWorkers: "block", ...options });
  const faults = [];
  try {
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    page.on("pageerror", (e) => faults.push(`uncaught: ${e.message}`));
    page.on("crash", () => faults.push("the page crashed"));
    page.on("console", (m) => {
      if (m.type() === "error" && !m.text().startsWith("Failed to load resource")) faults.push(`console: ${m.text()}`);
    });
    await before?.(page);
    await page.goto(address);
    await use(page, context);
  } finally {
    await context.close();
  }
  assert.deepEqual(faults, []);
}

/** What is said on the page about things that went wrong; empty if nothing is. */
export function problem(page) {
  return page.evaluate(() => (document.getElementById("problem").hidden ? "" : document.getElementById("problem-text").textContent));
}

/** Waits until `condition` (run in the page) holds; a failure tells what the page says instead. */
export async function until(page, condition, argument) {
  try {
    await page.waitForFunction(condition, argument, { timeout: PATIENCE, polling: 50 });
  } catch (error) {
    const state = await page.evaluate(() => document.documentElement.dataset.state).catch(() => "gone");
    const words = await problem(page).catch(() => "");
    throw new Error(`${error.message.split("\n")[0]} while waiting for ${condition}; the page is in state "${state}" and says "${words}"`);
  }
}

/** As `until`, for a condition that has to be waited for itself. */
export async function eventually(page, condition, argument) {
  const end = Date.now() + PATIENCE;
  while (!(await page.evaluate(condition, argument))) {
    if (Date.now() > end) throw new Error(`waited ${PATIENCE} ms in vain for ${condition}`);
    await new Promise((soon) => setTimeout(soon, 50));
  }
}

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** Fails with what axe-core calls serious or critical. */
export async function audit(page, where) {
  if (!(await page.evaluate(() => "axe" in window))) await page.addScriptTag({ path: AXE });
  const { violations, passes } = await page.evaluate(() => axe.run());
  assert.ok(passes.length > 10, "axe has looked");
  const grave = violations.filter((v) => ["serious", "critical"].includes(v.impact));
  const words = grave.map((v) => `${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => n.html).join(" ")}`);
  assert.deepEqual(words, [], where);
}

/** The view has drawn everything, or, where it draws nothing, shows what it has. */
export const settled = (page) => until(page, () => ["done", "ready"].includes(document.documentElement.dataset.state));

export const done = (page) => until(page, () => document.documentElement.dataset.state === "done");
export const failed = (page) => until(page, () => document.documentElement.dataset.state === "error");

/** Pixels of a side's last draw as they are shown, within [-1, 1], and what it was: `{ pixels, shape, labels, seed, ... }`. */
export async function drawn(page, side = 0) {
  const draw = await page.evaluate((s) => ({ ...limbeck.draw(s), pixels: Array.from(limbeck.pixels(s) ?? []) }), side);
  // A network may go slightly beyond black and white; canvas and command line cut that off. What is not a number stays so.
  draw.pixels = draw.pixels.map((v) => Math.min(1, Math.max(-1, v)));
  assert.equal(draw.pixels.length, draw.shape.reduce((a, b) => a * b, 1));
  return draw;
}

/** Draws with the native CPU interpreter; what is not given takes the model's default. */
export function native(id, { seed, count, steps, guidance, label }) {
  assert.ok(existsSync(LIMBECK), `${LIMBECK} is missing: \`cargo build --release\` makes it`);
  const dir = mkdtempSync(join(tmpdir(), "limbeck-e2e-"));
  try {
    const out = join(dir, "x.npy");
    const wishes = Object.entries({ seed, count, steps, guidance, label }).filter(([, v]) => v !== undefined);
    const options = wishes.flatMap(([k, v]) => [`--${k}`, String(v)]);
    execFileSync(LIMBECK, ["sample", "--model", shipped(id), ...options, "--out", out], { stdio: ["ignore", "ignore", "inherit"] });
    return npy(readFileSync(out));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** An .npy file of f32 in C order. */
function npy(bytes) {
  assert.equal(bytes.toString("latin1", 1, 6), "NUMPY");
  const length = bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, 10 + length);
  assert.match(header, /'descr': '<f4', 'fortran_order': False/);
  const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((s) => s.trim()).map(Number);
  const body = bytes.subarray(10 + length);
  const pixels = Array.from({ length: body.length / 4 }, (_, i) => body.readFloatLE(4 * i));
  assert.equal(pixels.length, shape.reduce((a, b) => a * b, 1));
  return { shape, pixels };
}

/** Largest difference of two draws of the same shape. Pixels that are not numbers, or all alike, are no draw. */
export function difference(a, b) {
  assert.deepEqual(a.shape, b.shape);
  for (const { pixels } of [a, b]) {
    assert.ok(pixels.every(Number.isFinite), "pixels that are not finite");
    assert.ok(pixels.some((v) => Math.abs(v - pixels[0]) > 0.1), "a picture of one colour");
  }
  return a.pixels.reduce((worst, v, i) => Math.max(worst, Math.abs(v - b.pixels[i])), 0);
}

/** Checks a PNG of 8-bit red, green, blue, alpha and gives its size, its samples' distinct values and its texts. */
export function png(bytes) {
  assert.equal(bytes.toString("latin1", 0, 8), "\x89PNG\r\n\x1a\n");
  const chunks = [];
  for (let at = 8; at < bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    chunks.push({ kind: bytes.toString("latin1", at + 4, at + 8), data: bytes.subarray(at + 8, at + 8 + bytes.readUInt32BE(at)) });
  }
  assert.equal(chunks[0].kind, "IHDR");
  assert.equal(chunks.at(-1).kind, "IEND");
  const [width, height] = [chunks[0].data.readUInt32BE(0), chunks[0].data.readUInt32BE(4)];
  assert.deepEqual([...chunks[0].data.subarray(8, 10)], [8, 6], "8 bits, red, green, blue and alpha");
  const rows = inflateSync(Buffer.concat(chunks.filter((c) => c.kind === "IDAT").map((c) => c.data)));
  assert.equal(rows.length, height * (1 + 4 * width));
  const texts = chunks.filter((c) => c.kind === "tEXt").map((c) => c.data.toString("latin1").split("\0"));
  return { width, height, values: new Set(rows).size, texts: Object.fromEntries(texts) };
}

/** One link for each view, quick to draw on a CPU. */
export const VIEWS = {
  compare: "#m=fashion-boot&m2=fashion-sid&steps2=4&m3=fashion-sid&steps3=1&seed=7&n=4&view=compare&backend=cpu",
  draw: "#m=fashion-boot&seed=7&n=9&view=draw&backend=cpu",
  path: "#m=fashion-sid&m2=fashion-teacher&steps2=8&seed=7&i=3&t=600&view=path&backend=cpu",
  travel: "#m=fashion-boot&seed=7&seed2=99&c=7&c2=9&t=500&view=travel&backend=cpu",
  model: "#m=fashion-sid&view=model&backend=cpu",
  bench: "#m=fashion-sid&view=bench&backend=cpu",
};

/** What the page's link would show. */
export const link = (page) => page.evaluate(() => limbeck.link());
