// Draws curves on log axes as SVG.
//
//   node scripts/curve.mjs OUT.svg X-LABEL Y-LABEL NAME=X:Y,X:Y,... [NAME=X:Y,...]... [--level NAME=Y]...
//
// A level is a dashed line across. All numbers are above 0.

import { writeFileSync } from "node:fs";

const fail = (words) => {
  console.error(words);
  process.exit(1);
};
const [out, xLabel, yLabel, ...rest] = process.argv.slice(2);
const curves = [];
const levels = [];
for (let i = 0; i < rest.length; i++) {
  const level = rest[i] === "--level";
  const [name, values] = (level ? rest[++i] : rest[i])?.split("=") ?? [];
  const points = values?.split(",").map((p) => p.split(":").map(Number));
  if (!name || !points?.every((p) => p.length === (level ? 1 : 2) && p.every((v) => v > 0))) {
    fail(`found ${rest[i]}, expected NAME=${level ? "Y" : "X:Y,X:Y,..."} with numbers above 0`);
  }
  if (level) levels.push({ name, y: points[0][0] });
  else curves.push({ name, points });
}
if (curves.length === 0) fail("usage: curve.mjs OUT.svg X-LABEL Y-LABEL NAME=X:Y,... [--level NAME=Y]");

const [width, height] = [560, 340];
const [left, right, top, bottom] = [62, 130, 16, 46];
const xs = curves.flatMap((c) => c.points.map((p) => p[0]));
const ys = [...curves.flatMap((c) => c.points.map((p) => p[1])), ...levels.map((l) => l.y)];

/** A log axis from the data's least to its largest, a little wider, onto pixels `a` to `b`. */
function axis(values, a, b) {
  const [low, high] = [Math.log10(Math.min(...values)) - 0.04, Math.log10(Math.max(...values)) + 0.04];
  const at = (v) => a + ((Math.log10(v) - low) / (high - low)) * (b - a);
  const ticks = [];
  for (let e = Math.floor(low); e <= high; e++) {
    for (const m of [1, 2, 5]) {
      const v = m * 10 ** e;
      if (Math.log10(v) >= low && Math.log10(v) <= high) ticks.push(v);
    }
  }
  return { at, ticks };
}
const x = axis(xs, left, width - right);
const y = axis(ys, height - bottom, top);
const short = (v) => (v >= 1e6 ? `${+(v / 1e6).toPrecision(3)} M` : v >= 1e3 ? `${+(v / 1e3).toPrecision(3)} k` : `${+v.toPrecision(3)}`);
const colours = ["#b4531b", "#2f6f8f", "#5b7f3a", "#7a4f9a", "#8a6d1f", "#444"];

/** Names beside the ends of their lines, moved apart where they would overlap. */
function places(wanted) {
  const order = wanted.map((y, i) => ({ y, i })).sort((a, b) => a.y - b.y);
  for (let k = 1; k < order.length; k++) order[k].y = Math.max(order[k].y, order[k - 1].y + 14);
  const result = [];
  for (const o of order) result[o.i] = o.y;
  return result;
}
const ends = [...curves.map((c) => y.at(c.points.at(-1)[1])), ...levels.map((l) => y.at(l.y))];
const names = places(ends);
const lines = [
  ...x.ticks.map((v) => `<path d="M${x.at(v).toFixed(1)} ${top}V${height - bottom}" stroke="#e6dfd6"/><text x="${x.at(v).toFixed(1)}" y="${height - bottom + 16}" text-anchor="middle">${short(v)}</text>`),
  ...y.ticks.map((v) => `<path d="M${left} ${y.at(v).toFixed(1)}H${width - right}" stroke="#e6dfd6"/><text x="${left - 6}" y="${(y.at(v) + 4).toFixed(1)}" text-anchor="end">${short(v)}</text>`),
  ...curves.map(({ name, points }, i) => {
    const path = points.map((p) => `${x.at(p[0]).toFixed(1)} ${y.at(p[1]).toFixed(1)}`).join("L");
    const dots = points.map((p) => `<circle cx="${x.at(p[0]).toFixed(1)}" cy="${y.at(p[1]).toFixed(1)}" r="2.5" fill="${colours[i % colours.length]}"/>`).join("");
    return `<path d="M${path}" fill="none" stroke="${colours[i % colours.length]}" stroke-width="1.8"/>${dots}<text x="${width - right + 8}" y="${(names[i] + 4).toFixed(1)}" fill="${colours[i % colours.length]}">${name}</text>`;
  }),
  ...levels.map(({ name, y: v }, i) => `<path d="M${left} ${y.at(v).toFixed(1)}H${width - right}" stroke="#6b6259" stroke-dasharray="5 4"/><text x="${width - right + 8}" y="${(names[curves.length + i] + 4).toFixed(1)}">${name}</text>`),
];
writeFileSync(
  out,
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="sans-serif" font-size="11" fill="#3c352f">
<rect width="100%" height="100%" fill="#fffdfa"/>
${lines.join("\n")}
<text x="${(left + width - right) / 2}" y="${height - 10}" text-anchor="middle">${xLabel}</text>
<text transform="translate(14 ${(top + height - bottom) / 2}) rotate(-90)" text-anchor="middle">${yLabel}</text>
</svg>
`,
);
