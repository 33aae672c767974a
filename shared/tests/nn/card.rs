//! Networks on a CUDA card against candle's own operations in f64. In builds with cuDNN, which are for machines with a card:
//! `cargo test --release -p limbeck-shared --features cudnn --test nn -- --test-threads 1` (one thread: a card's libraries are one).

use super::*;
use limbeck_shared::nn::Network;
use std::sync::{Arc, OnceLock};

fn card() -> &'static Device {
    static CARD: OnceLock<Device> = OnceLock::new();
    CARD.get_or_init(|| Device::new_cuda(0).expect("a CUDA card"))
}

/// Checks output and gradients, those that are asked for and no others.
pub fn check(what: &str, exec: &Arc<Exec>, theta: &[f32], call: &Call, stock: &Answer, y: f64, gradient: f64) {
    let (graph, card) = (exec.graph(), card());
    let x = Tensor::from_slice(&call.x, call.x_shape(graph), card).unwrap();
    let variable = Var::from_tensor(&x).unwrap();
    let (trained, frozen) = (Network::trained(exec.clone(), theta, card).unwrap(), Network::frozen(exec.clone(), theta, card).unwrap());
    let dy = call.dy(graph, DType::F32).to_device(card).unwrap();
    for (network, x) in [(&trained, variable.as_tensor()), (&trained, &x), (&frozen, variable.as_tensor()), (&frozen, &x)] {
        let (with_theta, with_x) = (network.theta().track_op(), x.track_op());
        let what = format!("{what} on the card, theta {with_theta}, x {with_x}");
        let out = network.forward(x, &call.times, &call.labels).unwrap();
        let grads = (&out * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        // candle cannot read a tensor of no elements back.
        let values = |t: &Tensor| if t.elem_count() == 0 { vec![] } else { flat(t) };
        let (dx, dtheta) = (grads.get(x).map(values), grads.get(network.theta()).map(values));
        assert_eq!((dx.is_some(), dtheta.is_some()), (with_x, with_theta), "{what}");
        // What was not asked for is compared with itself.
        let answer = Answer { y: flat(&out), dx: dx.unwrap_or(stock.dx.clone()), dtheta: dtheta.unwrap_or(stock.dtheta.clone()) };
        assert_close(&what, graph, &answer, stock, y, gradient);
    }
}
