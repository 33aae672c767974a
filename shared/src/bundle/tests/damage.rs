//! One kind of damage, one error.

use super::*;

/// What reading says after one value of `limbeck` (a JSON pointer into it) was replaced.
fn damage(pointer: &str, value: Value) -> BundleError {
    let bytes = edited(&file(&unet()), |h| *h["__metadata__"]["limbeck"].pointer_mut(pointer).expect(pointer) = value);
    read(&bytes).unwrap_err()
}

fn field(path: &str, found: &str, expected: &str) -> BundleError {
    BundleError::Field { path: path.into(), found: found.into(), expected: expected.into() }
}

#[test]
fn sizes() {
    let bytes = file(&mlp());
    let n = bytes.len() as u64;
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(read(b"").unwrap_err(), BundleError::FileSize { found: 0, min: 8, max: MAX_FILE });
    assert_eq!(read(&bytes[..7]).unwrap_err(), BundleError::FileSize { found: 7, min: 8, max: MAX_FILE });
    // Truncated in the header, and in the weights; and with a byte too many.
    assert_eq!(read(&bytes[..100]).unwrap_err(), BundleError::Length { found: 100, expected: 8 + header });
    assert_eq!(read(&bytes[..bytes.len() - 1]).unwrap_err(), BundleError::Length { found: n - 1, expected: n });
    assert_eq!(read(&[&bytes[..], &[0]].concat()).unwrap_err(), BundleError::Length { found: n + 1, expected: n });
    for size in [MAX_HEADER + 1, u64::MAX] {
        let mut large = bytes.clone();
        large[..8].copy_from_slice(&size.to_le_bytes());
        assert_eq!(read(&large).unwrap_err(), BundleError::HeaderSize { found: size, max: MAX_HEADER });
    }
    // Refused by its length alone, before a byte of it is touched.
    let huge = vec![0u8; MAX_FILE as usize + 1];
    assert_eq!(read(&huge).unwrap_err(), BundleError::FileSize { found: MAX_FILE + 1, min: 8, max: MAX_FILE });
    // A tensor table that promises more than any file holds.
    let header = |end: u64| format!(r#"{{"a":{{"dtype":"U8","shape":[{end}],"data_offsets":[0,{end}]}}}}"#);
    let text = header(1 << 60);
    let expected = (1 << 60) + 8 + text.len() as u64;
    assert_eq!(read(&joined(&text, b"")).unwrap_err(), BundleError::Length { found: 8 + text.len() as u64, expected });
}

#[test]
fn offsets_that_overflow() {
    // Eight tensors that reach almost to 2^64: the table is sound, the sum of lengths is not.
    let size = (1u64 << 61) - 1;
    let entry = |i: u64| format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{},{}]}}"#, i * size, (i + 1) * size);
    let text = format!("{{{}}}", (0..8).map(entry).collect::<Vec<_>>().join(","));
    assert_eq!(read(&joined(&text, b"")).unwrap_err(), BundleError::Length { found: 8 + text.len() as u64, expected: u64::MAX });
}

#[test]
fn headers() {
    for bad in ["", "[]", "{", "{\"a\":1}", "\u{0}"] {
        assert!(matches!(read(&joined(bad, b"")), Err(BundleError::Header(_))), "{bad}");
    }
    assert!(matches!(read(&[&1u64.to_le_bytes()[..], &[0xff]].concat()), Err(BundleError::Header(_))));
    let bytes = edited(&file(&mlp()), |h| h["output.bias"]["data_offsets"][0] = 0.into());
    assert!(matches!(read(&bytes), Err(BundleError::Header(_))), "tensors may not overlap");
    assert_eq!(read(&joined("{}", b"")).unwrap_err(), BundleError::NoMetadata { key: "limbeck".into() });
    for key in ["limbeck", "config"] {
        let bytes = edited(&file(&mlp()), |h| drop(h["__metadata__"].as_object_mut().unwrap().remove(key)));
        assert_eq!(read(&bytes).unwrap_err(), BundleError::NoMetadata { key: key.into() });
    }
    let text = r#"{"__metadata__":{"limbeck":"{\"version\": 1,}"}}"#;
    let Err(BundleError::NotJson { key, problem }) = read(&joined(text, b"")) else { panic!("not refused") };
    assert_eq!(key, "limbeck");
    assert!(problem.contains("line 1 column 15"), "{problem}");
    let bytes = edited(&file(&mlp()), |h| h["__metadata__"]["config"]["hidden"] = 9.into());
    assert_eq!(read(&bytes).unwrap_err(), BundleError::ConfigMismatch);
}

