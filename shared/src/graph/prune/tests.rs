//! Pruning against what is known without it: exact costs, and outputs that do not change when what goes did nothing.

use super::*;
use crate::cpu::Net;
use crate::rng::{self, Stream};

fn config(extra: serde_json::Value) -> NetworkConfig {
    let mut config = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": [16, 24], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 8, "attention_head_dim": 8,
    });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

/// Weights none of which is at a value that hides mistakes.
fn theta(graph: &Graph) -> Vec<f32> {
    let mut noise = vec![0f32; graph.param_count()];
    rng::normals(3, Stream::Other(0), 0, &mut noise);
    graph.init(5).iter().zip(noise).map(|(v, e)| v + 0.1 * e).collect()
}

fn output(graph: &Graph, theta: Vec<f32>) -> Vec<f32> {
    let (mut x, mut y) = (vec![0f32; 2 * 64], vec![0f32; 2 * 64]);
    rng::normals(4, Stream::Other(0), 0, &mut x);
    Net::new(graph.clone(), theta).unwrap().forward(&x, 2, &[0.3, -0.8], &[], &mut y).unwrap();
    y
}

fn all(blocks: &[Block]) -> Kept {
    blocks.iter().map(|b| (0..b.units).collect()).collect()
}

fn close(a: &[f32], b: &[f32], within: f32) {
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let size = b.iter().fold(1f32, |m, v| m.max(v.abs()));
    assert!(a.len() == b.len() && worst < within * size, "{worst} of {size}");
}

#[test]
fn a_convolutions_cost_by_hand() {
    let mut g = Graph::new([32, 28, 28]);
    let w = [g.add_param("w", &[64, 32, 3, 3], super::super::Init::Zeros), g.add_param("b", &[64], super::super::Init::Zeros)];
    let op = Op::Conv2d { out: 64, kernel: 3, stride: 1, pad: [1, 1], channel_bias: false, residual: false };
    let conv = g.add(op, &[0], &w).unwrap();
    assert_eq!(g.node_macs(conv), 14_450_688);
}

#[test]
fn units_are_whole_norm_groups_and_heads_in_multiples_of_four_channels() {
    let graph = config(serde_json::json!({})).build().unwrap();
    let blocks = blocks(&graph);
    let of = |name: &str| blocks.iter().find(|b| b.name == name).unwrap();
    // 16 channels in 8 groups of 2: two groups go together. 24 in 8 groups of 3: four do.
    let first = of("down_blocks.0.resnets.0");
    assert_eq!((first.units, first.unit, first.least, first.output), (4, 4, 2, [16, 8, 8]));
    let deep = of("mid_block.resnets.0");
    assert_eq!((deep.units, deep.unit, deep.least), (2, 12, 1));
    let heads = of("mid_block.attentions.0");
    assert_eq!((heads.kind, heads.units, heads.unit), (Kind::Attention, 3, 8));
    assert_eq!(blocks.len(), 8 + 4);
}

#[test]
fn costs_are_exactly_affine_in_units() {
    for extra in [serde_json::json!({}), serde_json::json!({"resnet_time_scale_shift": "scale_shift"})] {
        let config = config(extra);
        let graph = config.build().unwrap();
        let blocks = blocks(&graph);
        for choice in 0..20u64 {
            let mut kept = all(&blocks);
            let mut expected = graph.macs();
            for (b, (block, units)) in blocks.iter().zip(&mut kept).enumerate() {
                let n = rng::below(1, Stream::Other(choice as u32), b as u64, (block.units - block.least + 1) as u32) as usize;
                units.drain(..n);
                expected -= n as u64 * block.unit_macs;
            }
            let pruned = prune(&config, &kept).unwrap();
            assert_eq!(pruned.graph.macs(), expected);
            assert_eq!(pruned.index.len(), pruned.graph.param_count());
        }
    }
}

