//! Helpers for the tests that cross crates.

use limbeck_shared::bundle::{self, Bundle, GuidanceRange, ImageSpec, Meta, SamplerSpec, TrainingRecord, VERSION};
use limbeck_shared::denoiser::Parameterization;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::program::Sampler;
use limbeck_shared::rng::{self, Stream};
use limbeck_shared::schedule::Schedule;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The `limbeck` program of the profile and target directory that this test was built in (or `$LIMBECK_BIN`). Built first if it
/// is not there or older than its sources, since cargo builds no other package's programs for a test.
///
/// # Panics
/// If it cannot be built.
pub fn limbeck() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os("LIMBECK_BIN") {
            return path.into();
        }
        let test = std::env::current_exe().expect("this test's own path");
        // TARGET/PROFILE/deps/NAME
        let profile = test.ancestors().nth(2).expect("a test lies in TARGET/PROFILE/deps");
        let path = profile.join(format!("limbeck{}", std::env::consts::EXE_SUFFIX));
        if !is_fresh(&path) {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut build = Command::new(cargo);
            // All targets, as `scripts/test.sh` builds them: another selection has other features, and would build candle again.
            build.args(["build", "--all-targets", "--target-dir"]);
            build.arg(profile.parent().expect("a profile's folder has a parent")).current_dir(repository());
            if profile.ends_with("release") {
                build.arg("--release");
            }
            let status = build.status().expect("cargo cannot be started");
            assert!(status.success(), "`cargo build --all-targets` failed; `limbeck` is needed at {}", path.display());
        }
        path
    })
}

/// Whether a program is newer than all that cargo's note beside it says it was built from.
fn is_fresh(program: &Path) -> bool {
    let time = |p: &Path| std::fs::metadata(p).and_then(|m| m.modified());
    let (Ok(built), Ok(note)) = (time(program), std::fs::read_to_string(program.with_extension("d"))) else { return false };
    let sources = note.split_once(": ").map_or("", |n| n.1);
    !sources.trim().is_empty() && sources.split_whitespace().all(|s| time(Path::new(s)).unwrap_or(SystemTime::now()) <= built)
}

/// How a command ended and what it printed.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(o: Output) -> Ended {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended { code: o.status.code(), stdout: text(o.stdout), stderr: text(o.stderr) }
    }
}

/// `limbeck` with these arguments in a folder, to be started.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(limbeck());
    command.args(args).current_dir(folder).env_remove("LIMBECK_DATA").env("LIMBECK_CACHE", folder.join("cache"));
    command
}

/// Runs `limbeck` in a folder to its end.
///
/// # Panics
/// If it cannot be started.
pub fn run(folder: &Path, args: &[&str]) -> Ended {
    command(folder, args).output().expect("limbeck cannot be started").into()
}

/// As [`run`], for a command that must succeed.
///
/// # Panics
/// If it fails.
pub fn succeed(folder: &Path, args: &[&str]) -> Ended {
    let ended = run(folder, args);
    assert_eq!(ended.code, Some(0), "limbeck {}:\n{}", args.join(" "), ended.stderr);
    ended
}

/// An array in NumPy's format, read by the format's own definition.
#[derive(Debug, PartialEq)]
pub struct Npy {
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// The values in C order.
    pub values: Vec<f32>,
}

