//! Progress on stderr: a bar on a terminal, plain lines every few seconds otherwise.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between plain lines.
const EVERY: Duration = Duration::from_secs(5);
/// Speed is averaged over about this long.
const MEMORY: f64 = 20.0;

/// Images a second, as an average that forgets.
#[derive(Debug, Default)]
struct Speed {
    last: Option<(u64, Duration)>,
    images: f64,
    seconds: f64,
}

impl Speed {
    /// `seen` images at time `at`. Sums decay, so that the first figure is already a plain average and one
    /// slow step (a snapshot, an evaluation) is forgotten after some time.
    fn update(&mut self, seen: u64, at: Duration) {
        if let Some((before, then)) = self.last {
            let seconds = at.saturating_sub(then).as_secs_f64();
            let keep = (-seconds / MEMORY).exp();
            self.images = self.images * keep + seen.saturating_sub(before) as f64;
            self.seconds = self.seconds * keep + seconds;
        }
        self.last = Some((seen, at));
    }

    fn per_second(&self) -> Option<f64> {
        (self.seconds > 0.0 && self.images > 0.0).then(|| self.images / self.seconds)
    }
}

/// Shows images seen, images a second, losses and the time left.
pub struct Progress {
    total: u64,
    began: Instant,
    speed: Speed,
    bar: Option<ProgressBar>,
    plain: Box<dyn Write + Send>,
    every: Duration,
    next_line: Duration,
    latest: String,
    pending: bool,
}

impl Progress {
    /// For a run that stands at `images_seen` of `total`. A bar if stderr is a terminal.
    pub fn new(total: u64, images_seen: u64) -> Progress {
        let mut out = Progress::lines(total, images_seen, Box::new(std::io::stderr()), EVERY);
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_position(images_seen);
            out.bar = Some(bar);
        }
        out
    }

    /// Plain lines to `to`, at most one in the time `every`.
    pub fn lines(total: u64, images_seen: u64, to: Box<dyn Write + Send>, every: Duration) -> Progress {
        let mut speed = Speed::default();
        speed.update(images_seen, Duration::ZERO);
        Progress {
            total,
            began: Instant::now(),
            speed,
            bar: None,
            plain: to,
            every,
            next_line: every,
            latest: String::new(),
            pending: false,
        }
    }

    /// Takes note of the state after a step; shows it when it is time to.
    pub fn update(&mut self, images_seen: u64, losses: &[(&str, f64)]) {
        let at = self.began.elapsed();
        self.speed.update(images_seen, at);
        self.latest = status(images_seen, self.total, self.speed.per_second(), losses);
        self.pending = true;
        if let Some(bar) = &self.bar {
            bar.set_position(images_seen);
            bar.set_message(self.latest.clone());
        } else if at >= self.next_line {
            self.print_latest();
            self.next_line = at + self.every;
        }
    }

    /// Images a second of late, if anything was measured yet.
    pub fn images_per_second(&self) -> Option<f64> {
        self.speed.per_second()
    }

    /// Prints a line above the bar, or among the plain lines.
    pub fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => self.print(text),
        }
    }

    /// Shows the last state, if it was not shown, and leaves the terminal to others.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        } else if self.pending {
            self.print_latest();
        }
        self.pending = false;
    }

    fn print_latest(&mut self) {
        let line = std::mem::take(&mut self.latest);
        self.print(&line);
        self.pending = false;
    }

    fn print(&mut self, line: &str) {
        // A reader that went away must not end a training run.
        let _ = writeln!(self.plain, "{line}").and_then(|()| self.plain.flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// One line of status.
fn status(seen: u64, total: u64, speed: Option<f64>, losses: &[(&str, f64)]) -> String {
    let percent = 100.0 * seen as f64 / total.max(1) as f64;
    let mut out = format!("{} of {} images ({percent:.1} %)", thousands(seen), thousands(total));
    if let Some(speed) = speed {
        out += &if speed < 10.0 { format!("  {speed:.2} images/s") } else { format!("  {speed:.0} images/s") };
    }
    for (name, value) in losses {
        out += &format!("  {name} {}", short(*value));
    }
    if let Some(speed) = speed.filter(|_| seen < total) {
        out += &format!("  {} left", clock((total - seen) as f64 / speed));
    }
    out
}

/// Four digits, in powers of ten only where needed.
fn short(v: f64) -> String {
    let plain = v == 0.0 || (1e-3..1e5).contains(&v.abs()) || !v.is_finite();
    if plain { format!("{v:.4}") } else { format!("{v:.3e}") }
}

/// 1234567 as 1,234,567.
fn thousands(v: u64) -> String {
    let digits = v.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// Seconds as "42 s", "3 min 05 s", "2 h 07 min" or "5 d 03 h".
fn clock(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {:02} h", s / 86_400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_status_line_says_it_all() {
        let line = status(12_800, 400_000, Some(206.45), &[("loss", 0.123_456), ("lr", 4e-4)]);
        let expected = "12,800 of 400,000 images (3.2 %)  206 images/s  loss 0.1235  lr 4.000e-4  31 min 16 s left";
        assert_eq!(line, expected);
        assert_eq!(status(0, 10, None, &[]), "0 of 10 images (0.0 %)");
        assert_eq!(status(10, 10, Some(2.5), &[]), "10 of 10 images (100.0 %)  2.50 images/s");
        assert_eq!(status(1, 2, None, &[("loss", f64::NAN)]), "1 of 2 images (50.0 %)  loss NaN");
    }

    #[test]
    fn durations_and_digits() {
        let clocks = [0.4, 59.6, 3599.0, 7620.0, 443_000.0].map(clock);
        assert_eq!(clocks, ["0 s", "1 min 00 s", "59 min 59 s", "2 h 07 min", "5 d 03 h"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn speed_is_an_average_that_forgets() {
        let seconds = Duration::from_secs_f64;
        let mut speed = Speed::default();
        speed.update(5_000, Duration::ZERO); // resumed here: these cost nothing
        assert_eq!(speed.per_second(), None);
        for k in 1..=10 {
            speed.update(5_000 + 100 * k, seconds(k as f64 * 0.5));
        }
        assert!((speed.per_second().unwrap() - 200.0).abs() < 1e-9);
        let pause = 5.0 + 30.0;
        speed.update(6_100, seconds(pause));
        assert!(speed.per_second().unwrap() < 60.0);
        for k in 1..=240 {
            speed.update(6_100 + 100 * k, seconds(pause + k as f64 * 0.5));
        }
        assert!((speed.per_second().unwrap() - 200.0).abs() < 5.0, "{:?}", speed.per_second());
    }

    #[test]
    fn lines_are_rare_but_the_last_is_always_shown() {
        let sink = Sink::default();
        let mut p = Progress::lines(100, 0, Box::new(sink.clone()), Duration::from_secs(3600));
        p.update(10, &[]);
        p.note("saved");
        p.update(20, &[("loss", 1.0)]);
        assert_eq!(sink.text(), "saved\n");
        drop(p);
        assert!(sink.text().starts_with("saved\n20 of 100 images (20.0 %)"), "{}", sink.text());
        assert_eq!(sink.text().lines().count(), 2);

        let sink = Sink::default();
        let mut p = Progress::lines(100, 0, Box::new(sink.clone()), Duration::ZERO);
        p.update(10, &[]);
        p.update(20, &[]);
        p.finish();
        assert_eq!(sink.text().lines().count(), 2);
    }
}
