//! [`chunk_folder`]: a cache's folder as chunks that travel; [`unpack_chunks`] is the way back.
//!
//! `folder` writes the folder as a tar, `cut` says where that is cut, and each piece becomes one
//! zstd frame, named by its sha256: one behind the other, the chunks are a `.tar.zst`. One thread
//! reads and cuts; others compress, unless the piece is known already; one more keeps the order. A
//! few pieces of at most 4 MiB for each thread are in memory. The chunks depend on the folder
//! alone: not on the number of threads, and not on what was known.
//! Source: RFC 8878, section 3.1 (frames may follow one another).

mod folder;
mod join;
mod links;

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use sha2::{Digest as _, Sha256};

pub use self::join::unpack_chunks;

use self::folder::{write_tar, Sink};
use crate::compress::hex;
use crate::cut::{Cutter, MAX};
use crate::error::{Error, IoContext, Result};
use crate::explore::thread_count;

/// zstd's own default: much of what is in caches is compressed already.
const LEVEL: i32 = 3;

/// One chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// `sha256:<hex>` of the frame.
    pub digest: String,
    /// Length of the frame.
    pub size: u64,
    /// BLAKE3 of the tar's bytes in it, in hexadecimal.
    pub content: String,
    /// True where it was known, and no frame was made.
    pub known: bool,
}

/// A folder in chunks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunked {
    /// The chunks, in the tar's order; one may stand in several places.
    pub chunks: Vec<Chunk>,
    /// Length of the tar.
    pub total_bytes: u64,
    /// Its entries.
    pub entries: u64,
    /// Paths of files that somebody else was writing to whenever they were read.
    pub left_out: Vec<Vec<u8>>,
    /// Paths of files that were written to while they were read, of which both states are in the tar.
    pub torn: Vec<Vec<u8>>,
}

/// The chunks that need no frame: digest and size of the frame by [`Chunk::content`].
pub type Known = HashMap<String, (String, u64)>;

