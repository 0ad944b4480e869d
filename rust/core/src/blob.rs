//! [`BlobSink`]: a blob's bytes as they arrive, verified, stored and extracted at once.
//!
//! The door feeds it from a download; [`apply`] reads a stored blob through the same pipeline.
//! One thread hashes the compressed bytes and writes the file, one decompresses, one hashes the
//! tar (both sides of compression have a digest), one parses and extracts (`apply`). Chunks go
//! from thread to thread by reference through short channels, and come back to be filled again:
//! memory does not depend on any size. Nothing is published before every digest was right.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, SendTimeoutError, Sender};
use sha2::{Digest as _, Sha256};

use crate::apply::{extract, Counts, Form};
use crate::counted::Counted;
use crate::error::{Error, IoContext, Result};
use crate::inflate::{sniff, Codec};
use crate::tar_read::{unwrap_error, wrap_error};

/// Bytes in a chunk: large enough for a thread switch to be cheap, small enough for the caches.
const CHUNK: usize = 256 << 10;
/// Chunks that may wait in one channel.
const DEPTH: usize = 6;
/// How often a waiting caller looks up (for a signal, say).
const SLICE: Duration = Duration::from_millis(100);

/// What one extraction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyStats {
    /// `sha256:<hex>` of the uncompressed tar.
    pub diff_id: String,
    /// Bytes of the uncompressed tar.
    pub uncompressed_size: u64,
    /// Entries and content.
    pub counts: Counts,
}

/// Extracts a stored blob (tar, gzip or zstd, told by its magic bytes) into an empty folder.
///
/// Args:
///     count: Grows by the bytes of the file that were read.
/// Raises:
///     `Error::Digest` where the uncompressed tar is not `diff_id`; `Error::Layer`, `Error::Io`,
///     `Error::Interrupted`. `dest` may then hold a part of the layer.
pub fn apply(
    blob: &Path,
    dest: &Path,
    diff_id: Option<&str>,
    stop: &AtomicBool,
    count: &AtomicU64,
) -> Result<ApplyStats> {
    let file = Counted::new(File::open(blob).at("open", blob)?, count);
    unpack(BufReader::with_capacity(CHUNK, file), dest, diff_id, stop)
}

/// Bytes on their way between threads; the buffer goes back to its pool when the last one is done.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // A full or closed pool lets the buffer go.
        let _ = self.home.try_send(std::mem::take(&mut self.bytes));
    }
}

/// Buffers to be used again: fresh ones cost a page fault for every 4 KiB.
#[derive(Debug)]
struct Pool {
    give: Sender<Vec<u8>>,
    take: Receiver<Vec<u8>>,
}

impl Pool {
    fn new() -> Self {
        let (give, take) = bounded(2 * DEPTH);
        Self { give, take }
    }

    /// A buffer, with the bytes of its last use in it.
    fn buffer(&self) -> Vec<u8> {
        let used = self.take.try_recv();
        used.unwrap_or_else(|_| Vec::with_capacity(CHUNK))
    }

    fn chunk(&self, bytes: Vec<u8>) -> Arc<Chunk> {
        let home = self.give.clone();
        Arc::new(Chunk { bytes, home })
    }
}

/// What passes between threads. A channel that closes without `End` was given up.
#[derive(Debug)]
enum Piece {
    Bytes(Arc<Chunk>),
    End,
    Failed(Error),
}

/// A channel of pieces as a `BufRead`.
struct PieceReader {
    pieces: Receiver<Piece>,
    current: Option<Arc<Chunk>>,
    position: usize,
    ended: bool,
}

impl PieceReader {
    fn new(pieces: Receiver<Piece>) -> Self {
        Self {
            pieces,
            current: None,
            position: 0,
            ended: false,
        }
    }
}

