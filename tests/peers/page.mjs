// Times shipped models in the page, one beside the other, in turn: each model's network call and whole image, for 1 and 16 images.
// The page must have been built (scripts/test.sh or trunk build --release) and nothing else should run.
//
//   node tests/peers/page.mjs ROUNDS BROWSER-ENGINE MODEL[:STEPS]...
//   node tests/peers/page.mjs 2 chromium-webgpu fashion-teacher fashion-routed
//
// BROWSER is chromium or firefox, ENGINE webgpu or cpu. Prints the best median over the rounds in ms, and its ratio to the first
// model's. WebGPU runs on a software adapter here; on a card ratios differ.

import assert from "node:assert/strict";
import { serve } from "../../scripts/serve.mjs";
import { DIST, launch, settled, until, visit, visitFirefox } from "../e2e/harness.mjs";

const [rounds, where = "", ...models] = process.argv.slice(2);
const [name, engine] = where.split("-");
assert.ok(Number(rounds) > 0 && ["chromium", "firefox"].includes(name) && ["webgpu", "cpu"].includes(engine) && models.length > 0,
  `found ${process.argv.slice(2).join(" ")}, expected ROUNDS chromium-webgpu|chromium-cpu|firefox-webgpu|firefox-cpu MODEL...`);

/** The medians of one model, in ms, by what was timed. */
async function times(page) {
  await settled(page);
  await page.click("#bench-start");
  await until(page, () => limbeck.bench().length > 0 && limbeck.bench().every((row) => row.median !== null || row.error !== null));
  const rows = await page.evaluate(() => limbeck.bench());
  for (const row of rows) {
    assert.equal(row.error, null);
    assert.equal(row.engine, engine === "cpu" ? "CPU" : "WebGPU");
  }
  return rows.map((row) => [`${row.what}, ${row.images} ${row.images === 1 ? "image" : "images"}`, row.median]);
}

const site = await serve(DIST);
const browser = name === "chromium" ? await launch({ webgpu: engine === "webgpu" }) : null;
const best = new Map(models.map((model) => [model, new Map()]));
try {
  for (let round = 0; round < Number(rounds); round++) {
    for (const model of models) {
      const [id, steps] = model.split(":");
      const address = `${site.url}#m=${id}${steps ? `&steps=${steps}` : ""}&view=bench&backend=${engine}`;
      const take = async (page) => {
        for (const [what, ms] of await times(page)) best.get(model).set(what, Math.min(ms, best.get(model).get(what) ?? Infinity));
      };
      await (browser ? visit(browser, address, take) : visitFirefox({ webgpu: engine === "webgpu" }, address, take));
    }
  }
} finally {
  await browser?.close();
  await site.close();
}
console.log(`| ${where} | ${models.join(" | ")} |\n|---|${models.map(() => "---|").join("")}`);
const lines = models.map((model) => [...best.get(model)]);
lines[0].forEach(([what, first], i) => {
  const cells = lines.map((line) => `${line[i][1].toFixed(1)} (${(line[i][1] / first).toFixed(2)})`);
  console.log(`| ${what} | ${cells.join(" | ")} |`);
});
