//! [`BlobWriter`]: takes a tar's bytes in order and leaves a compressed, digested blob.
//!
//! `pack` feeds it. `cut` says where the tar is cut, by its content; the blocks are compressed on
//! several threads, unless `blocks` has them from an earlier blob, and written and hashed in order
//! by one more. The blob depends on the tar and the level alone: not on the number of threads, and
//! not on what was known. `room` says how many blocks are in memory, whatever the number of blobs
//! that are made at once. Who sends the blob reads it while it grows (`growth`).
//!
//! gzip is one member of deflate blocks that each end on a byte (RFC 1951, 3.2.4; RFC 1952), so
//! that every reader takes it; a block is primed with the 32 KiB before it. `deflate` makes them.
//! zstd is one frame a block (RFC 8878, 3.1).

mod room;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use sha2::{Digest as _, Sha256};

use crate::blocks::{write_index, Block, Blocks, Earlier, Sum};
use crate::cut::{Cutter, MEAN};
use crate::deflate::{Encoder, WINDOW};
use crate::error::{IoContext, Result};
use crate::growth::{End, Growth};
use crate::Error;

use room::{Blob, Place, ROOM};

pub use room::{BLOCKS_PER_THREAD, USUAL};

/// What the encoders are. Raise it whenever the same block would give other bytes: what earlier
/// versions compressed is then not found any more.
const ENCODER: &str = "img 1";
/// RFC 1952: deflate, no flags, no time, no extra flags, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last deflate block.
const DEFLATE_END: [u8; 2] = [3, 0];
/// The fastest level that is nowhere more than 5 % over `gzip -6` in size: 2.9 % on a Debian root,
/// 4.9 % on Rust's sources (level 3: 3.0 and 6.2 %), 0.5 % where most is noise.
const GZIP_LEVEL: i32 = 4;
/// By the same rule: 1.1 % over `gzip -6` on a Debian root (level 1: 6.6 %), and under it on Rust's
/// sources and where most is noise. zstd's own default, 3, takes a quarter to a third longer.
const ZSTD_LEVEL: i32 = 2;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// The tar as it is.
    #[default]
    None,
    /// gzip, at a level from 1 to 9.
    Gzip(u32),
    /// zstd, at a level from 1 to 22.
    Zstd(i32),
}

impl Compression {
    /// Reads a name and a level as the door has them; None for what is unknown or out of range.
    pub fn parse(name: &str, level: Option<i32>) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "gzip" => {
                let level = u32::try_from(level.unwrap_or(GZIP_LEVEL)).ok()?;
                (1..=9).contains(&level).then_some(Self::Gzip(level))
            }
            "zstd" => {
                let level = level.unwrap_or(ZSTD_LEVEL);
                (1..=22).contains(&level).then_some(Self::Zstd(level))
            }
            _ => None,
        }
    }
}

/// How a blob is made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How it is compressed.
    pub compression: Compression,
    /// Threads that compress; 0 is one.
    pub threads: usize,
    /// Blobs whose blocks may be copied, the likeliest first.
    pub earlier: Vec<Earlier>,
    /// Where its own index is left; none for a blob of one block, of which nothing can be found.
    pub index: Option<PathBuf>,
    /// Is told how far the blob is.
    pub growth: Option<Arc<Growth>>,
}

/// A blob as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `sha256:<hex>` of the file; None for an uncompressed one, whose diff ID it is.
    pub digest: Option<String>,
    /// Length of the file.
    pub size: u64,
    /// How many of its bytes were copied from earlier blobs.
    pub reused: u64,
}

/// Writes one blob. Dropped before [`BlobWriter::finish`], it leaves nothing.
pub struct BlobWriter {
    /// The bytes of the block that grows.
    raw: Raw,
    /// Says where it ends; None for a blob that is not compressed.
    cutter: Option<Cutter>,
    jobs: Option<Sender<Job>>,
    order: Option<Sender<Receiver<Done>>>,
    workers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<Result<(Written, Temporary)>>>,
    path: PathBuf,
    growth: Option<Arc<Growth>>,
    _begun: Blob,
}

/// A block of the tar, with the window before it.
struct Raw {
    bytes: Vec<u8>,
    /// Where the block begins in `bytes`.
    start: usize,
}