impl BufRead for PieceReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while !self.ended
            && self
                .current
                .as_ref()
                .is_none_or(|chunk| self.position == chunk.len())
        {
            // Let the buffer go before waiting for the next one.
            self.current = None;
            self.position = 0;
            match self.pieces.recv() {
                Ok(Piece::Bytes(chunk)) => self.current = Some(chunk),
                Ok(Piece::End) => self.ended = true,
                Ok(Piece::Failed(error)) => return Err(wrap_error(error)),
                Err(_) => return Err(wrap_error(Error::Interrupted)),
            }
        }
        Ok(self
            .current
            .as_ref()
            .map_or(&[], |chunk| &chunk[self.position..]))
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Decompresses, digests and extracts a layer.
fn unpack(
    source: impl BufRead + Send,
    dest: &Path,
    diff_id: Option<&str>,
    stop: &AtomicBool,
) -> Result<ApplyStats> {
    let (to_hash, hash_pieces) = bounded(DEPTH);
    let (to_tar, tar_pieces) = bounded(DEPTH);
    let (counts, digest, size) = std::thread::scope(|scope| {
        scope.spawn(move || inflate(source, &to_hash, &to_tar, stop));
        let hasher = scope.spawn(move || hash(&hash_pieces));
        let (counts, mut rest) = extract(PieceReader::new(tar_pieces), dest, Form::Layer, stop)?;
        // What follows the archive's end is part of what the digest stands for.
        io::copy(&mut rest, &mut io::sink()).map_err(|error| unwrap_error(error, "the end"))?;
        drop(rest);
        let (digest, size) = hasher.join().map_err(|_| died())?;
        Ok((counts, digest, size))
    })?;
    match diff_id {
        Some(expected) if expected != digest => Err(Error::Digest {
            what: "diff ID",
            expected: expected.to_owned(),
            actual: digest,
        }),
        _ => Ok(ApplyStats {
            diff_id: digest,
            uncompressed_size: size,
            counts,
        }),
    }
}

/// Thread: decompresses, and hands every chunk to the hasher and to the extraction.
fn inflate(
    source: impl BufRead + Send,
    to_hash: &Sender<Piece>,
    to_tar: &Sender<Piece>,
    stop: &AtomicBool,
) {
    let last = match inflate_all(source, to_hash, to_tar, stop) {
        Ok(()) => Piece::End,
        Err(error) => Piece::Failed(error),
    };
    // A closed channel means that the extraction has failed and says so itself.
    let _ = to_tar.send(last);
}

fn inflate_all(
    source: impl BufRead + Send,
    to_hash: &Sender<Piece>,
    to_tar: &Sender<Piece>,
    stop: &AtomicBool,
) -> Result<()> {
    let place = "the compressed stream";
    let failed = |error| unwrap_error(error, place);
    let (codec, source) = sniff(source).map_err(failed)?;
    let codec = match codec {
        // Not among the media types of layers: image-spec v1.1, layer.md, "+gzip", "+zstd".
        Codec::Bzip2 | Codec::Xz => Codec::Plain,
        codec => codec,
    };
    let mut reader = codec.reader(source).map_err(failed)?;
    let pool = Pool::new();
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let mut buffer = pool.buffer();
        fill(&mut reader, &mut buffer).map_err(failed)?;
        if buffer.is_empty() {
            return Ok(());
        }
        let chunk = pool.chunk(buffer);
        let sent = to_hash.send(Piece::Bytes(chunk.clone())).is_ok()
            && to_tar.send(Piece::Bytes(chunk)).is_ok();
        if !sent {
            return Err(Error::Interrupted);
        }
    }
}

