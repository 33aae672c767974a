//! Walking a program on the CPU.

use super::{Instr, Label, Program, Reg};
use crate::denoiser::{Denoiser, Lowered, Net, Step};
use crate::error::{Error, Result};
use crate::rng::{self, Stream};

/// Where a program's noise comes from: `(stream, k, out)` fills `out` with standard normals for image k of the call.
pub type NoiseSource<'a> = dyn FnMut(u32, usize, &mut [f32]) + 'a;

/// Draws images: walks a lowered program with its networks.
///
/// Image k of the call, with label `labels[k]`, takes its noise from index `first_index + k`, so it is the same image at any
/// batch size. `null_label` is what [`Label::Null`] gives to the networks. The result holds `labels.len()` images one after
/// another, and after them as many for each kept register.
///
/// # Errors
/// [`Error::Call`] if a network is missing or the shapes differ; whatever a network reports.
pub fn run(lowered: &Lowered, nets: &[&dyn Net], seed: u64, first_index: u64, labels: &[u32], null_label: u32) -> Result<Vec<f32>> {
    let mut noise = |stream, k: usize, image: &mut [f32]| {
        rng::normals(seed, Stream::Sample(stream), first_index.wrapping_add(k as u64), image);
    };
    run_from(lowered, nets, &mut noise, labels, null_label)
}

/// As [`run`], with noise from anywhere.
///
/// # Errors
/// As [`run`].
pub fn run_from(lowered: &Lowered, nets: &[&dyn Net], noise: &mut NoiseSource<'_>, labels: &[u32], null_label: u32) -> Result<Vec<f32>> {
    let Some(shape) = nets.first().map(|n| n.shape()) else {
        return Err(Error::call("networks", 0, "at least one"));
    };
    if let Some(other) = nets.iter().map(|n| n.shape()).find(|s| *s != shape) {
        return Err(Error::call("image shape", format!("{other:?}"), format!("{shape:?} as the first network's")));
    }
    let (n, pixels) = (labels.len(), shape.iter().product::<usize>());
    if n == 0 || pixels == 0 {
        return Ok(vec![]);
    }
    let null = vec![null_label; n];
    let mut registers = Registers::new(lowered.registers, n * pixels);
    for step in &lowered.steps {
        match step {
            Step::Net(e) => {
                let net = nets.get(e.net).ok_or_else(|| Error::call("network", e.net, format!("one of {}", nets.len())))?;
                let labels = if e.label == Label::Given { labels } else { &null };
                registers.write(e.dst, |r, out| net.eval(r.get(e.src)?, n, &e.times, labels, out))?;
            }
            Step::Combine { dst, terms } => registers.combine(*dst, terms)?,
            Step::Clip { dst, src, limit } => registers.clip(*dst, *src, *limit)?,
            Step::Noise { dst, stream } => registers.write(*dst, |_, out| {
                out.chunks_exact_mut(pixels).enumerate().for_each(|(k, image)| noise(*stream, k, image));
                Ok(())
            })?,
        }
    }
    let kept = lowered.kept.iter().map(|&r| registers.get(r).map(<[f32]>::to_vec)).collect::<Result<Vec<_>>>()?;
    let mut images = registers.take(lowered.output)?;
    images.extend(kept.into_iter().flatten());
    Ok(images)
}

/// Walks a program with a denoiser in closed form on registers of `len` values; `noise(stream, out)` gives the noise.
///
/// # Errors
/// [`Error::Config`] if the program is not valid; whatever the denoiser reports.
pub fn run_closed_form(program: &Program, denoiser: &dyn Denoiser, len: usize, noise: &mut dyn FnMut(u32, &mut [f32])) -> Result<Vec<f32>> {
    program.validate()?;
    let mut registers = Registers::new(program.registers, len);
    for instr in &program.instrs {
        match instr {
            Instr::Eval(e) => registers.write(e.dst, |r, out| {
                let x = r.get(e.src)?;
                match e.target {
                    None => denoiser.x0(x, e.t, e.label, out),
                    Some(target) => denoiser.target(x, e.t, target, e.label, out)?,
                }
                Ok(())
            })?,
            Instr::Combine { dst, terms } => {
                let terms: Vec<(f32, Reg)> = terms.iter().map(|&(c, r)| (c as f32, r)).collect();
                registers.combine(*dst, &terms)?;
            }
            Instr::Clip { dst, src, limit } => registers.clip(*dst, *src, *limit as f32)?,
            Instr::Noise { dst, stream } => registers.write(*dst, |_, out| {
                noise(*stream, out);
                Ok(())
            })?,
        }
    }
    registers.take(program.output)
}

/// The registers; all of one length, made when first written.
struct Registers {
    len: usize,
    data: Vec<Vec<f32>>,
}

impl Registers {
    fn new(count: usize, len: usize) -> Registers {
        Registers { len, data: vec![vec![]; count] }
    }

    fn get(&self, r: Reg) -> Result<&[f32]> {
        match self.data.get(r) {
            Some(v) if v.len() == self.len => Ok(v),
            _ => Err(Error::call("register", r, "one that was written")),
        }
    }

    /// Lets `f` fill register `dst` while it reads the others.
    fn write(&mut self, dst: Reg, f: impl FnOnce(&Registers, &mut [f32]) -> Result<()>) -> Result<()> {
        let mut out = self.take(dst)?;
        out.resize(self.len, 0.0);
        f(self, &mut out)?;
        self.data[dst] = out;
        Ok(())
    }

    fn combine(&mut self, dst: Reg, terms: &[(f32, Reg)]) -> Result<()> {
        self.write(dst, |r, out| {
            for (i, &(c, src)) in terms.iter().enumerate() {
                let values = r.get(src)?;
                if i == 0 {
                    out.iter_mut().zip(values).for_each(|(o, v)| *o = c * v);
                } else {
                    out.iter_mut().zip(values).for_each(|(o, v)| *o += c * v);
                }
            }
            Ok(())
        })
    }

    fn clip(&mut self, dst: Reg, src: Reg, limit: f32) -> Result<()> {
        self.write(dst, |r, out| {
            out.iter_mut().zip(r.get(src)?).for_each(|(o, v)| *o = v.clamp(-limit, limit));
            Ok(())
        })
    }

    fn take(&mut self, r: Reg) -> Result<Vec<f32>> {
        self.data.get_mut(r).map(std::mem::take).ok_or_else(|| Error::call("register", r, "a register of the program"))
    }
}