/// Where the frames go.
#[derive(Debug)]
enum Outlet<'a> {
    /// A file for each in a folder, by its digest's hexadecimal part.
    Folder(&'a Path),
    /// One behind the other.
    Stream(&'a File),
}

/// Cuts the folder `source` into chunks, and leaves those that are not known as files in `spool`.
///
/// A file that is written to while it is read is in no chunk.
///
/// Args:
///     threads: How many compress; None is a fitting number.
///     stop: Set by another thread to give up.
/// Raises:
///     `Error::Io`, `Error::Interrupted`. Files may then be left in `spool`.
pub fn chunk_folder(
    source: &Path,
    spool: &Path,
    known: &Known,
    threads: Option<usize>,
    stop: &AtomicBool,
) -> Result<Chunked> {
    let mut without = HashSet::new();
    loop {
        let outlet = Outlet::Folder(spool);
        let mut made = chunked(source, &without, known, &outlet, threads, stop)?;
        if made.torn.is_empty() {
            made.left_out.extend(without);
            made.left_out.sort_unstable();
            return Ok(made);
        }
        without.extend(made.torn);
    }
}

/// Writes the chunks of the folder `source` to a file or a pipe: a `.tar.zst`.
pub fn stream_folder(source: &Path, output: &File, stop: &AtomicBool) -> Result<Chunked> {
    let outlet = Outlet::Stream(output);
    let known = Known::new();
    chunked(source, &HashSet::new(), &known, &outlet, None, stop)
}

fn chunked(
    source: &Path,
    without: &HashSet<Vec<u8>>,
    known: &Known,
    outlet: &Outlet<'_>,
    threads: Option<usize>,
    stop: &AtomicBool,
) -> Result<Chunked> {
    let threads = threads.unwrap_or_else(thread_count);
    std::thread::scope(|scope| {
        let (todo, take) = bounded::<Job>(threads);
        let (order, ordered) = bounded(threads);
        let (give_back, spare) = unbounded();
        for _ in 0..threads {
            let (take, give_back) = (take.clone(), give_back.clone());
            scope.spawn(move || {
                for job in take {
                    let made = job.make(known);
                    // Nobody waits for it where another one failed.
                    let _ = give_back.send(job.bytes);
                    let _ = job.reply.send(made);
                }
            });
        }
        drop(take);
        let collector = scope.spawn(move || collect(&ordered, outlet));
        let mut slicer = Slicer {
            cutter: Cutter::default(),
            bytes: Vec::with_capacity(MAX),
            total: 0,
            todo,
            order,
            spare,
        };
        let walked = write_tar(source, without, &mut slicer, stop);
        let walked = walked.and_then(|walked| slicer.cut().map(|()| walked));
        let total_bytes = slicer.total;
        drop(slicer);
        let collected = collector.join();
        // A collector that failed is the cause of a walk that found it gone.
        let chunks = collected.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let walked = walked?;
        Ok(Chunked {
            chunks,
            total_bytes,
            entries: walked.entries,
            left_out: walked.left_out,
            torn: walked.torn,
        })
    })
}

/// Cuts the tar, and hands the pieces to the threads.
struct Slicer {
    cutter: Cutter,
    bytes: Vec<u8>,
    total: u64,
    todo: Sender<Job>,
    order: Sender<Receiver<Made>>,
    spare: Receiver<Vec<u8>>,
}

impl Sink for Slicer {
    fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.total += bytes.len() as u64;
        while let Some(end) = self.cutter.take(bytes) {
            self.bytes.extend_from_slice(&bytes[..end]);
            self.send()?;
            bytes = &bytes[end..];
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.cutter.restart();
        self.send()
    }
}

impl Slicer {
    fn send(&mut self) -> Result<()> {
        let mut next = self.spare.try_recv().unwrap_or_default();
        next.clear();
        let bytes = std::mem::replace(&mut self.bytes, next);
        let (reply, answer) = bounded(1);
        // A closed channel means that the collector failed, and says so itself.
        let sent = self.order.send(answer).is_ok() && self.todo.send(Job { bytes, reply }).is_ok();
        if sent {
            Ok(())
        } else {
            Err(Error::Interrupted)
        }
    }
}

/// A piece to be made a chunk.
struct Job {
    bytes: Vec<u8>,
    reply: Sender<Made>,
}

/// A chunk, and its frame unless that was known.
type Made = Result<(Chunk, Vec<u8>)>;

impl Job {
    fn make(&self, known: &Known) -> Made {
        let content = hex(blake3::hash(&self.bytes).as_bytes());
        if let Some((digest, size)) = known.get(&content) {
            let chunk = Chunk {
                digest: digest.clone(),
                size: *size,
                content,
                known: true,
            };
            return Ok((chunk, Vec::new()));
        }
        let frame = compress(&self.bytes).at("compress", "a chunk")?;
        let chunk = Chunk {
            digest: format!("sha256:{}", hex(&Sha256::digest(&frame))),
            size: frame.len() as u64,
            content,
            known: false,
        };
        Ok((chunk, frame))
    }
}

/// One frame, with its length and a checksum, as the `zstd` program writes it.
fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    compressor.compress(bytes)
}

/// Thread: takes the chunks in order, and puts their frames where they go.
fn collect(ordered: &Receiver<Receiver<Made>>, outlet: &Outlet<'_>) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    for answer in ordered {
        let (chunk, frame) = answer.recv().map_err(|_| Error::Interrupted)??;
        if !chunk.known {
            outlet.put(&chunk, &frame)?;
        }
        chunks.push(chunk);
    }
    Ok(chunks)
}

impl Outlet<'_> {
    fn put(&self, chunk: &Chunk, frame: &[u8]) -> Result<()> {
        match self {
            Self::Stream(mut file) => file.write_all(frame).at("write", "the archive"),
            Self::Folder(folder) => {
                let path: PathBuf = folder.join(chunk.digest.trim_start_matches("sha256:"));
                let made = OpenOptions::new().write(true).create_new(true).open(&path);
                match made {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    made => made
                        .at("create", &path)?
                        .write_all(frame)
                        .at("write", &path),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