#[test]
fn a_norm_group_that_says_nothing_goes_without_a_trace() {
    for extra in [serde_json::json!({}), serde_json::json!({"resnet_time_scale_shift": "scale_shift"})] {
        let shifted = extra.get("resnet_time_scale_shift").is_some();
        let config = config(extra);
        let graph = config.build().unwrap();
        let blocks = blocks(&graph);
        let mut theta = theta(&graph);
        let mut kept = all(&blocks);
        for (block, units) in blocks.iter().zip(&mut kept) {
            // gamma = beta = 0 (and so scale and shift), for a head: what it gives is not listened to.
            let silent: &[&str] = match block.kind {
                Kind::Residual if shifted => &["norm2.weight", "norm2.bias", "time_emb_proj.weight", "time_emb_proj.bias"],
                Kind::Residual => &["norm2.weight", "norm2.bias"],
                Kind::Attention => &["to_out.0.weight"],
            };
            units.remove(1);
            for end in silent {
                let p = graph.param(&format!("{}.{end}", block.name)).unwrap();
                let axis = block.kind.parts().iter().find(|part| part.0 == *end).unwrap().1;
                gather(p, axis, block, &[1]).into_iter().for_each(|i| theta[i] = 0.0);
            }
        }
        let pruned = prune(&config, &kept).unwrap();
        assert!(pruned.graph.macs() < graph.macs());
        close(&output(&pruned.graph, select(&theta, &pruned.index)), &output(&graph, theta), 1e-6);
    }
}

#[test]
fn another_order_of_units_is_the_same_network() {
    let config = config(serde_json::json!({}));
    let graph = config.build().unwrap();
    let theta = theta(&graph);
    let reversed: Kept = blocks(&graph).iter().map(|b| (0..b.units).rev().collect()).collect();
    let pruned = prune(&config, &reversed).unwrap();
    assert_eq!((&pruned.graph, pruned.config == config), (&graph, true));
    assert_ne!(pruned.index, (0..theta.len()).collect::<Vec<_>>());
    // Sums over channels are taken in another order.
    close(&output(&graph, select(&theta, &pruned.index)), &output(&graph, theta), 1e-5);
}

#[test]
fn a_unit_and_the_network_without_it_share_all_elements() {
    let config = config(serde_json::json!({}));
    let graph = config.build().unwrap();
    let blocks = blocks(&graph);
    for (b, block) in blocks.iter().enumerate() {
        let mut kept = all(&blocks);
        kept[b].remove(0);
        let mut every = [prune(&config, &kept).unwrap().index, block.elements(&graph, 0).unwrap()].concat();
        every.sort_unstable();
        assert_eq!(every, (0..graph.param_count()).collect::<Vec<_>>(), "{}", block.name);
    }
}

#[test]
fn a_pruned_network_can_be_pruned_again() {
    let config = config(serde_json::json!({}));
    let graph = config.build().unwrap();
    let cut = |config: &NetworkConfig, graph: &Graph| {
        let kept = blocks(graph).iter().map(|b| (0..(b.units - 1).max(b.least)).collect()).collect();
        prune(config, &kept).unwrap()
    };
    let once = cut(&config, &graph);
    let twice = cut(&once.config, &once.graph);
    assert!(twice.graph.macs() < once.graph.macs());
    // The first units of each block both times: one prefix of another.
    let theta = theta(&graph);
    for p in &twice.graph.params {
        let index = prefix(graph.param(&p.name).unwrap(), p).unwrap();
        assert_eq!(select(&theta, &index), select(&select(&theta, &once.index), &twice.index[p.range()]), "{}", p.name);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let config = config(serde_json::json!({}));
    let blocks = blocks(&config.build().unwrap());
    let refused = |edit: &dyn Fn(&mut Kept)| {
        let mut kept = all(&blocks);
        edit(&mut kept);
        prune(&config, &kept).unwrap_err().to_string()
    };
    assert!(refused(&|k| k[0] = vec![0]).contains("kept.down_blocks.0.resnets.0"));
    assert!(refused(&|k| k[0] = vec![0, 0]).contains("2 to 4 different units"));
    assert!(refused(&|k| k[0] = vec![0, 9]).contains("[0, 9]"));
    assert!(refused(&|k| k.truncate(3)).contains("3 blocks"));
    let wrong = |widths: serde_json::Value| {
        let config: NetworkConfig = serde_json::from_value({
            let mut c = serde_json::to_value(&config).unwrap();
            c["limbeck_inner_channels"] = widths;
            c
        })
        .unwrap();
        config.build().unwrap_err().to_string()
    };
    assert!(wrong(serde_json::json!({"mid_block.resnets.0": 10})).contains("a multiple of 3 up to 24"));
    assert!(wrong(serde_json::json!({"mid_block.attentions.0": 32})).contains("a multiple of 8 up to 24"));
    assert!(wrong(serde_json::json!({"mid_block.resnets.7": 8})).contains("mid_block.resnets.7"));
}
