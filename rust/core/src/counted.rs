//! [`Counted`]: a reader that says how much was read of it, for whoever watches from another thread.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

/// Passes reads on, and counts their bytes.
#[derive(Debug)]
pub struct Counted<'a, R> {
    inner: R,
    count: &'a AtomicU64,
}

impl<'a, R> Counted<'a, R> {
    /// Counts into `count`, from where that stands.
    pub fn new(inner: R, count: &'a AtomicU64) -> Self {
        Self { inner, count }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