impl Raw {
    fn block(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

struct Job {
    raw: Raw,
    place: Place,
    reply: Sender<Done>,
}

/// A block as it is written: `bytes` from `start` on.
struct Done {
    bytes: Vec<u8>,
    start: usize,
    block: Block,
    reused: bool,
    _place: Place,
}

/// The unpublished file; removed when dropped.
struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already once it was renamed; otherwise a best effort on the way out of an error.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl BlobWriter {
    /// Opens a temporary file beside `path` and starts the threads.
    pub fn create(path: &Path, options: Options) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = Temporary { path: name.into() };
        let mut file = File::options();
        let file = file.create(true).truncate(true).read(true).write(true);
        let file = file.open(&temporary.path).at("create", &temporary.path)?;
        if let Some(growth) = &options.growth {
            growth.begin(file.try_clone().at("open", &temporary.path)?);
        }
        let threads = options.threads.clamp(1, 8);
        let compression = options.compression;
        let form = form_of(compression);
        let known = Arc::new(Blocks::load(&options.earlier, &form));
        let (jobs, todo) = bounded::<Job>(1);
        let (order, ordered) = unbounded::<Receiver<Done>>(); // places bound it
        let begun = ROOM.begin();
        let workers = (0..threads)
            .map(|_| {
                let (todo, known) = (todo.clone(), Arc::clone(&known));
                std::thread::spawn(move || work(&todo, compression, &form, &known))
            })
            .collect();
        let growth = options.growth.clone();
        let writer = std::thread::spawn(move || {
            let outlet = Outlet::new(file, &temporary.path, &options);
            let (written, blocks) = write_in_order(&ordered, outlet)?;
            if let Some(index) = options.index.as_ref().filter(|_| blocks.len() > 1) {
                write_index(index, &form, &blocks)?;
            }
            Ok((written, temporary))
        });
        Ok(Self {
            raw: Raw {
                bytes: ROOM.buffer(),
                start: 0,
            },
            cutter: (compression != Compression::None).then(Cutter::default),
            jobs: Some(jobs),
            order: Some(order),
            workers,
            writer: Some(writer),
            path: path.to_path_buf(),
            growth,
            _begun: begun,
        })
    }

    /// Takes the next bytes; blocks while the threads behind are busy.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let end = match &mut self.cutter {
                Some(cutter) => cutter.take(bytes),
                None => Some(MEAN - self.raw.block().len()).filter(|&left| left <= bytes.len()),
            };
            let (now, later) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.raw.bytes.extend_from_slice(now);
            bytes = later;
            if end.is_some() {
                self.submit()?;
            }
        }
        Ok(())
    }

    /// Ends the blob, waits for the threads and publishes the file by renaming it.
    pub fn finish(mut self) -> Result<Written> {
        if !self.raw.block().is_empty() {
            self.submit()?;
        }
        let (written, temporary) = self.join()?;
        std::fs::rename(&temporary.path, &self.path).at("rename", &self.path)?;
        if let Some(growth) = &self.growth {
            growth.end(End::Whole);
        }
        Ok(written)
    }

    fn submit(&mut self) -> Result<()> {
        let place = ROOM.place();
        let full = &self.raw.bytes;
        let mut bytes = ROOM.buffer();
        bytes.extend_from_slice(&full[full.len().saturating_sub(WINDOW)..]);
        let start = bytes.len();
        let raw = std::mem::replace(&mut self.raw, Raw { bytes, start });
        let (reply, result) = bounded(1);
        let job = Job { raw, place, reply };
        let queued = self
            .order
            .as_ref()
            .is_some_and(|order| order.send(result).is_ok())
            && self
                .jobs
                .as_ref()
                .is_some_and(|jobs| jobs.send(job).is_ok());
        if queued {
            return Ok(());
        }
        // The writer ended before us: it says why.
        self.join().map(|_| ()).and(Err(Error::Interrupted))
    }

    fn join(&mut self) -> Result<(Written, Temporary)> {
        self.jobs = None;
        self.order = None;
        for worker in self.workers.drain(..) {
            resume(worker.join());
        }
        match self.writer.take() {
            Some(writer) => resume(writer.join()),
            None => Err(Error::Interrupted),
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if let Some(growth) = &self.growth {
            growth.end(End::Broken);
        }
        if self.writer.is_some() {
            // Ends the threads; the result carries the temporary file, which goes with it.
            drop(self.join());
        }
    }
}

