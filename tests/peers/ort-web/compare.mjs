// ONNX Runtime Web and limbeck's page, in turn in the same browser, on the networks that export.py made. A line for each browser,
// provider, batch and network; `b1x4` is a draw in four steps against four calls of the peer's.
//
//   node compare.mjs DIR [ROUNDS] [BROWSER-PROVIDER...]      such as `chromium-wasm`; all four unless given; NETWORKS=student: one network
//
// Before anything is compared, the peer's answer must agree with ours on the same input, within 1e-3 of its largest value.

import assert from "node:assert/strict";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { serve } from "../../../scripts/serve.mjs";
import { DIST, launch, visit, visitFirefox } from "../../e2e/harness.mjs";

const TOLERANCE = 1e-3;
/** The networks to compare on: `NETWORKS=student` for one alone. */
const NETWORKS = (process.env.NETWORKS ?? "reference,student").split(",");
/** Longest wait for one measurement, ms. */
const PATIENCE = 3_600_000;

const [dir, rounds = "1", ...wanted] = process.argv.slice(2);
assert.ok(dir, "the folder with the networks is missing");

const page = await serve(DIST);
const networks = await serve(dir, 0, { "Access-Control-Allow-Origin": "*" });
const peer = await serve(dirname(fileURLToPath(import.meta.url)));

/** Asks again and again until there is an answer. */
async function poll(ask, what) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    assert.ok(Date.now() < end, `${what}: no answer in ${PATIENCE / 1000} s`);
    await new Promise((soon) => setTimeout(soon, 300));
  }
}

/** limbeck's rows, with what went into a call and came out of it. */
async function ours(tab, network, provider) {
  const model = encodeURIComponent(`${networks.url}${network}.safetensors`);
  const backend = provider === "wasm" ? "cpu" : "webgpu";
  await tab.goto("about:blank");
  await tab.goto(`${page.url}#m=${model}&view=bench&backend=${backend}`);
  const state = () => tab.evaluate(() => [document.documentElement.dataset.state, document.getElementById("problem-text").textContent]);
  await poll(async () => {
    const [now, words] = await state();
    assert.notEqual(now, "error", words);
    return now === "ready";
  }, `opening ${network}`);
  const engine = await tab.evaluate(() => limbeck.engine());
  assert.equal(engine.backend, backend, engine.note);
  await tab.evaluate(() => document.getElementById("bench-start").click());
  await poll(async () => (await state())[0] === "done", `limbeck, ${network}, ${provider}`);
  return tab.evaluate(() => limbeck.bench().map((row, k) => ({ ...row, data: row.call ? Array.from(limbeck.call(k)) : null })));
}

/** The peer's median on the input of one of our calls. */
async function theirs(tab, network, provider, row) {
  const values = row.data.length / 2;
  const edge = Math.sqrt(values / row.images);
  assert.ok(Number.isInteger(edge), "the networks of this comparison are square, of one channel");
  await tab.goto("about:blank");
  await tab.goto(`${peer.url}peer.html`);
  await tab.evaluate((job) => window.start(job), {
    url: `${networks.url}${network}-b${row.images}.onnx`, provider, x: row.data.slice(0, values), shape: [row.images, 1, edge, edge],
    times: row.times, labels: row.labels,
  });
  const { found, error } = await poll(() => tab.evaluate(() => window.outcome), `the peer, ${network}, ${provider}, batch ${row.images}`);
  assert.ok(found, error);
  const largest = found.y.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  const apart = found.y.reduce((worst, v, i) => Math.max(worst, Math.abs(v - row.data[values + i])), 0) / largest;
  assert.ok(apart <= TOLERANCE, `${network}, ${provider}, batch ${row.images}: the answers are ${apart} apart, at most ${TOLERANCE} wanted`);
  const ms = found.ms.sort((a, b) => a - b);
  return { ms: (ms[(ms.length - 1) >> 1] + ms[ms.length >> 1]) / 2, apart };
}

async function compare(tab, browser, provider) {
  for (const network of NETWORKS) {
    // Of each side the best round: a shared machine only ever makes a round slower.
    const best = new Map();
    const keep = (key, ms) => best.set(key, Math.min(ms, best.get(key) ?? Infinity));
    let apart = 0;
    for (let round = 0; round < Number(rounds); round++) {
      const rows = await ours(tab, network, provider);
      for (const row of rows) {
        assert.equal(row.error, null);
        keep(`ours ${row.images} ${row.calls}`, row.median);
        if (!row.call) continue;
        const found = await theirs(tab, network, provider, row);
        keep(`peer ${row.images}`, found.ms);
        apart = Math.max(apart, found.apart);
      }
    }
    for (const calls of [1, 4]) {
      for (const batch of [1, 16]) {
        assert.ok(best.has(`ours ${batch} ${calls}`), `${network} does not draw in ${calls} calls by default`);
        const [a, b] = [best.get(`ours ${batch} ${calls}`), calls * best.get(`peer ${batch}`)];
        const name = `b${batch}${calls > 1 ? `x${calls}` : ""}`;
        const round = (ms) => ms.toFixed(ms < 100 ? 1 : 0);
        console.log(`${browser} ${provider} ${name} ratio ${(a / b).toFixed(2)} (ours ${round(a)} ms, peer ${round(b)} ms) ${network}`);
      }
    }
    console.error(`${browser} ${provider} ${network}: answers at most ${apart.toExponential(1)} apart`);
  }
}

const asked = (browser, provider) => wanted.length === 0 || wanted.includes(`${browser}-${provider}`);
try {
  for (const provider of ["wasm", "webgpu"]) {
    if (asked("chromium", provider)) {
      const browser = await launch({ webgpu: true });
      try {
        await visit(browser, "about:blank", (tab) => compare(tab, "chromium", provider));
      } finally {
        await browser.close();
      }
    }
    if (asked("firefox", provider)) await visitFirefox({ webgpu: true }, "about:blank", (tab) => compare(tab, "firefox", provider));
  }
} finally {
  for (const server of [page, networks, peer]) await server.close();
}