impl Npy {
    /// Reads a file that must hold little-endian f32 in C order.
    ///
    /// # Panics
    /// If it does not.
    pub fn read(path: &Path) -> Npy {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!(end % 64, 0, "data begin aligned");
        let header = std::str::from_utf8(&bytes[10..end]).unwrap();
        assert!(header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"), "{header}");
        let sizes = header.split_once('(').and_then(|h| h.1.split_once(')')).expect("a shape").0;
        let shape: Vec<usize> = sizes.split(',').filter(|s| !s.trim().is_empty()).map(|s| s.trim().parse().unwrap()).collect();
        let values: Vec<f32> = bytes[end..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        assert_eq!(values.len(), shape.iter().product::<usize>());
        Npy { shape, values }
    }

    /// The k-th entry of the first axis.
    pub fn image(&self, k: usize) -> &[f32] {
        let len = self.shape[1..].iter().product::<usize>();
        &self.values[k * len..(k + 1) * len]
    }
}

/// Largest difference between two arrays.
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Which small model [`model`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An EDM U-Net on 8x8 grey images with three classes and a null label.
    Teacher,
    /// A U-Net of the shipped student's making, with its second time input, on 12x12 images.
    Student,
    /// An unconditional EDM perceptron on points.
    Points,
}

/// A small model with random weights, as its file holds it: quick to draw from, and no part of its network idle.
///
/// # Panics
/// Never; its configurations are valid.
pub fn model(kind: Kind, name: &str) -> Bundle {
    bundle::read(&model_bytes(kind, name)).expect("a valid bundle")
}

/// Writes [`model`] into a folder as `NAME.safetensors`.
///
/// # Panics
/// If the file cannot be written.
pub fn write_model(kind: Kind, folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(format!("{name}.safetensors"));
    std::fs::write(&path, model_bytes(kind, name)).unwrap();
    path
}

fn model_bytes(kind: Kind, name: &str) -> Vec<u8> {
    let unet = |edge: usize, extra: serde_json::Value| {
        let mut config = serde_json::json!({
            "_class_name": "UNet2DModel", "sample_size": edge, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
            "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4, "attention_head_dim": 8, "num_class_embeds": 4,
        });
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config
    };
    let (config, [channels, height, width]) = match kind {
        Kind::Teacher => (unet(8, serde_json::json!({})), [1, 8, 8]),
        Kind::Student => (unet(12, serde_json::json!({"limbeck_space_to_depth": 2, "limbeck_second_time": true})), [1, 12, 12]),
        Kind::Points => (serde_json::json!({"_class_name": "Mlp", "dim": 2, "hidden": 16, "layers": 2}), [2, 1, 1]),
    };
    let network: NetworkConfig = serde_json::from_value(config).unwrap();
    let graph = network.build().unwrap();
    let mut theta = graph.init(7);
    let mut jitter = vec![0f32; theta.len()];
    rng::normals(7, Stream::Other(0), 0, &mut jitter);
    theta.iter_mut().zip(&jitter).for_each(|(t, j)| *t += 0.05 * j);
    let (labelled, student) = (kind != Kind::Points, kind == Kind::Student);
    let any = |sampler, default_steps| SamplerSpec { sampler, steps: vec![], default_steps };
    let one_step = SamplerSpec { sampler: Sampler::OneStep, steps: vec![1], default_steps: 1 };
    let meta = Meta {
        version: VERSION,
        name: name.into(),
        networks: vec![network],
        parameterization: Parameterization::Edm { sigma_data: 0.5 },
        schedule: Schedule::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 },
        init_time: student.then_some(80.0),
        second_time: student,
        guidance_input: false,
        samplers: if student { vec![one_step] } else { vec![any(Sampler::Heun, 3), any(Sampler::FlowEuler, 4)] },
        classes: if labelled { ["zero", "one", "two"].map(String::from).to_vec() } else { vec![] },
        null_label: labelled.then_some(3),
        guidance: (kind == Kind::Teacher).then_some(GuidanceRange { min: 0.0, max: 4.0, default: 1.0, levels: None }),
        image: ImageSpec { channels, height, width, range: [-1.0, 1.0] },
        training: TrainingRecord {
            method: if student { "boot" } else { "edm" }.into(),
            preset: name.into(),
            teacher_sha256: None,
            images_seen: 1,
            seconds: 1.0,
            command: "limbeck train".into(),
            evaluation: Default::default(),
        },
        licence: "MIT".into(),
        router: None,
        golden: None,
    };
    bundle::write(&meta, &[theta]).expect("a valid model")
}