/// A panic of a thread goes on in ours.
fn resume<T>(joined: std::thread::Result<T>) -> T {
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What decides a block's bytes besides itself and its window.
fn form_of(compression: Compression) -> Sum {
    let zstd = zstd::zstd_safe::version_number();
    let said = match compression {
        Compression::None => "none".to_owned(),
        Compression::Gzip(level) => format!("gzip {level} by {ENCODER}"),
        Compression::Zstd(level) => format!("zstd {level} by zstd {zstd} {ENCODER}"),
    };
    *blake3::hash(said.as_bytes()).as_bytes()
}

/// Thread: makes blocks, as they come.
fn work(todo: &Receiver<Job>, compression: Compression, form: &Sum, known: &Blocks) {
    for Job { raw, place, reply } in todo {
        let length = raw.block().len() as u32;
        let done = if compression == Compression::None {
            Done {
                bytes: raw.bytes,
                start: raw.start,
                block: Block::of(length),
                reused: false,
                _place: place,
            }
        } else {
            let mut bytes = ROOM.buffer();
            let (block, reused) = find_or_make(&raw, compression, form, known, &mut bytes);
            ROOM.keep(raw.bytes);
            Done {
                bytes,
                start: 0,
                block,
                reused,
                _place: place,
            }
        };
        // The writer may have ended on an error, which it reports itself.
        let _ = reply.send(done);
    }
}

/// Puts a block's compressed bytes into `packed`: copied where they are known, else made.
///
/// Returns:
///     The block, but for its place; and whether it was known.
fn find_or_make(
    raw: &Raw,
    compression: Compression,
    form: &Sum,
    known: &Blocks,
    packed: &mut Vec<u8>,
) -> (Block, bool) {
    let mut block = Block::of(raw.block().len() as u32);
    // zstd's frames know nothing of each other.
    let seen = match compression {
        Compression::Zstd(_) => raw.block(),
        _ => &raw.bytes,
    };
    let mut key = blake3::Hasher::new();
    key.update(form);
    key.update(&((seen.len() - raw.block().len()) as u64).to_le_bytes());
    block.key = *key.update(seen).finalize().as_bytes();
    if let Some(found) = known.copy(&block.key, raw.block().len(), packed) {
        return (found, true);
    }
    packed.clear();
    let mut turn = ROOM.turn(compression);
    turn.codec.encode(raw, &mut block, packed);
    block.sum = *blake3::hash(packed).as_bytes();
    block.packed_length = packed.len() as u32;
    (block, false)
}

enum Codec {
    None,
    Gzip(Box<Encoder>),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Codec {
    fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip(level) => Self::Gzip(Box::new(Encoder::new(level))),
            Compression::Zstd(level) => Self::Zstd(Box::new(
                // Levels are checked where they come in; this fails without memory only.
                zstd::bulk::Compressor::new(level).expect("a zstd context"),
            )),
        }
    }

    fn encode(&mut self, raw: &Raw, block: &mut Block, packed: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Gzip(encoder) => {
                block.crc = crc32fast::hash(raw.block());
                encoder.encode(&raw.bytes, raw.start, packed);
            }
            Self::Zstd(zstd) => zstd_frame(zstd, raw.block(), packed),
        }
    }
}

fn zstd_frame(compressor: &mut zstd::bulk::Compressor<'_>, block: &[u8], out: &mut Vec<u8>) {
    out.reserve(zstd::zstd_safe::compress_bound(block.len()));
    compressor
        .compress_to_buffer(block, out)
        .expect("a buffer of zstd's own bound takes every block");
}

/// The file, its digest, and who is told how long it is.
struct Outlet<'a> {
    file: File,
    path: &'a Path,
    compression: Compression,
    growth: Option<&'a Growth>,
    digest: Sha256,
    size: u64,
}

impl<'a> Outlet<'a> {
    fn new(file: File, path: &'a Path, options: &'a Options) -> Self {
        Self {
            file,
            path,
            compression: options.compression,
            growth: options.growth.as_deref(),
            digest: Sha256::new(),
            size: 0,
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).at("write", self.path)?;
        self.size += bytes.len() as u64;
        if let Some(growth) = self.growth {
            growth.reached(self.size);
        }
        if self.compression != Compression::None {
            self.digest.update(bytes);
        }
        Ok(())
    }
}

/// Thread: takes the blocks in order. Gives them with their places in the blob.
fn write_in_order(
    ordered: &Receiver<Receiver<Done>>,
    mut outlet: Outlet<'_>,
) -> Result<(Written, Vec<Block>)> {
    let compression = outlet.compression;
    let is_gzip = matches!(compression, Compression::Gzip(_));
    if is_gzip {
        outlet.put(&GZIP_HEADER)?;
    }
    let mut crc = crc32fast::Hasher::new();
    let (mut length, mut reused) = (0_u32, 0);
    let mut blocks = Vec::new();
    for result in ordered {
        let Ok(mut done) = result.recv() else {
            return Err(Error::Interrupted);
        };
        done.block.offset = outlet.size;
        outlet.put(&done.bytes[done.start..])?;
        let block_length = u64::from(done.block.length);
        crc.combine(&crc32fast::Hasher::new_with_initial_len(
            done.block.crc,
            block_length,
        ));
        length = length.wrapping_add(done.block.length);
        if let Some(growth) = outlet.growth {
            growth.holds(block_length);
        }
        if done.reused {
            reused += u64::from(done.block.packed_length);
        }
        if compression != Compression::None {
            blocks.push(done.block);
        }
        ROOM.keep(done.bytes);
    }
    if is_gzip {
        outlet.put(&DEFLATE_END)?;
        outlet.put(&crc.finalize().to_le_bytes())?;
        outlet.put(&length.to_le_bytes())?;
    }
    let written = Written {
        digest: (compression != Compression::None)
            .then(|| format!("sha256:{}", hex(&outlet.digest.finalize()))),
        size: outlet.size,
        reused,
    };
    Ok((written, blocks))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| DIGITS[digit as usize] as char).collect()
}

#[cfg(test)]
mod tests;
