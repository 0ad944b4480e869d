//! [`Growth`]: a blob that is being written, for those who send it meanwhile.
//!
//! `compress` writes the file and says how far it is; any number of readers wait for more and read
//! what is there, each at its own pace. The bytes are on the disk, so that a slow reader keeps
//! neither memory nor the writer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How far a blob has come, and where it can be read.
#[derive(Debug, Default)]
pub struct Growth {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    length: u64,
    tar: u64,
    end: Option<End>,
}

/// How a blob ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All of it was written.
    Whole,
    /// It was given up: what was written is of no use.
    Broken,
}

/// What a reader finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grown {
    /// So many bytes are there from its offset on; 0 at the end of a blob that is whole.
    Bytes(u64),
    /// The blob was given up.
    Broken,
    /// Nothing changed within the time that it was willing to wait.
    Later,
}

impl Growth {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which file is written.
    pub fn begin(&self, file: File) {
        self.lock().file = Some(Arc::new(file));
    }

    /// Says how long it is by now.
    pub fn reached(&self, length: u64) {
        self.lock().length = length;
        self.changed.notify_all();
    }

    /// Says that so many more bytes of the tar are in what was written.
    pub fn holds(&self, more: u64) {
        self.lock().tar += more;
    }

    /// How long the blob is by now, and how many bytes of the tar are in that.
    pub fn progress(&self) -> (u64, u64) {
        let state = self.lock();
        (state.length, state.tar)
    }

    /// Says that nothing more comes; only the first call counts.
    pub fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.changed.notify_all();
    }

    /// Waits until `count` bytes are there from `offset` on, or the blob has ended.
    ///
    /// Args:
    ///     patience: How long at the most.
    pub fn wait(&self, offset: u64, count: u64, patience: Duration) -> Grown {
        let enough =
            |state: &mut State| state.end.is_none() && state.length < offset.saturating_add(count);
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), patience, enough);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.end {
            Some(End::Broken) => Grown::Broken,
            _ if waited.timed_out() => Grown::Later,
            _ => Grown::Bytes(state.length.saturating_sub(offset)),
        }
    }

    /// Reads what is there from `offset` on; gives how many bytes that were.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.lock();
        let there = state.length.saturating_sub(offset);
        let wanted = buffer
            .len()
            .min(usize::try_from(there).unwrap_or(usize::MAX));
        let Some(file) = state.file.clone().filter(|_| wanted > 0) else {
            return Ok(0);
        };
        drop(state);
        file.read_at(&mut buffer[..wanted], offset)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn readers_see_what_is_written_and_the_end() {
        let growth = Growth::default();
        let mut file = tempfile::tempfile().unwrap();
        growth.begin(file.try_clone().unwrap());
        assert_eq!(growth.wait(0, 1, Duration::ZERO), Grown::Later);
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=100_u64 {
                    file.write_all(&[number as u8; 1000]).unwrap();
                    growth.reached(number * 1000);
                }
                growth.end(End::Whole);
            });
            let mut buffer = [0; 777];
            while growth.wait(read.len() as u64, 1500, LONG) != Grown::Bytes(0) {
                let count = growth.read(read.len() as u64, &mut buffer).unwrap();
                read.extend_from_slice(&buffer[..count]);
            }
        });
        let wanted: Vec<u8> = (1..=100).flat_map(|number| [number; 1000]).collect();
        assert!(read == wanted);
        assert_eq!(growth.read(100_000, &mut [0; 4]).unwrap(), 0);
    }

    #[test]
    fn what_was_given_up_stays_given_up() {
        let growth = Growth::default();
        growth.end(End::Broken);
        growth.end(End::Whole);
        assert_eq!(growth.wait(0, 1, LONG), Grown::Broken);
    }
}
