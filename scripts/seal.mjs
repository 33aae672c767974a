#!/usr/bin/env node
// The last step of building the page, run by trunk (Trunk.toml): names boot.js, worker.js and theme.js by their contents, as trunk names the
// other files, and writes the service worker with the list of all files and their SHA-256.
//
//   node scripts/seal.mjs [DIR]        the folder that trunk is building, unless given

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const dir = process.argv[2] ?? process.env.TRUNK_STAGING_DIR;
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

function fail(message) {
  console.error(`seal: ${message}`);
  process.exit(1);
}

if (!dir) fail("no folder: expected an argument, or TRUNK_STAGING_DIR from trunk");

/** Renames `name.js` to `name-HASH.js` and gives the new name. */
function seal(name) {
  const path = join(dir, `${name}.js`);
  const sealed = `${name}-${sha256(readFileSync(path)).slice(0, 16)}.js`;
  renameSync(path, join(dir, sealed));
  return sealed;
}

const index = join(dir, "index.html");
let page = readFileSync(index, "utf8");

/** Replaces what the page has once. */
function replace(tag, by) {
  if (page.split(tag).length !== 2) fail(`${index}: expected ${tag} once`);
  page = page.replace(tag, by);
}

replace('src="theme.js"', `src="${seal("theme")}"`);
replace('src="./boot.js"', `src="./${seal("boot")}" data-worker="./${seal("worker")}"`);
writeFileSync(index, page);

const names = readdirSync(dir).filter((name) => name !== "sw.js" && statSync(join(dir, name)).isFile()).sort();
const files = names.map((name) => [name, sha256(readFileSync(join(dir, name)))]);
const version = sha256(JSON.stringify(files)).slice(0, 16);
const head = `const VERSION = ${JSON.stringify(version)};\nconst FILES = ${JSON.stringify(files, null, 2)};\n\n`;
writeFileSync(join(dir, "sw.js"), head + readFileSync("web/sw.js", "utf8"));
console.log(`seal: build ${version}, ${files.length} files`);
