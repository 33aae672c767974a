//! Which pairs of times train a flow map off its diagonal.

use super::residual::Condition;

/// One pair an image, and where between the semigroup splits it.
#[derive(Debug, PartialEq)]
pub struct Times {
    /// Earlier times.
    pub s: Vec<f64>,
    /// Later times.
    pub t: Vec<f64>,
    /// `u = gamma s + (1 - gamma) t` lies between.
    pub gamma: Vec<f64>,
}

/// Times from uniforms `a`, `b`, `c` in [0, 1), one each an image.
///
/// LSD, ESD, PSD and MeanFlow: uniform on the triangle `s < t`, the gap at most `widest`. On a grid of `grid` steps: shortcut
/// models take gaps 1, 1/2, 1/4 down to one step, each `longer` times as likely as its half, at multiples of the gap; consistency
/// models go from a grid point to 1; progressive distillation makes one step.
pub fn draw(condition: Condition, grid: u32, longer: f64, [a, b, c]: [&[f64]; 3], widest: impl Fn(usize) -> f64) -> Times {
    let pair = |i: usize| {
        let steps = f64::from(grid);
        let step = (b[i] * steps).floor() / steps;
        match condition {
            Condition::Shortcut => {
                let gap = 0.5f64.powi(halvings(a[i], grid.ilog2(), longer));
                let s = (b[i] / gap).floor() * gap;
                (s, s + gap)
            }
            Condition::Consistency => (step, 1.0),
            Condition::Progressive => (step, (step + 1.0 / steps).min(1.0)),
            _ => {
                let t = a[i].max(b[i]);
                (a[i].min(b[i]).max(t - widest(i)), t)
            }
        }
    };
    let (s, t) = (0..a.len()).map(pair).unzip();
    let gamma = match condition {
        Condition::PsdU => c.to_vec(),
        _ => vec![0.5; a.len()],
    };
    Times { s, t, gamma }
}

/// How often a gap of 1 is halved, 0 to `most`, each number `longer` times as likely as the next, from a uniform.
fn halvings(uniform: f64, most: u32, longer: f64) -> i32 {
    let likely = |k: u32| longer.powi(-(k as i32));
    let all: f64 = (0..=most).map(likely).sum();
    let mut left = uniform * all;
    for k in 0..most {
        left -= likely(k);
        if left < 0.0 {
            return k as i32;
        }
    }
    most as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::uniform;
    use limbeck_shared::rng::Stream;

    fn times(condition: Condition, grid: u32, widest: f64) -> Times {
        leaning(condition, grid, 1.0, widest)
    }

    fn leaning(condition: Condition, grid: u32, longer: f64, widest: f64) -> Times {
        let u = [20, 21, 22].map(|i| uniform(4, &(0..20_000), Stream::Other(i)));
        draw(condition, grid, longer, [&u[0], &u[1], &u[2]], |_| widest)
    }

    /// Each gap three times as often as its half: 27, 9, 3 and 1 of 40.
    #[test]
    fn longer_jumps_come_more_often() {
        let Times { s, t, .. } = leaning(Condition::Shortcut, 8, 3.0, 1.0);
        for (gap, share) in [(1.0, 0.675), (0.5, 0.225), (0.25, 0.075), (0.125, 0.025)] {
            let found = s.iter().zip(&t).filter(|(s, t)| (*t - *s - gap).abs() < 1e-12).count() as f64 / 20_000.0;
            assert!((found - share).abs() < 0.0135, "gap {gap}: {found}, not {share}");
        }
    }

    fn mean(v: impl ExactSizeIterator<Item = f64>) -> f64 {
        let n = v.len() as f64;
        v.sum::<f64>() / n
    }

    /// C1.7: `E s = 1/3`, `E t = 2/3`, `P(t - s > 1/2) = 1/4`; each within four standard errors of 20,000 draws.
    #[test]
    fn the_triangle_is_covered_evenly() {
        let Times { s, t, gamma } = times(Condition::PsdU, 8, 1.0);
        assert!(s.iter().zip(&t).all(|(s, t)| 0.0 <= *s && s <= t && *t < 1.0));
        let (es, et) = (mean(s.iter().copied()), mean(t.iter().copied()));
        let wide = mean(s.iter().zip(&t).map(|(s, t)| f64::from(u8::from(t - s > 0.5))).collect::<Vec<_>>().into_iter());
        assert!((es - 1.0 / 3.0).abs() < 0.007 && (et - 2.0 / 3.0).abs() < 0.007, "{es} {et}");
        assert!((wide - 0.25).abs() < 0.0125, "{wide}");
        assert!((mean(gamma.iter().copied()) - 0.5).abs() < 0.0085);
        let narrow = times(Condition::Lsd, 8, 0.1);
        assert!(narrow.s.iter().zip(&narrow.t).all(|(s, t)| t - s <= 0.1 + 1e-12));
        assert!(narrow.gamma.iter().all(|&g| g == 0.5));
    }

    #[test]
    fn grids_meet_every_step_and_nothing_between() {
        let on = |v: f64, gap: f64| (v / gap - (v / gap).round()).abs() < 1e-12;
        let shortcut = times(Condition::Shortcut, 8, 1.0);
        for gap in [1.0, 0.5, 0.25, 0.125] {
            let of_gap: Vec<_> = shortcut.s.iter().zip(&shortcut.t).filter(|(s, t)| (*t - *s - gap).abs() < 1e-12).collect();
            assert!((of_gap.len() as f64 / 20_000.0 - 0.25).abs() < 0.0125, "gap {gap}: {}", of_gap.len());
            assert!(of_gap.iter().all(|(s, t)| on(**s, gap) && **t <= 1.0));
        }
        let consistency = times(Condition::Consistency, 8, 1.0);
        assert!(consistency.t.iter().all(|&t| t == 1.0) && consistency.s.iter().all(|&s| s < 1.0 && on(s, 0.125)));
        let progressive = times(Condition::Progressive, 8, 1.0);
        assert!(progressive.s.iter().zip(&progressive.t).all(|(s, t)| on(*s, 0.125) && (t - s - 0.125).abs() < 1e-12));
        for k in 0..8 {
            let from = f64::from(k) / 8.0;
            assert!(progressive.s.contains(&from) && consistency.s.contains(&from));
        }
    }
}