/// Fills a buffer, or reads to the end. A used buffer has its length already, and is not zeroed
/// for bytes that are about to be overwritten.
fn fill(reader: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.resize(CHUNK, 0);
    let mut filled = 0;
    while filled < CHUNK {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(())
}

/// Thread: the digest and length of all that passes.
fn hash(pieces: &Receiver<Piece>) -> (String, u64) {
    let mut hasher = Sha256::new();
    let mut size = 0;
    for piece in pieces {
        if let Piece::Bytes(chunk) = piece {
            hasher.update(&**chunk);
            size += chunk.len() as u64;
        }
    }
    (digest_text(hasher), size)
}

fn digest_text(hasher: Sha256) -> String {
    use std::fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in hasher.finalize() {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What a sink does with the bytes.
#[derive(Debug, Clone, Default)]
pub struct SinkOptions {
    /// Where the verified blob is to stand; None keeps none.
    pub path: Option<PathBuf>,
    /// `sha256:<hex>` that the bytes must have.
    pub digest: String,
    /// Length that they must have, where it is known.
    pub size: Option<u64>,
    /// Existing empty folder for the layer; None stores only.
    pub extract_to: Option<PathBuf>,
    /// Digest that the uncompressed tar must have, where it is known.
    pub diff_id: Option<String>,
}

/// Takes one blob's bytes as they arrive. Dropping it is [`BlobSink::abort`].
#[derive(Debug)]
pub struct BlobSink {
    path: Option<PathBuf>,
    offset: u64,
    /// Channels to the threads; empty once the sink was closed.
    feeds: Vec<Sender<Piece>>,
    outcomes: Receiver<Outcome>,
    threads: Vec<JoinHandle<()>>,
    pool: Pool,
    stop: Arc<AtomicBool>,
    /// The verified file, to be published.
    stored: Option<Partial>,
    applied: Option<ApplyStats>,
    failed: Option<Error>,
    /// Threads whose outcome has not been taken yet.
    outstanding: usize,
}

/// What a thread ends with.
#[derive(Debug)]
enum Outcome {
    Stored(Result<Option<Partial>>),
    Applied(Result<ApplyStats>),
}

impl BlobSink {
    /// Opens the partial file and starts the threads.
    pub fn open(options: SinkOptions) -> Result<Self> {
        if !options.digest.starts_with("sha256:") {
            return Err(Error::Unsupported {
                feature: format!("the digest algorithm of {}", options.digest),
                place: "a blob".to_owned(),
            });
        }
        let partial = options.path.as_deref().map(Partial::create).transpose()?;
        let (report, outcomes) = bounded(2);
        let stop = Arc::new(AtomicBool::new(false));
        let mut sink = Self {
            path: options.path,
            offset: 0,
            feeds: Vec::new(),
            outcomes,
            threads: Vec::new(),
            pool: Pool::new(),
            stop: stop.clone(),
            stored: None,
            applied: None,
            failed: None,
            outstanding: 0,
        };
        let (digest, size, done) = (options.digest, options.size, report.clone());
        sink.start("blob store", move |pieces| {
            let _ = done.send(Outcome::Stored(store(&pieces, partial, &digest, size)));
        })?;
        if let Some(dest) = options.extract_to {
            let diff_id = options.diff_id;
            sink.start("blob layer", move |pieces| {
                let source = PieceReader::new(pieces);
                let done = unpack(source, &dest, diff_id.as_deref(), &stop);
                let _ = report.send(Outcome::Applied(done));
            })?;
        }
        Ok(sink)
    }

    fn start(
        &mut self,
        name: &str,
        work: impl FnOnce(Receiver<Piece>) + Send + 'static,
    ) -> Result<()> {
        let (feed, pieces) = bounded(DEPTH);
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread
            .spawn(move || work(pieces))
            .at("start a thread for", name)?;
        self.threads.push(thread);
        self.feeds.push(feed);
        self.outstanding += 1;
        Ok(())
    }

    /// Bytes taken so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes; blocks while the threads are busy.
    ///
    /// Args:
    ///     poll: Called every 100 ms of waiting; its error ends the sink.
    /// Raises:
    ///     What the threads found so far, and from then on.
    pub fn write(&mut self, data: &[u8], poll: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.check()?;
        if self.feeds.is_empty() {
            return Err(closed());
        }
        for part in data.chunks(CHUNK) {
            let mut buffer = self.pool.buffer();
            buffer.clear();
            buffer.extend_from_slice(part);
            let chunk = self.pool.chunk(buffer);
            for index in 0..self.feeds.len() {
                let sent = self.send(index, Piece::Bytes(chunk.clone()), poll);
                if sent.is_err() {
                    self.abort();
                    return sent;
                }
            }
            self.offset += part.len() as u64;
        }
        Ok(())
    }

    /// Ends the blob, waits for the threads, publishes the file.
    ///
    /// Raises:
    ///     The first error found; a wrong digest or size of the blob before all others, since it
    ///     is the cause of what the extraction met. Nothing is left then.
    pub fn finish(&mut self, poll: &mut dyn FnMut() -> Result<()>) -> Result<Option<ApplyStats>> {
        if let Some(error) = &self.failed {
            return Err(duplicate(error));
        }
        if self.feeds.is_empty() {
            return Err(closed());
        }
        let done = self.drain(poll);
        if done.is_err() {
            self.abort();
        }
        done?;
        self.join();
        if let (Some(partial), Some(path)) = (self.stored.take(), &self.path) {
            partial.publish(path)?;
        }
        Ok(self.applied.take())
    }

    /// Stops the threads and removes the partial blob. Safe to call twice, or after finish.
    pub fn abort(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.join();
        self.stored = None;
        // A file that waits in an unread outcome goes with it.
        while self.outcomes.try_recv().is_ok() {}
    }

    fn join(&mut self) {
        self.feeds.clear();
        for thread in self.threads.drain(..) {
            // A panic was printed by its own thread and shows as a missing outcome.
            let _ = thread.join();
        }
    }

    /// Tells the threads that this is the end, and waits for what they say.
    fn drain(&mut self, poll: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        for index in 0..self.feeds.len() {
            let sent = self.send(index, Piece::End, poll);
            // A thread that failed has left its reason; the others may know a deeper one.
            if sent.is_err() && self.failed.is_none() {
                return sent;
            }
        }
        self.feeds.clear();
        while self.outstanding > 0 {
            match self.outcomes.recv_timeout(SLICE) {
                Ok(outcome) => self.take(outcome),
                Err(RecvTimeoutError::Timeout) => poll()?,
                Err(RecvTimeoutError::Disconnected) => return Err(died()),
            }
        }
        self.check()
    }

    /// Sends a piece to one thread, looking up now and then.
    fn send(
        &mut self,
        index: usize,
        piece: Piece,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut piece = piece;
        loop {
            match self.feeds[index].send_timeout(piece, SLICE) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) => {
                    piece = back;
                    self.check()?;
                    poll()?;
                }
                Err(SendTimeoutError::Disconnected(_)) => {
                    // The thread is ending; its outcome is there, or about to be.
                    if let Ok(outcome) = self.outcomes.recv_timeout(Duration::from_secs(10)) {
                        self.take(outcome);
                    }
                    self.check()?;
                    return Err(died());
                }
            }
        }
    }

    /// Raises what the threads have found so far.
    fn check(&mut self) -> Result<()> {
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.take(outcome);
        }
        match &self.failed {
            Some(error) => Err(duplicate(error)),
            None => Ok(()),
        }
    }

    fn take(&mut self, outcome: Outcome) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let error = match outcome {
            Outcome::Stored(Ok(partial)) => {
                self.stored = partial;
                return;
            }
            Outcome::Applied(Ok(stats)) => {
                self.applied = Some(stats);
                return;
            }
            Outcome::Stored(Err(error)) | Outcome::Applied(Err(error)) => error,
        };
        let is_cause = matches!(
            error,
            Error::Size { .. } | Error::Digest { what: "blob", .. }
        );
        if self.failed.is_none() || is_cause {
            self.failed = Some(error);
        }
    }
}

