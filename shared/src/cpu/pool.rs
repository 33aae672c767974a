//! Buffers between calls.

use super::conv;
use std::sync::Mutex;

/// Buffers between calls, so that a training step allocates nothing large.
#[derive(Default)]
pub(super) struct Pool {
    floats: Mutex<Vec<Vec<f32>>>,
    scratch: Mutex<Vec<Scratch>>,
}

/// Working memory of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) conv: conv::Scratch,
    pub(super) work: Vec<f32>,
}

impl Pool {
    /// A buffer of this length with arbitrary finite or stale content.
    pub(super) fn take(&self, len: usize) -> Vec<f32> {
        let mut free = self.floats.lock().unwrap_or_else(|e| e.into_inner());
        let found = free.iter().position(|b| b.len() == len);
        match found {
            Some(i) => free.swap_remove(i),
            None => vec![0.0; len],
        }
    }
    pub(super) fn give(&self, buffer: Vec<f32>) {
        let mut free = self.floats.lock().unwrap_or_else(|e| e.into_inner());
        // Buffers of batch sizes no longer used must not pile up.
        if free.len() >= 256 {
            free.remove(0);
        }
        free.push(buffer);
    }
    pub(super) fn scratch(&self) -> Scratch {
        self.scratch.lock().unwrap_or_else(|e| e.into_inner()).pop().unwrap_or_default()
    }
    pub(super) fn give_scratch(&self, s: Scratch) {
        self.scratch.lock().unwrap_or_else(|e| e.into_inner()).push(s);
    }
}
