// The table of scripts/study-continual.sh, in Markdown: each arm after its last task, mean and spread over the seeds that are done.
//
//   node scripts/continual-table.mjs DIR TASKS "SEEDS" "ARMS" [--curve]
//
// With --curve: the mean fd after each task of one arm, as points for scripts/curve.mjs.

import { existsSync, readFileSync } from "node:fs";

const [dir, tasks, seeds, arms, curve] = process.argv.slice(2);
const TASKS = Number(tasks);
const report = (arm, seed, task) => {
  const file = `${dir}/${arm}-${seed}/task-${task}.json`;
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : undefined;
};
const done = (arm) => seeds.split(/\s+/).filter((seed) => report(arm, seed, TASKS));
const mean = (v) => v.reduce((a, b) => a + b, 0) / v.length;
// Of a sample; one run has none.
const spread = (v) => Math.sqrt(v.reduce((sum, x) => sum + (x - mean(v)) ** 2, 0) / (v.length - 1));
const cell = (v, digits) => (v.length > 1 ? `${mean(v).toFixed(digits)} ± ${spread(v).toFixed(digits)}` : v[0].toFixed(digits));

if (curve) {
  const ready = done(arms);
  const points = Array.from({ length: ready.length > 0 ? TASKS : 0 }, (_, i) => {
    const fd = ready.map((seed) => report(arms, seed, i + 1).evaluation.fd);
    return `${i + 1}:${mean(fd)}`;
  });
  console.log(points.join(","));
} else {
  console.log("| arm | seeds | fd | KL divergence | class distance | spread of features | classifier |");
  console.log("|---|---|---|---|---|---|---|");
  for (const arm of arms.split(/\s+/)) {
    const ready = done(arm).map((seed) => report(arm, seed, TASKS));
    if (ready.length === 0) continue;
    const of = (key) => ready.map((r) => r.evaluation[key]);
    const cells = [arm, ready.length, cell(of("fd"), 3), cell(of("class_kld"), 3), cell(of("class_distance"), 3), cell(of("spread"), 2)];
    const named = ready.map((r) => r.classifier_accuracy).filter((v) => v !== undefined).map((v) => 100 * v);
    cells.push(named.length > 0 ? `${cell(named, 1)} %` : "");
    console.log(`| ${cells.join(" | ")} |`);
  }
}
