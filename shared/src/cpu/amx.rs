//! The tile unit itself: AMX with bf16 (Intel SDM volume 1, chapter 18). Each inner loop is one block of assembly.

use super::{Correlation, DEPTH, Planes, SIDE, TILE};
use std::arch::asm;
use std::sync::OnceLock;

/// Whether the processor has the unit and the system lets this process use it.
pub fn allowed() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        if !std::env::var("LIMBECK_ISA").unwrap_or_default().is_empty() {
            return false;
        }
        let leaf = std::arch::x86_64::__cpuid_count(7, 0);
        let (tile, bf16) = (leaf.edx >> 24 & 1 == 1, leaf.edx >> 22 & 1 == 1);
        // The system saves the tiles of a process only once it has asked: arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA).
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
        const XTILEDATA: i64 = 18;
        tile && bf16 && is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw") && {
            let answer: i64;
            // SAFETY: the call changes nothing but this process's permission; the kernel clobbers rcx and r11.
            unsafe {
                asm!("syscall", inlateout("rax") ARCH_PRCTL => answer, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
                     out("rcx") _, out("r11") _, options(nostack));
            }
            answer == 0
        }
    })
}

/// Palette 1: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

static FULL: Config = {
    let mut c = [0; 64];
    c[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        c[16 + 2 * tile] = 64;
        c[48 + tile] = SIDE as u8;
        tile += 1;
    }
    Config(c)
};

/// The tiles in use by this thread until dropped.
struct Tiles;

