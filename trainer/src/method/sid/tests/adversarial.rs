//! The adversarial term: its optimum in closed form, and its gradients on a small U-Net.

use super::*;

#[test]
fn the_best_discriminator_is_the_ratio_of_densities() {
    // Real N(0, s^2), drawn N(0, g^2), both with noise sigma: D*(x) = ln p_real(x) - ln p_drawn(x).
    let (s, g, sigma) = (0.5f64, 0.3f64, 1.0f64);
    let (vr, vd) = (s * s + sigma * sigma, g * g + sigma * sigma);
    let best = |x: f64| 0.5 * (vd / vr).ln() + 0.5 * x * x * (1.0 / vd - 1.0 / vr);
    for (x, expected) in [(0.0, -0.068483), (1.0, -0.009767), (2.0, 0.166379)] {
        close(best(x), expected, 1e-6);
        // There the cross-entropies, weighted by the densities, are at rest.
        let density = |v: f64| (-0.5 * x * x / v).exp() / v.sqrt();
        let slope = |yes: bool| {
            let logit = Var::new(&[best(x) as f32], &Device::Cpu).unwrap();
            values(bce(&logit, yes).unwrap().backward().unwrap().get(&logit).unwrap())[0]
        };
        close(density(vr) * slope(true) + density(vd) * slope(false), 0.0, 1e-7);
    }
    let at = |x: f32, yes| values(&bce(&Tensor::new(&[x], &Device::Cpu).unwrap(), yes).unwrap())[0];
    close(at(0.0, true), std::f64::consts::LN_2, 1e-6);
    close(at(0.0, false), std::f64::consts::LN_2, 1e-6);
    close(at(-10.0, true), 10.0000454, 1e-6);
    close(at(100.0, false), 100.0, 1e-4);
}

/// A small U-Net with an encoder, and images for it.
fn adversarial(config: Adversarial) -> (Sid, Box<dyn Dataset>, tempfile::TempDir) {
    let network = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D"], "norm_num_groups": 4, "num_class_embeds": 3,
    });
    let network: NetworkConfig = serde_json::from_value(network).unwrap();
    let theta = network.build().unwrap().init(3);
    let edm = TeacherConfig { sigma_data: 0.5, p_mean: -1.2, p_std: 1.2, label_dropout: 0.1, guidance_levels: None };
    let dir = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        std::fs::create_dir(dir.path().join(class)).unwrap();
        for i in 0..6u8 {
            image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * 30) as u8 ^ (y as u8 * i)]))
                .save(dir.path().join(class).join(format!("{i}.png")))
                .unwrap();
        }
    }
    let data = crate::data::open(&crate::data::DataSpec::Folder { dir: dir.path().into() }, crate::data::Split::Train).unwrap();
    let meta = Teacher::new(&edm, &network, "teacher", Precision::F32).unwrap().meta(Some(data.as_ref())).unwrap();
    let teacher = bundle::read(&bundle::write(&meta, &[theta]).unwrap()).unwrap();
    let config = SidConfig { adversarial: Some(config), ..Default::default() };
    (Sid::new(&config, &teacher, "student", Precision::F32).unwrap(), data, dir)
}

#[test]
fn the_adversarial_term_comes_in_three_phases() {
    let (s, data, _dir) = adversarial(Adversarial { freeze: 100, begin: 200, ..Default::default() });
    assert!(s.needs_data() && s.active(0, 0) && !s.active(1, 99) && s.active(1, 100));
    let nets = nets(&s, &moved(&s, 0), &moved(&s, 1));
    let at = |first| Pass { data: Some(data.as_ref()), ..pass(first..first + 8, &nets) };
    let terms = |loss: &Loss| loss.terms.iter().map(|t| t.0).collect::<Vec<_>>();
    let (early, late) = (s.loss(1, &at(192)).unwrap(), s.loss(1, &at(200)).unwrap());
    assert_eq!((terms(&early), terms(&late)), (vec![], vec!["fooled"]));
    let fake = s.loss(0, &at(0)).unwrap();
    assert_eq!(terms(&fake), ["discriminator"]);
    // The term's gradients reach the generator, and in the other phase the fake score; never both.
    for (loss, own, other) in [(&late, 0, 1), (&fake, 1, 0)] {
        let gradient = loss.value.backward().unwrap();
        assert!(gradient.get(nets[other].theta()).is_none());
        assert!(values(gradient.get(nets[own].theta()).unwrap()).iter().any(|g| *g != 0.0));
    }
}

#[test]
fn the_discriminator_is_half_of_the_fake_score() {
    let (s, data, _dir) = adversarial(Adversarial { images: 4, ..Default::default() });
    let nets = nets(&s, &s.start, &moved(&s, 1));
    let x = tensor(noise(2, &(0..3), [1, 8, 8], Stream::Noise), 3, [1, 8, 8]).unwrap();
    let logits = s.logits(&nets[1], &x, &[0.5; 3], &[0, 1, 0]).unwrap();
    assert_eq!(logits.dims(), [3, 1, 4, 4]);
    let gradient = logits.sum_all().unwrap().backward().unwrap();
    let gradient = values(gradient.get(nets[1].theta()).unwrap());
    let graph = s.fake.graph();
    let touched =
        |name: &str| graph.params.iter().filter(|p| p.name.starts_with(name)).any(|p| gradient[p.range()].iter().any(|g| *g != 0.0));
    assert!(touched("conv_in") && touched("down_blocks.1") && !touched("mid_block") && !touched("up_blocks") && !touched("conv_out"));
    // Only the first four images are used.
    let with = Pass { data: Some(data.as_ref()), ..pass(0..64, &nets) };
    let picks = crate::method::picks(&with, 4);
    let mut expected = vec![0f32; 64 * picks.len()];
    expected.chunks_exact_mut(64).zip(&picks).for_each(|(x, &pick)| data.image(pick, x));
    assert_eq!(real(&with, [1, 8, 8], 4).unwrap().x, expected);
    assert!(picks.iter().all(|p| *p < 4) && (0..4).all(|p| picks.contains(&p)));
    assert!(s.loss(0, &pass(0..4, &nets)).err().unwrap().to_string().contains("`data`"));
}