#[test]
fn versions() {
    assert_eq!(damage("/version", json!(2)), BundleError::Version { found: 2, expected: 1 });
    assert_eq!(damage("/version", json!(0)).to_string(), "version 0, expected 1");
    // Whatever else a later version holds, its number is what is reported.
    let later = r#"{"__metadata__":{"limbeck":"{\"version\": 18446744073709551615, \"new\": []}"}}"#;
    assert_eq!(read(&joined(later, b"")).unwrap_err(), BundleError::Version { found: u64::MAX, expected: 1 });
    assert_eq!(write(&Meta { version: 3, ..mlp() }, &weights(&mlp())).unwrap_err(), BundleError::Version { found: 3, expected: 1 });
}

#[test]
fn fields_are_named_by_path() {
    let BundleError::Field { path, found, expected } = damage("/training/seconds", json!("long")) else { panic!("another error") };
    assert_eq!((path.as_str(), found.as_str()), ("limbeck.training.seconds", "\"long\""));
    assert!(expected.contains("f64"), "{expected}");
    for (pointer, value, at) in [
        ("/samplers/1/steps", json!([1, -1]), "limbeck.samplers[1].steps"),
        ("/samplers/0/sampler", json!("warp"), "limbeck.samplers[0].sampler"),
        ("/schedule", json!({ "kind": "edm" }), "limbeck.schedule"),
        ("/networks/0/_class_name", json!("Transformer"), "limbeck.networks[0]"),
        ("/image", json!(4), "limbeck.image"),
        ("/golden/pixels", json!([0.5, "x"]), "limbeck.golden.pixels"),
        ("/null_label", json!(-1), "limbeck.null_label"),
        ("/classes", json!([1]), "limbeck.classes"),
        ("/name", json!("x".repeat(201)), "limbeck.name"),
        ("/networks", json!([]), "limbeck.networks"),
        ("/schedule/sigma_max", json!(-80.0), "limbeck.schedule.sigma_max"),
        ("/parameterization/sigma_data", json!(0.0), "limbeck.parameterization.sigma_data"),
    ] {
        let error = damage(pointer, value);
        assert!(matches!(&error, BundleError::Field { path, .. } if path == at), "{pointer}: {error:?}");
    }
    for (pointer, key) in
        [("", "licence"), ("/image", "width"), ("/golden", "seed"), ("/samplers/0", "default_steps"), ("/training", "method")]
    {
        let path = format!("limbeck{}.{key}", pointer.replace("/0", "[0]").replace('/', "."));
        let edit = |f: fn(&mut serde_json::Map<String, Value>, &str)| {
            let limbeck = |h: &mut Value| f(h["__metadata__"]["limbeck"].pointer_mut(pointer).unwrap().as_object_mut().unwrap(), key);
            read(&edited(&file(&unet()), limbeck)).unwrap_err()
        };
        assert_eq!(edit(|o, k| drop(o.remove(k))), BundleError::MissingField { path: path.clone() });
        assert_eq!(edit(|o, k| drop(o.insert(format!("{k}_"), 1.into()))), BundleError::UnknownField { path: path + "_" });
    }
    // An absent option is none.
    let bytes = edited(&file(&mlp()), |h| drop(h["__metadata__"]["limbeck"].as_object_mut().unwrap().remove("golden")));
    assert_eq!(read(&bytes).unwrap().meta, mlp());
}

#[test]
fn limits() {
    assert_eq!(damage("/image/height", json!(0)), field("limbeck.image.height", "0", "1 to 1024"));
    assert_eq!(damage("/image/width", json!(1025)), field("limbeck.image.width", "1025", "1 to 1024"));
    assert_eq!(damage("/image/channels", json!(17)), field("limbeck.image.channels", "17", "1 to 16"));
    assert_eq!(damage("/image/range", json!([1, 1])), field("limbeck.image.range", "[1, 1]", "two finite numbers, the lower first"));
    assert_eq!(damage("/training/seconds", json!(-1)), field("limbeck.training.seconds", "-1", "a finite number, 0 or more"));
    let hash = field("limbeck.training.teacher_sha256", "ABC", "64 lower-case hexadecimal digits");
    assert_eq!(damage("/training/teacher_sha256", json!("ABC")), hash);
    assert_eq!(
        damage("/image/height", json!(8)),
        BundleError::ImageShape { network: 0, side: "input", found: [1, 4, 4], expected: [1, 8, 4] }
    );
    let bytes = edited(&file(&unet()), |h| h["__metadata__"]["limbeck"]["networks"][0]["out_channels"] = 2.into());
    let expected = BundleError::ImageShape { network: 0, side: "output", found: [2, 4, 4], expected: [1, 4, 4] };
    assert_eq!(read(&bytes).unwrap_err(), expected);
}

