//! One kernel source, several instruction sets.
//!
//! A kernel is an `#[inline(always)]` function generic over [`Simd`] that works on short arrays; [`dispatch!`] compiles it once
//! with AVX-512, once with AVX2 and once plainly, and picks at run time what the processor has. On wasm32 there is one version, of
//! what the build enables (`simd128`). No build flag is needed for speed on x86.

/// Lanes of a vector register and what the processor does with them.
///
/// The methods are only meaningful inside a function compiled with the instruction set's features; [`dispatch!`] sees to that.
pub trait Simd: Copy {
    /// One register.
    type V: Copy;
    /// Number of lanes.
    const LANES: usize;
    /// Rows and columns (registers) of a product's tile, whose sums, with the operands, the register file holds.
    const TILE: [usize; 2];
    /// 32 registers rather than 16.
    const MANY_REGISTERS: bool = Self::TILE[0] * Self::TILE[1] > 16;
    /// Every lane the same.
    fn splat(v: f32) -> Self::V;
    /// Reads `LANES` floats.
    ///
    /// # Safety
    /// `p` is valid for `LANES` reads.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Writes `LANES` floats.
    ///
    /// # Safety
    /// `p` is valid for `LANES` writes.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Reads `n < LANES` floats, the other lanes zero.
    ///
    /// # Safety
    /// `p` is valid for `n` reads.
    unsafe fn load_part(p: *const f32, n: usize) -> Self::V;
    /// Writes the first `n < LANES` lanes.
    ///
    /// # Safety
    /// `p` is valid for `n` writes.
    unsafe fn store_part(p: *mut f32, v: Self::V, n: usize);
    /// `a + b`.
    fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Sum of the lanes, in a fixed order.
    fn sum(v: Self::V) -> f32;
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($(#[$doc:meta])* $name:ident, $v:ident, $lanes:literal, $tile:expr, $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $fma:ident, $sum:expr, $load_part:ident, $store_part:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name;
        impl Simd for $name {
            type V = std::arch::x86_64::$v;
            const LANES: usize = $lanes;
            const TILE: [usize; 2] = $tile;
            #[inline(always)]
            fn splat(v: f32) -> Self::V {
                // SAFETY: only reached through `dispatch!`, which checked the features.
                unsafe { std::arch::x86_64::$splat(v) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> Self::V {
                // SAFETY: as above; the caller vouches for the range.
                unsafe { std::arch::x86_64::$load(p) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, v: Self::V) {
                // SAFETY: as above; the caller vouches for the range.
                unsafe { std::arch::x86_64::$store(p, v) }
            }
            #[inline(always)]
            unsafe fn load_part(p: *const f32, n: usize) -> Self::V {
                // SAFETY: as above; the caller vouches for the range.
                unsafe { $load_part(p, n) }
            }
            #[inline(always)]
            unsafe fn store_part(p: *mut f32, v: Self::V, n: usize) {
                // SAFETY: as above; the caller vouches for the range.
                unsafe { $store_part(p, v, n) }
            }
            #[inline(always)]
            fn add(a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$add(a, b) }
            }
            #[inline(always)]
            fn sub(a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$sub(a, b) }
            }
            #[inline(always)]
            fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$fma(a, b, c) }
            }
            #[inline(always)]
            fn sum(v: Self::V) -> f32 {
                // SAFETY: as above.
                unsafe { $sum(v) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
x86!(
    /// 512-bit vectors with fused multiply-add.
    Avx512, __m512, 16, [8, 3], _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_sub_ps, _mm512_fmadd_ps,
    std::arch::x86_64::_mm512_reduce_add_ps, load_part512, store_part512
);
#[cfg(target_arch = "x86_64")]
x86!(
    /// 256-bit vectors with fused multiply-add.
    Avx2, __m256, 8, [8, 1], _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_sub_ps, _mm256_fmadd_ps, sum256,
    load_part256, store_part256
);

/// Halves added, then quarters, then neighbours.
///
/// # Safety
/// The processor has AVX.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn sum256(v: std::arch::x86_64::__m256) -> f32 {
    use std::arch::x86_64::*;
    // SAFETY: the caller vouches for AVX.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn load_part512(p: *const f32, n: usize) -> std::arch::x86_64::__m512 {
    // SAFETY: the caller vouches for AVX-512 and for `n` reads; lanes past them are not touched.
    unsafe { std::arch::x86_64::_mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, p) }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store_part512(p: *mut f32, v: std::arch::x86_64::__m512, n: usize) {
    // SAFETY: as for `load_part512`.
    unsafe { std::arch::x86_64::_mm512_mask_storeu_ps(p, ((1u32 << n) - 1) as u16, v) }
}

/// All bits set in the first `n` of eight lanes.
///
/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn first_of_8(n: usize) -> std::arch::x86_64::__m256i {
    use std::arch::x86_64::*;
    // SAFETY: the caller vouches for AVX2.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn load_part256(p: *const f32, n: usize) -> std::arch::x86_64::__m256 {
    // SAFETY: the caller vouches for AVX2 and for `n` reads; lanes past them are not touched.
    unsafe { std::arch::x86_64::_mm256_maskload_ps(p, first_of_8(n)) }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store_part256(p: *mut f32, v: std::arch::x86_64::__m256, n: usize) {
    // SAFETY: as for `load_part256`.
    unsafe { std::arch::x86_64::_mm256_maskstore_ps(p, first_of_8(n), v) }
}

/// wasm's vectors: four lanes, multiply and add apart. Engines map them onto registers of which x86-64 has 16 and they keep some for
/// themselves: a third column of sums would not fit.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[derive(Clone, Copy)]
pub struct Simd128;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl Simd for Simd128 {
    type V = std::arch::wasm32::v128;
    const LANES: usize = 4;
    const TILE: [usize; 2] = [4, 2];
    #[inline(always)]
    fn splat(v: f32) -> Self::V {
        std::arch::wasm32::f32x4_splat(v)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller vouches for the range; any alignment will do.
        unsafe { std::arch::wasm32::v128_load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: as for `load`.
        unsafe { std::arch::wasm32::v128_store(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller vouches for `n` reads.
        let at = |i: usize| if i < n { unsafe { *p.add(i) } } else { 0.0 };
        std::arch::wasm32::f32x4(at(0), at(1), at(2), 0.0)
    }
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, v: Self::V, n: usize) {
        use std::arch::wasm32::f32x4_extract_lane as lane;
        for (i, v) in [lane::<0>(v), lane::<1>(v), lane::<2>(v)].into_iter().take(n).enumerate() {
            // SAFETY: the caller vouches for `n` writes.
            unsafe { *p.add(i) = v };
        }
    }
    #[inline(always)]
    fn add(a: Self::V, b: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_add(a, b)
    }
    #[inline(always)]
    fn sub(a: Self::V, b: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_sub(a, b)
    }
    #[inline(always)]
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_add(std::arch::wasm32::f32x4_mul(a, b), c)
    }
    #[inline(always)]
    fn sum(v: Self::V) -> f32 {
        use std::arch::wasm32::f32x4_extract_lane as lane;
        (lane::<0>(v) + lane::<2>(v)) + (lane::<1>(v) + lane::<3>(v))
    }
}

/// What every build target has: four lanes, multiply and add apart. The compiler turns it into SSE2 or NEON.
#[derive(Clone, Copy)]
pub struct Plain;

impl Simd for Plain {
    type V = [f32; 4];
    const LANES: usize = 4;
    const TILE: [usize; 2] = [8, 1];
    #[inline(always)]
    fn splat(v: f32) -> Self::V {
        [v; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller vouches for the range.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the caller vouches for the range.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller vouches for `n` reads.
        std::array::from_fn(|i| if i < n { unsafe { *p.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, v: Self::V, n: usize) {
        for (i, v) in v.into_iter().take(n).enumerate() {
            // SAFETY: the caller vouches for `n` writes.
            unsafe { *p.add(i) = v };
        }
    }
    #[inline(always)]
    fn add(a: Self::V, b: Self::V) -> Self::V {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }
    #[inline(always)]
    fn sub(a: Self::V, b: Self::V) -> Self::V {
        [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]]
    }
    #[inline(always)]
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]]
    }
    #[inline(always)]
    fn sum(v: Self::V) -> f32 {
        (v[0] + v[2]) + (v[1] + v[3])
    }
}

/// The instruction sets a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 (F, VL, DQ, BW).
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// Neither.
    Plain,
}

/// What this processor has, found once. `LIMBECK_ISA=avx2|plain` asks for less, for tests and comparisons.
pub fn isa() -> Isa {
    static FOUND: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        let asked = std::env::var("LIMBECK_ISA").unwrap_or_default();
        #[cfg(target_arch = "x86_64")]
        {
            let v4 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw");
            let v3 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if v4 && v3 && asked != "avx2" && asked != "plain" {
                return Isa::Avx512;
            }
            if v3 && asked != "plain" {
                return Isa::Avx2;
            }
        }
        let _ = asked;
        Isa::Plain
    })
}

/// `dispatch!(pub fn name(args) = body)`: a function that runs `body::<S>(args)` compiled for the best instruction set.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn avx512($($arg: $ty),*) {
                    $body::<$crate::cpu::simd::Avx512>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    $body::<$crate::cpu::simd::Avx2>($($arg),*)
                }
                match $crate::cpu::simd::isa() {
                    // SAFETY: `isa` saw that the processor has these features.
                    $crate::cpu::simd::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::simd::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::simd::Isa::Plain => {}
                }
            }
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            return $body::<$crate::cpu::simd::Simd128>($($arg),*);
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            $body::<$crate::cpu::simd::Plain>($($arg),*)
        }
    };
}
pub(crate) use dispatch;
