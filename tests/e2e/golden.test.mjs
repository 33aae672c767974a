// The golden networks on WebGPU in Chromium (Tint) and in Firefox (naga). Run by scripts/test.sh, which has built what it serves:
//
//   cargo build --profile wasm-release --target wasm32-unknown-unknown -p limbeck-shared --features wgpu-web --example golden
//   wasm-bindgen --target web --no-typescript --out-dir target/golden target/wasm32-unknown-unknown/wasm-release/examples/golden.wasm
//   node --test tests/e2e/golden.test.mjs

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { serve } from "../../scripts/serve.mjs";
import { ROOT, launch, visit, visitFirefox } from "./harness.mjs";

const dir = join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "golden");
let site;

before(async () => {
  writeFileSync(join(dir, "index.html"), "<!doctype html><title>golden networks</title><link rel=icon href=data:,>");
  site = await serve(dir);
});
after(() => site?.close());

const ask = (page, narrow) =>
  page.evaluate(async (narrow) => {
    const engine = await import("./golden.js");
    await engine.default();
    return engine.golden(narrow);
  }, narrow);

function check(lines) {
  console.log(lines);
  const names = lines.split("\n").map((line) => line.split(" ")[0]);
  assert.deepEqual(names, ["plain", "cifar", "scale_shift", "plain", "cifar", "scale_shift"]);
}

test("golden networks in Chromium", async () => {
  const browser = await launch({ webgpu: true });
  try {
    await visit(browser, site.url, async (page) => {
      for (const narrow of [true, false]) check(await ask(page, narrow));
    });
  } finally {
    await browser.close();
  }
});

test("golden networks in Firefox", async () => {
  await visitFirefox({ webgpu: true }, site.url, async (page) => {
    for (const narrow of [true, false]) check(await ask(page, narrow));
  });
});