#[test]
fn networks_that_cannot_be_built() {
    let network = |key: &str, value: Value| {
        let bytes = edited(&file(&unet()), |h| h["__metadata__"]["limbeck"]["networks"][0][key] = value);
        read(&bytes).unwrap_err()
    };
    let BundleError::Network { network: 0, problem } = network("norm_num_groups", json!(3)) else { panic!("another error") };
    assert!(problem.contains("norm_num_groups = 3"), "{problem}");
    assert!(matches!(network("down_block_types", json!(["DownBlock2D", "Warp"])), BundleError::Network { network: 0, .. }));
    let path = "limbeck.networks[0].block_out_channels[1]";
    assert_eq!(network("block_out_channels", json!([4, 1u64 << 40])), field(path, "1099511627776", "at most 100000"));
    // 4096 channels at every level: far more weights than the file has, or than are accepted.
    let found = network("block_out_channels", json!([4096, 4096]));
    assert!(matches!(found, BundleError::TooManyParams { found: 500_000_001.., max: MAX_PARAMS }), "{found:?}");
    assert_eq!(network("num_class_embeds", json!(5)), BundleError::Classes { network: 0, found: 5, expected: 4 });
    assert_eq!(network("num_class_embeds", json!(null)), BundleError::Classes { network: 0, found: 0, expected: 4 });
    assert_eq!(network("limbeck_second_time", json!(true)), BundleError::TimeInputs { network: 0, found: 2, expected: 1 });
}

#[test]
fn labels_and_guidance() {
    assert_eq!(damage("/classes", json!(["a"])), BundleError::Classes { network: 0, found: 4, expected: 2 });
    for label in [2, 4] {
        assert_eq!(damage("/null_label", json!(label)), BundleError::NullLabel { found: label, expected: 3 });
    }
    let order = "0 <= min <= default <= max <= 20";
    assert_eq!(damage("/guidance/default", json!(5)), field("limbeck.guidance", "0 to 4, default 5", order));
    assert_eq!(damage("/guidance/max", json!(21)), field("limbeck.guidance", "0 to 21, default 1.5", order));
    let rising = "two levels that rise from 0 or more";
    let falling = json!({ "min": 0, "max": 4, "default": 1.5, "levels": [2, 1] });
    assert_eq!(damage("/guidance", falling), field("limbeck.guidance.levels", "[2.0, 1.0]", rising));
    let meta = Meta { guidance: unet().guidance, ..mlp() };
    let error = write(&meta, &weights(&mlp())).unwrap_err();
    assert_eq!(error, field("limbeck.guidance", "a range, but neither null label nor guidance input", "none: guidance needs one of them"));
    let meta = Meta { classes: vec!["a".into()], ..classifier() };
    assert_eq!(write(&meta, &weights(&meta)).unwrap_err(), BundleError::Classes { network: 0, found: 3, expected: 1 });
    let meta = Meta { samplers: unet().samplers, ..classifier() };
    assert_eq!(write(&meta, &weights(&meta)).unwrap_err(), field("limbeck.samplers", "2 samplers", "none: classifiers do not draw"));
    let meta = Meta { networks: vec![unet().networks.remove(0), classifier().networks.remove(0)], ..unet() };
    let mixed = field("limbeck.networks[1]", "classifiers and other networks", "all classifiers or none");
    assert_eq!(write(&meta, &weights(&meta)).unwrap_err(), mixed);
}

#[test]
fn samplers_and_steps() {
    assert_eq!(damage("/samplers", json!([])), BundleError::NoSampler);
    for steps in [0, 1001] {
        let expected = field("limbeck.samplers[0].steps", &format!("{steps} steps"), "1 to 1000");
        assert_eq!(damage("/samplers/0/steps", json!([18, steps])), expected);
        let expected = field("limbeck.samplers[1].steps", &format!("{steps} steps"), "1 to 1000");
        assert_eq!(damage("/samplers/1/default_steps", json!(steps)), expected);
    }
    assert_eq!(damage("/samplers/0/default_steps", json!(5)), field("limbeck.samplers[0].default_steps", "5", "one of 4, 18 steps"));
    assert_eq!(damage("/samplers/1/sampler", json!("heun")), field("limbeck.samplers[1]", "heun", "each sampler once"));
    let error = damage("/samplers/0/sampler", json!("flow_map"));
    assert!(matches!(&error, BundleError::Sampler { path, .. } if path == "limbeck.samplers[0]"), "{error:?}");
}

