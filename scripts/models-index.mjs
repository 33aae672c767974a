#!/usr/bin/env node
// Writes models/index.json, the page's list of shipped models, from the bundles that lie beside it.
//
//   node scripts/models-index.mjs [--mine] [DIR]        DIR is `models` unless given
//
// Bundles named my-*.safetensors are the visitor's own: git ignores them, and they are listed with --mine only.
//
// Each entry: id (the file's name without ending, what links carry), file, title, line (one line about it), bytes, sha256, and for
// the page's pairing of students and teachers: kind (`classifier` for models that do not draw), method, teacher (its SHA-256).
// A title or line written by hand into index.json stays as long as its bundle's id does.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const ENDING = ".safetensors";
const args = process.argv.slice(2);
const mine = args.includes("--mine");
const dir = args.find((a) => !a.startsWith("--")) ?? "models";
const index = join(dir, "index.json");

function fail(message) {
  console.error(`models-index: ${message}`);
  process.exit(1);
}

/** The safetensors header: tensors by name, and `__metadata__`. */
function header(path, bytes) {
  const length = bytes.length >= 8 ? Number(bytes.readBigUInt64LE(0)) : Infinity;
  if (length > bytes.length - 8) fail(`${path}: not a safetensors file`);
  try {
    return JSON.parse(bytes.toString("utf8", 8, 8 + length));
  } catch (error) {
    fail(`${path}: its header is not JSON: ${error.message}`);
  }
}

function compact(n) {
  return n >= 1e6 ? `${(n / 1e6).toFixed(2)} M` : n >= 1e3 ? `${(n / 1e3).toFixed(1)} k` : `${n}`;
}

function describe(meta, params) {
  const { method } = meta.training;
  const [first] = meta.samplers;
  const steps = first ? `, ${first.default_steps} ${first.default_steps === 1 ? "step" : "steps"}` : "";
  const size = `${meta.image.width} x ${meta.image.height}`;
  return `${method.toUpperCase()}${steps}, ${compact(params)} parameters, ${size} pixels`;
}

function entry(file, kept) {
  const path = join(dir, file);
  const bytes = readFileSync(path);
  const { __metadata__: metadata, ...tensors } = header(path, bytes);
  if (!metadata?.limbeck) fail(`${path}: metadata \`limbeck\` is missing: not a limbeck bundle`);
  const meta = JSON.parse(metadata.limbeck);
  const id = file.slice(0, -ENDING.length);
  if (!/^[a-z0-9-]{1,64}$/.test(id)) fail(`${path}: the name is a link's model id, expected a-z, 0-9 and - only, at most 64`);
  const params = Object.values(tensors).reduce((sum, t) => sum + t.shape.reduce((a, b) => a * b, 1), 0);
  return {
    id,
    file,
    title: kept.get(id)?.title ?? meta.name,
    line: kept.get(id)?.line ?? describe(meta, params),
    bytes: bytes.length,
    sha256: createHash("sha256").update(bytes).digest("hex"),
    kind: meta.networks.every((n) => n._class_name === "Classifier") ? "classifier" : "diffusion",
    method: meta.training.method,
    teacher: meta.training.teacher_sha256 ?? null,
  };
}

if (!existsSync(dir)) fail(`${dir}: no such directory`);
const before = existsSync(index) ? JSON.parse(readFileSync(index, "utf8")).models : [];
const kept = new Map(before.map((m) => [m.id, m]));
const listed = (f) => f.endsWith(ENDING) && (mine || !f.startsWith("my-"));
const models = readdirSync(dir).filter(listed).sort().map((f) => entry(f, kept));
writeFileSync(`${index}.tmp`, `${JSON.stringify({ version: 1, models }, null, 2)}\n`);
renameSync(`${index}.tmp`, index);
console.log(`${index}: ${models.length} models`);
