//! [`unpack_chunks`]: chunks, which are there as files, become a folder again.
//!
//! They are decompressed on several threads, a few ahead of the extraction, which takes them in
//! order. None may be longer than any chunk is, so what they unpack to is bounded by their number.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{bounded, Receiver, Sender};

use crate::apply::{extract, Form};
use crate::compress::hex;
use crate::cut::MAX;
use crate::error::{Error, IoContext, Result};
use crate::explore::thread_count;
use crate::tar_read::{unwrap_error, wrap_error};

/// The longest chunk on disk: what zstd makes of the longest one if nothing can be saved.
const MAX_FRAME: u64 = (MAX + (MAX >> 8) + 1024) as u64;

/// Extracts chunks, in the tar's order, into the existing folder `dest`.
///
/// Args:
///     `total_bytes`: Length that the tar must have.
/// Returns:
///     BLAKE3 of the tar's bytes in each chunk, in hexadecimal: what `chunk_folder` is told of it.
/// Raises:
///     `Error::Layer` for a chunk that is none and a hostile or broken tar; `Error::Size`;
///     `Error::Io`, `Error::Interrupted`. `dest` may then hold a part.
pub fn unpack_chunks(
    chunks: &[PathBuf],
    dest: &Path,
    total_bytes: u64,
    stop: &AtomicBool,
) -> Result<Vec<String>> {
    let threads = thread_count();
    std::thread::scope(|scope| {
        let (todo, take) = bounded::<(&Path, Sender<Unpacked>)>(threads);
        let (order, ordered) = bounded(threads);
        for _ in 0..threads.min(chunks.len()) {
            let take = take.clone();
            scope.spawn(move || {
                for (path, reply) in take {
                    // Nobody waits for it where the extraction failed.
                    let _ = reply.send(inflate(path));
                }
            });
        }
        drop(take);
        scope.spawn(move || {
            for path in chunks {
                let (reply, answer) = bounded(1);
                if order.send(answer).is_err() || todo.send((path, reply)).is_err() {
                    return;
                }
            }
        });
        let reader = Joined {
            ordered,
            bytes: Vec::new(),
            at: 0,
            total: 0,
            sums: Vec::new(),
        };
        let (_, mut rest) = extract(reader, dest, Form::Archive, stop)?;
        // What follows the archive's end belongs to the chunks all the same.
        io::copy(&mut rest, &mut io::sink()).map_err(|error| unwrap_error(error, "the end"))?;
        if rest.total != total_bytes {
            return Err(Error::Size {
                expected: total_bytes,
                actual: rest.total,
            });
        }
        Ok(rest.sums)
    })
}

/// A chunk's bytes and their BLAKE3.
type Unpacked = Result<(Vec<u8>, String)>;

fn inflate(path: &Path) -> Unpacked {
    let broken = |reason: String| Error::Layer {
        entry: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        reason,
    };
    let file = File::open(path).at("open", path)?;
    let mut frame = Vec::new();
    file.take(MAX_FRAME + 1)
        .read_to_end(&mut frame)
        .at("read", path)?;
    if frame.len() as u64 > MAX_FRAME {
        return Err(broken("longer than any chunk is".to_owned()));
    }
    let bytes = zstd::bulk::decompress(&frame, MAX);
    let bytes = bytes.map_err(|error| broken(format!("no chunk of a folder: {error}")))?;
    let sum = hex(blake3::hash(&bytes).as_bytes());
    Ok((bytes, sum))
}

/// The chunks' bytes, one behind the other.
struct Joined {
    ordered: Receiver<Receiver<Unpacked>>,
    bytes: Vec<u8>,
    at: usize,
    total: u64,
    sums: Vec<String>,
}

impl BufRead for Joined {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.bytes.len() {
            let Ok(answer) = self.ordered.recv() else {
                break;
            };
            let unpacked = answer.recv().map_err(|_| wrap_error(Error::Interrupted))?;
            let (bytes, sum) = unpacked.map_err(wrap_error)?;
            self.total += bytes.len() as u64;
            self.sums.push(sum);
            (self.bytes, self.at) = (bytes, 0);
        }
        Ok(&self.bytes[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}
