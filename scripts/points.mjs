// Measures and draws points of the checkerboard that `limbeck sample --out FILE.npy` wrote.
//
//   node scripts/points.mjs kl FILE.npy                            KL(data || points) in nats
//   node scripts/points.mjs plot OUT.svg COLUMNS TITLE=FILE.npy... densities side by side
//
// The divergence is between histograms of 32 x 32 squares on [-1, 1]^2 and one bin for everything outside, the data's in closed
// form, half a count added to every bin of the points. With 200,000 points its bias is about 0.001.

import { readFileSync, writeFileSync } from "node:fs";
import { deflateSync } from "node:zlib";

const fail = (words) => {
  console.error(words);
  process.exit(1);
};

/** Points `[[x, y], ...]` of an .npy file of f32 `[N, 2, 1, 1]`. */
function read(path) {
  const bytes = readFileSync(path);
  const header = bytes.toString("latin1", 10, 10 + bytes.readUInt16LE(8));
  if (!/'descr': '<f4'.*'shape': \(\d+, 2, 1, 1\)/.test(header)) fail(`${path}: found ${header.trim()}, expected f32 points [N, 2, 1, 1]`);
  const body = bytes.subarray(10 + bytes.readUInt16LE(8));
  return Array.from({ length: body.length / 8 }, (_, i) => [body.readFloatLE(8 * i), body.readFloatLE(8 * i + 4)]);
}

/** Counts in `bins` x `bins` squares on [-edge, edge]^2, and outside. */
function histogram(points, bins, edge) {
  const counts = new Float64Array(bins * bins);
  let outside = 0;
  for (const point of points) {
    const [column, row] = point.map((v) => Math.floor(((v + edge) / (2 * edge)) * bins));
    if (column >= 0 && column < bins && row >= 0 && row < bins) counts[row * bins + column] += 1;
    else outside += 1;
  }
  return { counts, outside };
}

function divergence(points) {
  const bins = 32;
  const { counts } = histogram(points, bins, 1);
  const total = points.length + 0.5 * (bins * bins + 1);
  let sum = 0;
  for (let row = 0; row < bins; row++) {
    for (let column = 0; column < bins; column++) {
      // The even squares of the 4 x 4 board share the mass.
      if ((((row * 4) / bins) | 0) % 2 !== (((column * 4) / bins) | 0) % 2) continue;
      const p = 2 / (bins * bins);
      sum += p * Math.log((p * total) / (counts[row * bins + column] + 0.5));
    }
  }
  return sum;
}

/** The checksum of PNG's chunks. */
function crc32(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return (sum ^ 0xffffffff) >>> 0;
}

/** A PNG of 8-bit red, green, blue. */
function png(side, pixel) {
  const rows = Buffer.alloc(side * (1 + 3 * side));
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) rows.set(pixel(x, y), y * (1 + 3 * side) + 1 + 3 * x);
  }
  const chunk = (kind, data) => {
    const body = Buffer.concat([Buffer.from(kind, "latin1"), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, sum]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(side, 0);
  head.writeUInt32BE(side, 4);
  head.set([8, 2, 0, 0, 0], 8);
  const parts = [chunk("IHDR", head), chunk("IDAT", deflateSync(rows, { level: 9 })), chunk("IEND", Buffer.alloc(0))];
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...parts]);
}

/** The density as a picture, up the page as in a plot: paper where there is nothing, the accent where the data would be. */
function picture(points) {
  const bins = 96;
  const edge = 1.2;
  const { counts } = histogram(points, bins, edge);
  // The data's density in one square of the histogram.
  const full = (points.length * (2 * edge / bins) ** 2) / 2;
  const [paper, ink] = [[250, 247, 242], [180, 83, 27]];
  return png(bins, (x, y) => {
    const part = Math.min(1, counts[(bins - 1 - y) * bins + x] / full);
    return paper.map((p, i) => Math.round(p + (ink[i] - p) * part));
  });
}

function plot(out, columns, panels) {
  const [side, gap, top] = [132, 12, 20];
  const rows = Math.ceil(panels.length / columns);
  const [width, height] = [columns * (side + gap) + gap, rows * (side + top + gap) + gap];
  const cells = panels.map(({ title, path }, i) => {
    const [x, y] = [gap + (i % columns) * (side + gap), gap + Math.floor(i / columns) * (side + top + gap)];
    const data = picture(read(path)).toString("base64");
    return `<text x="${x}" y="${y + 12}">${title}</text>
<image x="${x}" y="${y + top}" width="${side}" height="${side}" style="image-rendering:pixelated" href="data:image/png;base64,${data}"/>`;
  });
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="sans-serif" font-size="12" fill="#3c352f">
<rect width="100%" height="100%" fill="#fffdfa"/>
${cells.join("\n")}
</svg>
`;
  writeFileSync(out, svg);
}

const [command, ...rest] = process.argv.slice(2);
if (command === "kl" && rest.length === 1) {
  console.log(divergence(read(rest[0])).toFixed(4));
} else if (command === "plot" && rest.length > 2 && Number(rest[1]) > 0) {
  const panels = rest.slice(2).map((item) => {
    const at = item.lastIndexOf("=");
    if (at < 1) fail(`found ${item}, expected TITLE=FILE.npy`);
    return { title: item.slice(0, at), path: item.slice(at + 1) };
  });
  plot(rest[0], Number(rest[1]), panels);
} else {
  fail("usage: points.mjs kl FILE.npy | points.mjs plot OUT.svg COLUMNS TITLE=FILE.npy...");
}