#[test]
fn golden_images() {
    assert_eq!(damage("/golden/pixels", json!([0.5])), BundleError::GoldenPixels { found: 1, expected: 16 });
    assert_eq!(damage("/golden/label", json!(4)), field("limbeck.golden.label", "4", "a label below 4"));
    let error = damage("/golden/steps", json!(5));
    assert!(matches!(&error, BundleError::Sampler { path, .. } if path == "limbeck.golden"), "{error:?}");
    let mut meta = unet();
    meta.golden.as_mut().unwrap().pixels[3] = f32::NAN;
    assert_eq!(write(&meta, &weights(&unet())).unwrap_err(), field("limbeck.golden.pixels[3]", "NaN", "a finite number"));
    // JSON numbers beyond f32 become infinite.
    assert_eq!(damage("/golden/pixels/2", json!(1e300)), field("limbeck.golden.pixels[2]", "inf", "a finite number"));
}

#[test]
fn tensors() {
    let bytes = file(&mlp());
    let name = "net1.output.bias";
    let missing = edited(&bytes, |h| {
        let o = h.as_object_mut().unwrap();
        let t = o.remove(name).unwrap();
        o.insert("other".into(), t);
    });
    assert_eq!(read(&missing).unwrap_err(), BundleError::MissingTensor { name: name.into() });
    let extra = edited(&bytes, |h| h["net2.x"] = json!({ "dtype": "F16", "shape": [0], "data_offsets": [0, 0] }));
    assert_eq!(read(&extra).unwrap_err(), BundleError::ExtraTensor { name: "net2.x".into() });
    let shape = edited(&bytes, |h| h[name]["shape"] = json!([1, 2]));
    let expected = BundleError::TensorShape { name: name.into(), found: vec![1, 2], expected: vec![2] };
    assert_eq!(read(&shape).unwrap_err(), expected);
    let kind = edited(&bytes, |h| h[name]["dtype"] = "BF16".into());
    assert_eq!(read(&kind).unwrap_err(), BundleError::TensorType { name: name.into(), found: "BF16".into() });
    // The bias of two is the file's end.
    for (half, value) in [(f16::NAN, "NaN"), (f16::INFINITY, "inf"), (f16::NEG_INFINITY, "-inf")] {
        let mut bad = bytes.clone();
        let end = bad.len();
        bad[end - 2..].copy_from_slice(&half.to_le_bytes());
        assert_eq!(read(&bad).unwrap_err(), BundleError::NotFinite { name: name.into(), index: 1, value: value.into() });
    }
}

#[test]
fn weights_that_cannot_be_written() {
    let meta = mlp();
    let with = |value: f32| {
        let mut thetas = weights(&meta);
        *thetas[1].last_mut().unwrap() = value;
        write(&meta, &thetas)
    };
    let name = || "net1.output.bias".to_owned();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(with(value).unwrap_err(), BundleError::NotFinite { name: name(), index: 1, value: value.to_string() });
    }
    for value in [65520.0, -1e9] {
        assert_eq!(with(value).unwrap_err(), BundleError::F16Overflow { name: name(), index: 1, value });
    }
    // 65519 rounds to the largest half, 65504.
    assert_eq!(*read(&with(65519.0).unwrap()).unwrap().thetas[1].last().unwrap(), 65504.0);
    let error = write(&meta, &weights(&meta)[..1]).unwrap_err();
    assert_eq!(error, BundleError::Weights { what: "weights".into(), found: 1, expected: 2 });
    let error = write(&meta, &[weights(&meta)[0].clone(), vec![]]).unwrap_err();
    let expected = meta.networks[1].build().unwrap().param_count();
    assert_eq!(error, BundleError::Weights { what: "weights of network 1".into(), found: 0, expected });
    assert_eq!(
        read(&file(&meta)).unwrap().f16_bits(2).unwrap_err(),
        BundleError::Weights { what: "network".into(), found: 2, expected: 2 }
    );
}
