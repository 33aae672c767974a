//! Bundles of several networks, routed by noise level.

use super::*;
use crate::cpu::Net;
use crate::denoiser::{self, lower};
use crate::graph::prune::{Kept, blocks, prune, select};
use crate::program::{self, Router};

/// Four groups of a base, each with so many units of every block less than the one before (as far as they go), the cleanest whole.
fn routed(base: &Meta, less: usize) -> (Meta, Vec<Vec<f32>>) {
    let theta = &weights(base)[0];
    let graph = base.networks[0].build().unwrap();
    let kept = |k: usize| -> Kept { blocks(&graph).iter().map(|b| (0..(b.units - (k * less).min(b.units - b.least))).collect()).collect() };
    let pruned: Vec<_> = (0..4).map(|k| prune(&base.networks[0], &kept(k)).unwrap()).collect();
    let thetas = pruned.iter().map(|p| select(theta, &p.index)).collect();
    let router = Some(Router { edges: vec![2.0, 0.0, -2.0], nets: vec![3, 2, 1, 0] });
    (Meta { networks: pruned.into_iter().map(|p| p.config).collect(), router, golden: None, ..base.clone() }, thetas)
}

fn base() -> Meta {
    let mut meta = Meta { golden: None, ..unet() };
    let NetworkConfig::Unet(c) = &mut meta.networks[0] else { unreachable!() };
    (c.block_out_channels, c.norm_num_groups) = (vec![16, 24], 4);
    meta
}

#[test]
fn what_begins_the_widest_networks_tensors_is_stored_once() {
    let (meta, mut thetas) = routed(&base(), 1);
    let whole = file(&base()).len();
    let shared = write(&meta, &thetas).unwrap();
    assert_eq!(read(&shared).unwrap().thetas, thetas);
    assert_eq!(read(&shared).unwrap().meta, meta);
    assert!(shared.len() < whole + 6000, "{} bytes beside {whole}: only words are added", shared.len());
    // Norms and biases of their own.
    for k in 1..4 {
        for p in meta.networks[k].build().unwrap().params.iter().filter(|p| p.shape.len() == 1) {
            thetas[k][p.range()].iter_mut().for_each(|v| *v = 0.5 - *v);
        }
    }
    let own = write(&meta, &thetas).unwrap();
    let bundle = read(&own).unwrap();
    assert_eq!(bundle.thetas, thetas);
    assert_eq!(own, write(&bundle.meta, &bundle.thetas).unwrap());
    let without = Meta { router: None, ..meta.clone() };
    assert!(own.len() < write(&without, &thetas).unwrap().len() / 2);
    // Where nothing may be shared, nothing may be missing.
    let error = read(&edited(&shared, |h| drop(h["__metadata__"]["limbeck"].as_object_mut().unwrap().remove("router")))).unwrap_err();
    assert!(matches!(&error, BundleError::MissingTensor { name } if name.starts_with("net1.")), "{error}");
}

#[test]
fn unpruned_copies_draw_what_the_base_draws_bit_for_bit() {
    let base = base();
    let draw = |bytes: &[u8]| {
        let bundle = read(bytes).unwrap();
        let program = bundle.draw_program(None, Some(4), Some(1.5.into())).unwrap();
        let nets: Vec<Net> = bundle.graphs.iter().zip(&bundle.thetas).map(|(g, t)| Net::new(g.clone(), t.clone()).unwrap()).collect();
        let nets: Vec<&dyn denoiser::Net> = nets.iter().map(|n| n as _).collect();
        (program.networks(), program::run(&lower(&program, &bundle.spec()).unwrap(), &nets, 3, 0, &[0, 2], 3).unwrap())
    };
    let one = Meta { router: Some(Router { edges: vec![], nets: vec![0] }), ..base.clone() };
    let (four, thetas) = routed(&base, 0);
    let (_, plain) = draw(&file(&base));
    assert_eq!(draw(&file(&one)), (1, plain.clone()));
    assert_eq!(draw(&write(&four, &thetas).unwrap()), (4, plain.clone()));
    let (pruned, thetas) = routed(&base, 1);
    assert_ne!(draw(&write(&pruned, &thetas).unwrap()).1, plain);
}

#[test]
fn a_router_that_does_not_fit_is_refused() {
    let (meta, thetas) = routed(&base(), 1);
    let refused = |edges: Vec<f64>, nets: Vec<usize>| {
        write(&Meta { router: Some(Router { edges, nets }), ..meta.clone() }, &thetas).unwrap_err().to_string()
    };
    assert!(refused(vec![0.0, 1.0, -2.0], vec![3, 2, 1, 0]).contains("falling finite numbers"));
    assert!(refused(vec![0.0], vec![3, 2, 1, 0]).contains("3 falling"));
    assert!(refused(vec![0.0], vec![0, 4]).contains("limbeck.router.nets[1]"));
    assert!(refused(vec![], vec![]).contains("0 groups"));
    let unknown = edited(&write(&meta, &thetas).unwrap(), |h| h["__metadata__"]["limbeck"]["router"]["more"] = 1.into());
    assert!(read(&unknown).unwrap_err().to_string().contains("limbeck.router.more"));
}
