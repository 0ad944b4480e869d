//! What blobs that are made side by side have in memory: counted, where it is asked for.
//!
//! The bound is the rule of docs/performance.md, "Memory", and neither time nor the number of bytes
//! has a say in it: a buffer more somewhere, or one a blob, and it is passed.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use img_core::cancel::Cancel;
use img_core::compress::{Compression, Options, BLOCKS_PER_THREAD, USUAL};
use img_core::explore::thread_count;
use img_core::pack::{pack_layer, Request};

const MIB: usize = 1 << 20;
const PIECE: usize = 256 << 10;
/// Blobs at once, as the engine makes them.
const BLOBS: usize = 2;

/// Bytes that are held, and the most that ever were.
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

impl Counting {
    fn more(bytes: usize) {
        let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
        MOST.fetch_max(held, Ordering::Relaxed);
    }
}

// SAFETY: every call is the system allocator's own; beside it, numbers are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::more(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::more(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Where it moves, both are there for a moment; where it does not, this counts too much.
        Self::more(size);
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The rule: for each processor, `BLOCKS_PER_THREAD` blocks on their way and one that is compressed,
/// which has two buffers; for each blob, a block that is filled, and the pieces of the tar between
/// those who read files and the one that cuts. A mebibyte for all that is small.
fn most() -> usize {
    let threads = thread_count();
    let buffers = threads * (BLOCKS_PER_THREAD + 1) + BLOBS;
    let pieces = BLOBS * (4 * (threads + 1) + threads + 6);
    buffers * USUAL + pieces * PIECE + MIB
}

/// A file of noise that repeats after a mebibyte: its blocks are cut alike, and none is long.
fn layer(folder: &Path, seed: u8, bytes: usize) {
    std::fs::create_dir(folder).unwrap();
    let mut piece = vec![0; MIB];
    let mut noise = blake3::Hasher::new();
    noise.update(&[seed]).finalize_xof().fill(&mut piece);
    let mut file = File::create(folder.join("noise")).unwrap();
    for _ in 0..bytes / MIB {
        file.write_all(&piece).unwrap();
    }
}

fn peak(folder: &Path, blobs: usize, compression: Compression) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for number in 0..blobs {
            let options = Options {
                compression,
                ..Options::default()
            };
            let path = folder.join(format!("blob-{number}"));
            let request = Request {
                blob: Some((path, options)),
                ..Request::default()
            };
            let layer = folder.join(number.to_string());
            scope.spawn(move || pack_layer(&layer, &request, &Cancel::default()).unwrap());
        }
    });
    MOST.load(Ordering::Relaxed) - before
}

#[test]
fn blobs_that_are_made_at_once_share_their_blocks() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..BLOBS {
        layer(&dir.path().join(number.to_string()), number as u8, 48 * MIB);
    }
    for compression in [
        Compression::Gzip(4),
        Compression::Zstd(2),
        Compression::None,
    ] {
        let peak = peak(dir.path(), BLOBS, compression);
        assert!(
            peak <= most(),
            "{compression:?}: {peak} bytes, and not {}",
            most()
        );
    }
}