impl Tiles {
    /// # Safety
    /// [`allowed`] said yes.
    unsafe fn new() -> Tiles {
        // SAFETY: the unit is there; no tile holds anything yet.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &FULL, options(nostack, readonly)) };
        Tiles
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: made by `new`. Releasing keeps context switches cheap.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// # Safety
/// [`allowed`] said yes, and the operands reach as far as [`super::product`] checks.
pub unsafe fn product(m: usize, w: &[u32], x: Planes<'_>, len: usize, out: &mut [f32], ld: usize) {
    let (k, blocks) = (x.offsets.len(), m.div_ceil(SIDE));
    if k == 0 {
        return out.fill(0.0);
    }
    // SAFETY: by the caller's promise.
    let _tiles = unsafe { Tiles::new() };
    for first in (0..blocks).step_by(2) {
        for p in (0..len).step_by(DEPTH) {
            // SAFETY: rows `16 first ..` of `w` and `out`, pixels `p..p + 32`: checked by the caller.
            unsafe {
                let a = w.as_ptr().add(first * k * TILE);
                let c = out.as_mut_ptr().add(first * SIDE * ld + p);
                let b = x.x.as_ptr().add(p);
                if first + 1 < blocks {
                    product_32(a, b, x.row, x.offsets, c, ld);
                } else {
                    product_16(a, b, x.row, x.offsets, c, ld);
                }
            }
        }
    }
}

/// 32 rows by 32 columns. Loads and products alternate, so that the unit does not wait for four loads at once.
#[inline(always)]
unsafe fn product_32(a: *const u32, b: *const u32, row: usize, offsets: &[u32], c: *mut f32, ld: usize) {
    // SAFETY: by the caller's promise for all pointers.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "mov {at:e}, dword ptr [{table}]",
            "lea {at}, [{b} + {at} * 4]",
            "tileloadd tmm4, [{a} + {side} * 1]",
            "tileloadd tmm6, [{at} + {row} * 1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {side} * 1 + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{at} + {row} * 1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {table}, 4",
            "dec {k}",
            "jnz 2b",
            "tilestored [{c} + {ld} * 1], tmm0",
            "tilestored [{c} + {ld} * 1 + 64], tmm1",
            "tilestored [{d} + {ld} * 1], tmm2",
            "tilestored [{d} + {ld} * 1 + 64], tmm3",
            at = out(reg) _, a = inout(reg) a => _, table = inout(reg) offsets.as_ptr() => _, k = inout(reg) offsets.len() => _,
            b = in(reg) b, side = in(reg) 4 * SIDE, row = in(reg) 4 * row, c = in(reg) c, d = in(reg) c.add(SIDE * ld), ld = in(reg) 4 * ld,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// 16 rows by 32 columns.
#[inline(always)]
unsafe fn product_16(a: *const u32, b: *const u32, row: usize, offsets: &[u32], c: *mut f32, ld: usize) {
    // SAFETY: by the caller's promise for all pointers.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1",
            "2:",
            "mov {at:e}, dword ptr [{table}]",
            "lea {at}, [{b} + {at} * 4]",
            "tileloadd tmm4, [{a} + {side} * 1]",
            "tileloadd tmm6, [{at} + {row} * 1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{at} + {row} * 1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {a}, 1024",
            "add {table}, 4",
            "dec {k}",
            "jnz 2b",
            "tilestored [{c} + {ld} * 1], tmm0",
            "tilestored [{c} + {ld} * 1 + 64], tmm1",
            at = out(reg) _, a = inout(reg) a => _, table = inout(reg) offsets.as_ptr() => _, k = inout(reg) offsets.len() => _,
            b = in(reg) b, side = in(reg) 4 * SIDE, row = in(reg) 4 * row, c = in(reg) c, ld = in(reg) 4 * ld,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// [`super::transpose`] in registers.
///
/// # Safety
/// [`allowed`] said yes; `x` holds `15 ld + 32 steps` floats and `out` `steps` tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn transpose(x: *const f32, ld: usize, steps: usize, out: *mut u32) {
    use std::arch::x86_64::*;
    for s in 0..steps {
        // Row c: the 32 values of column c in pairs. SAFETY: the caller vouches for `x`; a register of bf16 is one of words.
        let row = |c: usize| unsafe {
            let at = x.add(c * ld + s * DEPTH);
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(at.add(SIDE)), _mm512_loadu_ps(at)))
        };
        let mut r: [__m512i; SIDE] = std::array::from_fn(row);
        let mut t = r;
        for i in (0..SIDE).step_by(2) {
            t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
            t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        }
        // Now columns of four rows, one column in each quarter of a register.
        for i in (0..SIDE).step_by(4) {
            r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
            r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
            r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
            r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
        }
        for j in 0..4 {
            let (a, b) = (_mm512_shuffle_i32x4::<0x88>(r[j], r[4 + j]), _mm512_shuffle_i32x4::<0xdd>(r[j], r[4 + j]));
            let (c, d) = (_mm512_shuffle_i32x4::<0x88>(r[8 + j], r[12 + j]), _mm512_shuffle_i32x4::<0xdd>(r[8 + j], r[12 + j]));
            t[j] = _mm512_shuffle_i32x4::<0x88>(a, c);
            t[4 + j] = _mm512_shuffle_i32x4::<0x88>(b, d);
            t[8 + j] = _mm512_shuffle_i32x4::<0xdd>(a, c);
            t[12 + j] = _mm512_shuffle_i32x4::<0xdd>(b, d);
        }
        for (i, t) in t.into_iter().enumerate() {
            // SAFETY: the caller vouches for `out`.
            unsafe { _mm512_storeu_si512(out.add(s * TILE + i * SIDE).cast(), t) };
        }
    }
}

/// Tiles of depth of one pass: both operands then stay in the first-level cache for all taps.
const SEGMENT: usize = 10;

/// # Safety
/// [`allowed`] said yes, and the operands reach as far as [`super::correlate`] checks.
pub unsafe fn correlate(o: &Correlation<'_>, taps: &[(usize, usize)], sums: &mut [f32]) {
    // SAFETY: by the caller's promise.
    let _tiles = unsafe { Tiles::new() };
    for m in (0..o.m).step_by(2 * SIDE) {
        for c in (0..o.c).step_by(2 * SIDE) {
            for start in (0..o.steps).step_by(SEGMENT) {
                let steps = SEGMENT.min(o.steps - start);
                for (t, &(shift, block)) in taps.iter().enumerate() {
                    // SAFETY: checked by the caller for every tap, row and block.
                    unsafe {
                        let a = o.dy.as_ptr().add(m * o.ld + shift + start * DEPTH);
                        let b = o.x.as_ptr().add(((block + c / SIDE) * o.steps + start) * TILE);
                        let s = sums.as_mut_ptr().add((t * o.m + m) * o.c + c);
                        correlate_32(a, o.ld, b, o.steps, steps, s, o.c);
                    }
                }
            }
        }
    }
}

/// Adds to 32 rows by 32 columns of sums.
#[inline(always)]
unsafe fn correlate_32(a: *const u16, lda: usize, b: *const u32, block: usize, steps: usize, s: *mut f32, ld: usize) {
    // SAFETY: by the caller's promise for all pointers.
    unsafe {
        asm!(
            "tileloadd tmm0, [{s} + {ld} * 1]",
            "tileloadd tmm1, [{s} + {ld} * 1 + 64]",
            "tileloadd tmm2, [{t} + {ld} * 1]",
            "tileloadd tmm3, [{t} + {ld} * 1 + 64]",
            "2:",
            "tileloadd tmm4, [{a} + {lda} * 1]",
            "tileloadd tmm6, [{b} + {side} * 1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a2} + {lda} * 1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{b2} + {side} * 1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 64",
            "add {a2}, 64",
            "add {b}, 1024",
            "add {b2}, 1024",
            "dec {k}",
            "jnz 2b",
            "tilestored [{s} + {ld} * 1], tmm0",
            "tilestored [{s} + {ld} * 1 + 64], tmm1",
            "tilestored [{t} + {ld} * 1], tmm2",
            "tilestored [{t} + {ld} * 1 + 64], tmm3",
            a = inout(reg) a => _, a2 = inout(reg) a.add(SIDE * lda) => _, b = inout(reg) b => _,
            b2 = inout(reg) b.add(block * TILE) => _, k = inout(reg) steps => _,
            s = in(reg) s, t = in(reg) s.add(SIDE * ld), side = in(reg) 4 * SIDE, lda = in(reg) 2 * lda, ld = in(reg) 4 * ld,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
