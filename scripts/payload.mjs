#!/usr/bin/env node
// Measures what a visitor downloads before the first model: every file of the built page except models/, as brotli sends it.
//
//   node scripts/payload.mjs [DIR] [LIMIT]     `dist` and 700 (kilobytes of 1000 bytes) unless given; exit code 1 above the limit

import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";

const [dir = "dist", limit = "700"] = process.argv.slice(2);
const files = readdirSync(dir).filter((name) => statSync(join(dir, name)).isFile());
const wasm = files.filter((name) => name.endsWith(".wasm"));
if (wasm.length !== 1) {
  console.error(`payload: ${dir}: found ${wasm.length} .wasm files, expected 1`);
  process.exit(1);
}
const params = { [constants.BROTLI_PARAM_QUALITY]: 9 };
let total = 0;
for (const name of files.sort()) {
  const bytes = readFileSync(join(dir, name));
  const small = brotliCompressSync(bytes, { params }).length;
  total += small;
  console.log(`${(bytes.length / 1e3).toFixed(1).padStart(9)} kB ${(small / 1e3).toFixed(1).padStart(8)} kB brotli  ${name}`);
}
console.log(`${(total / 1e3).toFixed(1)} kB brotli in all, at most ${limit}`);
if (total > Number(limit) * 1e3) {
  console.error(`payload: the page has grown beyond ${limit} kB`);
  process.exit(1);
}
