//! Dropout in training graphs: what it leaves alone, what it drops, and that the gradient is that of the values that stayed.

use limbeck_shared::cpu::{Cond, Dropout, Exec, Keep};
use limbeck_shared::graph::{Graph, NetworkConfig, Op};
use limbeck_shared::rng::{self, Stream};

const RATE: f64 = 0.3;

fn config() -> NetworkConfig {
    let json = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D"], "norm_num_groups": 4, "dropout": RATE,
    });
    serde_json::from_value(json).unwrap()
}

fn normal(which: u64, len: usize) -> Vec<f32> {
    let mut v = vec![0.0; len];
    rng::normals(9, Stream::Other(3), which, &mut v);
    v
}

#[test]
fn drawing_knows_no_dropout() {
    let (drawing, training) = (config().build().unwrap(), config().build_training().unwrap());
    let dropped = |g: &Graph| g.nodes.iter().filter(|n| matches!(n.op, Op::Dropout { .. })).count();
    // Two blocks down, two in the middle, four up.
    assert_eq!((dropped(&drawing), dropped(&training)), (0, 8));
    assert_eq!(drawing.params, training.params);
    let theta = drawing.init(1);
    let x = normal(0, 3 * 64);
    let cond = Cond { times: &[0.1, 0.5, 0.9], labels: &[], dropout: None };
    let run = |g: Graph| Exec::new(g).unwrap().forward(&theta, &x, 3, cond, Keep::Nothing).unwrap().0;
    assert_eq!(run(drawing), run(training), "without a key values pass");
}

#[test]
fn values_are_dropped_by_image_number_at_the_rate() {
    let mut g = Graph::new([4, 16, 16]);
    g.output = g.add(Op::Dropout { rate: RATE }, &[0], &[]).unwrap();
    let exec = Exec::new(g).unwrap();
    let run = |images: &[u64]| {
        let x = vec![1.0; images.len() * 1024];
        let cond = Cond { times: &[], labels: &[], dropout: Some(Dropout { seed: 4, images }) };
        exec.forward(&[], &x, images.len(), cond, Keep::Nothing).unwrap().0
    };
    let images: Vec<u64> = (0..20).collect();
    let all = run(&images);
    let kept = (1.0 / (1.0 - RATE)) as f32;
    assert!(all.iter().all(|&v| v == 0.0 || v == kept));
    let zeros = all.iter().filter(|&&v| v == 0.0).count() as f64 / all.len() as f64;
    // Four standard errors of 20,480 draws.
    assert!((zeros - RATE).abs() < 0.013, "{zeros}");
    assert_eq!(run(&[7, 3]), [&all[7 * 1024..8 * 1024], &all[3 * 1024..4 * 1024]].concat());
    assert_ne!(all[..1024], all[1024..2048]);
    let cond = Cond { times: &[], labels: &[], dropout: Some(Dropout { seed: 4, images: &[1] }) };
    assert!(exec.forward(&[], &[0.0; 2048], 2, cond, Keep::Nothing).is_err(), "an image without a number");
}

#[test]
fn gradients_are_those_of_what_stayed() {
    let exec = Exec::new(config().build_training().unwrap()).unwrap();
    let theta: Vec<f32> = exec.graph().init(1).iter().zip(normal(5, exec.graph().param_count())).map(|(w, z)| w + 0.05 * z).collect();
    let (x, dy) = (normal(0, 5 * 64), normal(1, 5 * 64));
    let images = [4, 9, 1, 2, 77];
    let times = [0.1, 0.3, 0.5, 0.7, 0.9];
    let call = |theta: &[f32], x: &[f32]| {
        let cond = Cond { times: &times, labels: &[], dropout: Some(Dropout { seed: 8, images: &images }) };
        exec.forward(theta, x, 5, cond, Keep::ForAll).unwrap()
    };
    let (y, tape) = call(&theta, &x);
    let plain = exec.forward(&theta, &x, 5, Cond { times: &times, labels: &[], dropout: None }, Keep::Nothing).unwrap().0;
    assert_ne!(y, plain);
    let g = exec.backward(&theta, &tape, &dy, true, true).unwrap();
    let loss = |theta: &[f32], x: &[f32]| call(theta, x).0.iter().zip(&dy).map(|(y, d)| f64::from(y * d)).sum::<f64>();
    let moved = |v: &[f32], d: &[f32], h: f32| v.iter().zip(d).map(|(v, d)| v + h * d).collect::<Vec<f32>>();
    for which in 0..3 {
        let (dtheta, dx) = (normal(20 + which, theta.len()), normal(30 + which, x.len()));
        let h = 4e-4;
        let by_theta = (loss(&moved(&theta, &dtheta, h), &x) - loss(&moved(&theta, &dtheta, -h), &x)) / (2.0 * f64::from(h));
        let by_x = (loss(&theta, &moved(&x, &dx, h)) - loss(&theta, &moved(&x, &dx, -h))) / (2.0 * f64::from(h));
        let dot = |g: &[f32], d: &[f32]| g.iter().zip(d).map(|(g, d)| f64::from(g * d)).sum::<f64>();
        let size = |g: &[f32], d: &[f32]| g.iter().zip(d).map(|(g, d)| f64::from(g * d).powi(2)).sum::<f64>().sqrt();
        let (theta_gradient, x_gradient) = (g.dtheta.as_deref().unwrap(), g.dx.as_deref().unwrap());
        let off = (dot(theta_gradient, &dtheta) - by_theta).abs() / size(theta_gradient, &dtheta);
        assert!(off < 5e-3, "theta, direction {which}: {off:.1e}");
        let off = (dot(x_gradient, &dx) - by_x).abs() / size(x_gradient, &dx);
        assert!(off < 5e-3, "x, direction {which}: {off:.1e}");
    }
}