impl Drop for BlobSink {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Thread: verifies the compressed bytes and writes them.
fn store(
    pieces: &Receiver<Piece>,
    mut partial: Option<Partial>,
    digest: &str,
    size: Option<u64>,
) -> Result<Option<Partial>> {
    let mut hasher = Sha256::new();
    let mut actual = 0_u64;
    let wrong_size = |actual| Error::Size {
        expected: size.unwrap_or_default(),
        actual,
    };
    loop {
        let chunk = match pieces.recv() {
            Ok(Piece::Bytes(chunk)) => chunk,
            Ok(Piece::End) => break,
            Ok(Piece::Failed(error)) => return Err(error),
            Err(_) => return Err(Error::Interrupted),
        };
        actual += chunk.len() as u64;
        if size.is_some_and(|size| actual > size) {
            return Err(wrong_size(actual));
        }
        hasher.update(&**chunk);
        if let Some(partial) = &mut partial {
            partial.write(&chunk)?;
        }
    }
    if size.is_some_and(|size| actual != size) {
        return Err(wrong_size(actual));
    }
    let found = digest_text(hasher);
    if found != digest {
        return Err(Error::Digest {
            what: "blob",
            expected: digest.to_owned(),
            actual: found,
        });
    }
    Ok(partial)
}

/// A file being written beside its place; removed unless published.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Partial {
    fn create(target: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}-{number}.partial", std::process::id()));
        let path = target.with_file_name(name);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&path)
            .at("create", &path)?;
        Ok(Self {
            path,
            file,
            published: false,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).at("write", &self.path)
    }

    fn publish(mut self, target: &Path) -> Result<()> {
        std::fs::rename(&self.path, target).at("rename", target)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.published {
            // It may be gone already, with its folder; then there is nothing to clean.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The same error again: a sink that failed keeps saying why.
fn duplicate(error: &Error) -> Error {
    match error {
        Error::Io { op, path, source } => Error::Io {
            op,
            path: path.clone(),
            source: match source.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(source.kind(), source.to_string()),
            },
        },
        Error::Digest {
            what,
            expected,
            actual,
        } => Error::Digest {
            what,
            expected: expected.clone(),
            actual: actual.clone(),
        },
        Error::Size { expected, actual } => Error::Size {
            expected: *expected,
            actual: *actual,
        },
        Error::Interrupted => Error::Interrupted,
        Error::Layer { entry, reason } => Error::Layer {
            entry: entry.clone(),
            reason: reason.clone(),
        },
        other => Error::Layer {
            entry: "blob".to_owned(),
            reason: other.to_string(),
        },
    }
}

fn closed() -> Error {
    Error::Layer {
        entry: "blob".to_owned(),
        reason: "the sink was closed already".to_owned(),
    }
}

fn died() -> Error {
    Error::Layer {
        entry: "blob".to_owned(),
        reason: "a thread of the extraction died".to_owned(),
    }
}

#[cfg(test)]
mod tests;
