//! [`Room`]: what all blobs of the process that are being made may have in memory together.
//!
//! `compress` asks it for a [`Place`] before a block is on its way, and for a [`Turn`] while it is
//! compressed; buffers and encoders go from one block to the next, whichever blob that is of. So
//! blobs that are made side by side take no more than one does, but for the block that each of
//! them still fills: nobody waits for a place while holding what others wait for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Codec, Compression};
use crate::cut::MEAN;
use crate::deflate::WINDOW;
use crate::explore::thread_count;

/// Blocks on their way, for each processor: one that is compressed, and two that wait, for their
/// turn or for one before them in their blob.
pub const BLOCKS_PER_THREAD: usize = 3;
/// What a buffer is made for, and keeps: most blocks are shorter, and the longest are seldom.
pub const USUAL: usize = 2 * MEAN + 2 * WINDOW;

/// The room of this process.
pub static ROOM: Room = Room {
    state: Mutex::new(State {
        blobs: 0,
        places: 0,
        turns: 0,
        buffers: Vec::new(),
        codecs: Vec::new(),
    }),
    freed: Condvar::new(),
};

/// See the module.
pub struct Room {
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    /// Blobs that are being made: with the last of them what is kept goes.
    blobs: usize,
    /// Places that are taken.
    places: usize,
    /// Turns that are taken.
    turns: usize,
    buffers: Vec<Vec<u8>>,
    codecs: Vec<(Compression, Codec)>,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, work: impl FnOnce(&mut State)) {
        work(&mut self.lock());
        self.freed.notify_all();
    }

    fn when(&self, free: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let wait = self.freed.wait_while(self.lock(), |state| !free(state));
        wait.unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a blob; it ends with what is returned.
    pub fn begin(&'static self) -> Blob {
        self.lock().blobs += 1;
        Blob(self)
    }

    /// Waits until one block more may be on its way.
    pub fn place(&'static self) -> Place {
        let most = BLOCKS_PER_THREAD * thread_count();
        self.when(|state| state.places < most).places += 1;
        Place(self)
    }

    /// Waits until one block more may be compressed: as many at once as there are processors.
    pub fn turn(&'static self, compression: Compression) -> Turn {
        let mut state = self.when(|state| state.turns < thread_count());
        state.turns += 1;
        let known = state.codecs.iter().position(|(of, _)| *of == compression);
        let known = known.map(|index| state.codecs.swap_remove(index).1);
        drop(state);
        Turn {
            room: self,
            compression,
            codec: known.unwrap_or_else(|| Codec::new(compression)),
        }
    }

    /// An empty buffer.
    pub fn buffer(&self) -> Vec<u8> {
        let kept = self.lock().buffers.pop();
        kept.unwrap_or_else(|| Vec::with_capacity(USUAL))
    }

    /// Takes a buffer back, but for what it has beyond the usual.
    pub fn keep(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        buffer.shrink_to(USUAL);
        self.lock().buffers.push(buffer);
    }
}

/// A blob that is being made.
pub struct Blob(&'static Room);

impl Drop for Blob {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.blobs -= 1;
        if state.blobs == 0 {
            state.buffers.clear();
            state.codecs.clear();
        }
    }
}

/// What a block has while it is on its way: from when it is whole until it is written.
pub struct Place(&'static Room);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.change(|state| state.places -= 1);
    }
}

/// What a block has while it is compressed.
pub struct Turn {
    room: &'static Room,
    compression: Compression,
    /// The encoder, which remembers nothing of the block before.
    pub codec: Codec,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let codec = std::mem::replace(&mut self.codec, Codec::None);
        self.room.change(|state| {
            state.turns -= 1;
            // One of another kind makes place: there are never more than there are processors.
            if state.codecs.len() >= thread_count() {
                state.codecs.remove(0);
            }
            state.codecs.push((self.compression, codec));
        });
    }
}
