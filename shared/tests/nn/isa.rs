//! The kernels are compiled for several instruction sets; each must pass what the best one passes.

use limbeck_shared::cpu::simd::{Isa, isa};
use std::process::Command;

/// In a child process of [`every_instruction_set_passes`]: the set asked for is the one in use.
#[test]
fn the_instruction_set_asked_for_is_used() {
    match std::env::var("LIMBECK_ISA").as_deref() {
        Ok("plain") => assert_eq!(isa(), Isa::Plain),
        Ok("avx2") => assert_ne!(isa(), Isa::Avx512),
        _ => {}
    }
}

#[test]
fn every_instruction_set_passes() {
    let own = std::env::current_exe().unwrap();
    for set in ["avx2", "plain"] {
        let args = ["golden::cpu", "ops::", "sharing::", "isa::the_instruction_set_asked_for_is_used"];
        let out = Command::new(&own).args(args).env("LIMBECK_ISA", set).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "LIMBECK_ISA={set}:\n{text}");
        for test in ["golden::cpu ... ok", "ops::convolution ... ok", "isa::the_instruction_set_asked_for_is_used ... ok"] {
            assert!(text.contains(test), "LIMBECK_ISA={set}: no `{test}` in\n{text}");
        }
    }
}
