//! [`digest`]: turns a plan of entries into a tar on the fly, and digests it in the same pass.
//!
//! `pack` and `copy` make the plan and open the files; this reads them in order on several
//! threads, each file once: into the tar, into its BLAKE3, and, for a copy, into its destination.
//! The calling thread takes the tar's bytes in order into its SHA-256; where a blob is wanted, one
//! more cuts them for it (`compress`). The tar itself never exists. Memory is a few pieces of [`PIECE`] bytes a thread.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use sha2::{Digest as _, Sha256};

use crate::cancel::Cancel;
use crate::compress::{hex, BlobWriter};
use crate::entry::{Entry, Kind, Xattr};
use crate::error::{IoContext, Result};
use crate::memo::Stamp;
use crate::tar_write::{append_header, padding, END};
use crate::Error;

/// Tar bytes handed on at once.
const PIECE: usize = 256 << 10;
/// Pieces that one thread may be ahead with.
const AHEAD: usize = 4;
/// Files that one thread takes at once, at most.
const BATCH_FILES: usize = 128;

/// A layer made from a folder. See `Packed` of the door for the fields' meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// `sha256:<hex>` of the uncompressed tar.
    pub diff_id: String,
    /// Length of that tar.
    pub uncompressed_size: u64,
    /// `blake3:<hex>` over everything but times.
    pub content_digest: String,
    /// Entries of the tar.
    pub entries: u64,
    /// `sha256:<hex>` of the blob, where one was written.
    pub digest: Option<String>,
    /// Length of the blob.
    pub size: Option<u64>,
    /// Bytes of the blob that were copied from earlier ones.
    pub reused: Option<u64>,
    /// A file whose content was not what its selection's digest says any more.
    pub drifted: Option<String>,
    /// A file of an earlier layer, to be shared, whose content was not what was written there.
    pub damaged: Option<String>,
}

/// A file of the plan, ready to be read.
pub struct Opened {
    /// Where its bytes come from.
    pub file: File,
    /// How many there are, by the open file.
    pub size: u64,
    /// Its path, for errors.
    pub path: PathBuf,
    /// Where they are to be written as well; None where there is nothing to write.
    pub copy_to: Option<File>,
    /// True where `copy_to` shares the source's blocks already, and nothing is to be written.
    pub cloned: bool,
    /// Its BLAKE3, where that is known for this very state of the file.
    pub known: Option<[u8; 32]>,
    /// Its state when it was opened, where its content was not known for it.
    pub state: Option<Stamp>,
    /// Extended attributes to add to what the plan says, where they show on the open file only.
    pub xattrs: Vec<Xattr>,
}

/// The entries of a layer in the tar's order, each made when its turn comes: of millions of files
/// a plan holds what it must, and an [`Entry`] only of those that are being read.
pub trait Plan: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// The length of one's content, as far as it is known before it is opened.
    fn size(&self, index: usize) -> u64;

    /// What makes the entries, one for each thread.
    fn entries(&self) -> Box<dyn Entries + '_>;
}

/// Makes one entry of a plan at a time.
pub trait Entries {
    /// The entry of an index; neighbours cost least one after the other.
    fn entry(&mut self, index: usize) -> &Entry;
}

/// Opens what the plan's entries stand for; called from several threads, each entry once.
pub trait Contents: Sync {
    /// Opens a regular file's content; None where there is none (an empty file, a whiteout).
    fn open(&self, index: usize, entry: &Entry) -> Result<Option<Opened>>;

    /// Called once all bytes were read (and written): the place to set attributes. `digest` is the
    /// content's BLAKE3.
    fn close(&self, index: usize, entry: &Entry, opened: Opened, digest: &[u8; 32]) -> Result<()>;
}

/// Part of the tar, and the content records of the entries that end in it.
struct Piece {
    bytes: Box<[u8]>,
    used: usize,
    records: Vec<u8>,
}

/// Digests the plan as a tar, writing it to `blob` where one is given.
///
/// The outcome depends on the plan and the files' content alone, not on `threads`.
pub fn digest(
    plan: &dyn Plan,
    contents: &dyn Contents,
    mut blob: Option<BlobWriter>,
    threads: usize,
    cancel: &Cancel,
) -> Result<Packed> {
    let count = plan.count();
    let cursor = Mutex::new(0);
    let (order, ordered) = bounded(threads + 1);
    let (give_back, spare) = unbounded();
    let mut sums = Sums::new();
    let outcome = std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            let reader = Reader {
                plan,
                contents,
                cursor: &cursor,
                order: order.clone(),
                spare: spare.clone(),
                cancel,
            };
            scope.spawn(move || reader.run());
        }
        drop(order);
        // Moved in, so that the readers see an early end of this loop and end too.
        let ordered: Receiver<Receiver<Result<Piece>>> = ordered;
        let mut feeder = blob.take().map(|blob| {
            let (feed, fed) = bounded(AHEAD);
            let give_back = give_back.clone();
            (feed, scope.spawn(move || fill(blob, &fed, &give_back)))
        });
        let mut pieces = ordered.into_iter().flatten();
        let taken = pieces.try_for_each(|piece| {
            let piece = piece?;
            sums.take(&piece);
            let next = feeder.as_ref().map_or(&give_back, |(feed, _)| feed);
            // The readers may have ended already; a feeder that ended is found out below.
            let sent = next.send(piece);
            if sent.is_err() && feeder.is_some() {
                return Err(Error::Interrupted);
            }
            Ok(())
        });
        if let Some((feed, filled)) = feeder.take() {
            drop(feed);
            // A blob that could not be written is the cause of what came after it.
            let filled = filled.join();
            blob = Some(filled.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        taken?;
        cancel.check()
    });
    outcome?;
    sums.finish(count as u64, blob)
}

struct Sums {
    tar: Sha256,
    content: blake3::Hasher,
    length: u64,
}

impl Sums {
    fn new() -> Self {
        let mut content = blake3::Hasher::new();
        content.update(b"img layer content 1\n");
        Self {
            tar: Sha256::new(),
            content,
            length: 0,
        }
    }

    fn take(&mut self, piece: &Piece) {
        let bytes = &piece.bytes[..piece.used];
        self.tar.update(bytes);
        self.length += bytes.len() as u64;
        self.content.update(&piece.records);
    }

    fn finish(mut self, entries: u64, blob: Option<BlobWriter>) -> Result<Packed> {
        self.tar.update(END);
        let diff_id = format!("sha256:{}", hex(&self.tar.finalize()));
        let (mut digest, mut size, mut reused) = (None, None, None);
        if let Some(mut blob) = blob {
            blob.write(&END)?;
            let written = blob.finish()?;
            digest = Some(written.digest.unwrap_or_else(|| diff_id.clone()));
            size = Some(written.size);
            reused = Some(written.reused);
        }
        Ok(Packed {
            diff_id,
            uncompressed_size: self.length + END.len() as u64,
            content_digest: format!("blake3:{}", self.content.finalize().to_hex()),
            entries,
            digest,
            size,
            reused,
            drifted: None,
            damaged: None,
        })
    }
}

/// Thread: puts the pieces into the blob while their digest is taken in another one.
fn fill(
    mut blob: BlobWriter,
    fed: &Receiver<Piece>,
    give_back: &Sender<Piece>,
) -> Result<BlobWriter> {
    for piece in fed {
        blob.write(&piece.bytes[..piece.used])?;
        // The readers may have ended already.
        let _ = give_back.send(piece);
    }
    Ok(blob)
}

struct Reader<'a> {
    plan: &'a dyn Plan,
    contents: &'a dyn Contents,
    cursor: &'a Mutex<usize>,
    order: Sender<Receiver<Result<Piece>>>,
    spare: Receiver<Piece>,
    cancel: &'a Cancel,
}

/// The other side ended: there is nobody to tell.
struct Unwanted;

impl Reader<'_> {
    fn run(&self) {
        let mut entries = self.plan.entries();
        while let Some((range, sender)) = self.next_batch() {
            let mut out = Out {
                piece: self.fresh(),
                sender,
                reader: self,
            };
            let outcome = self.cancel.check().and_then(|()| {
                range
                    .into_iter()
                    .try_for_each(|index| self.read_entry(index, entries.entry(index), &mut out))
            });
            if out.end(outcome).is_err() {
                return;
            }
        }
    }

    /// Takes the next entries; announces their pieces while holding the cursor, so in order.
    fn next_batch(&self) -> Option<(Range<usize>, Sender<Result<Piece>>)> {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let start = *cursor;
        let count = self.plan.count();
        if start == count {
            return None;
        }
        let (mut end, mut bytes) = (start, 0_u64);
        while end < count && end - start < BATCH_FILES && bytes < PIECE as u64 {
            bytes = bytes.saturating_add(self.plan.size(end) + 512);
            end += 1;
        }
        *cursor = end;
        let (sender, pieces) = bounded(AHEAD);
        self.order.send(pieces).ok()?;
        Some((start..end, sender))
    }

    fn fresh(&self) -> Piece {
        match self.spare.try_recv() {
            Ok(mut piece) => {
                piece.used = 0;
                piece.records.clear();
                piece
            }
            Err(_) => Piece {
                bytes: vec![0; PIECE].into_boxed_slice(),
                used: 0,
                records: Vec::new(),
            },
        }
    }

    fn read_entry(&self, index: usize, entry: &Entry, out: &mut Out<'_>) -> Result<()> {
        let opened = match entry.kind {
            Kind::File => self.contents.open(index, entry)?,
            _ => None,
        };
        let Some(mut opened) = opened else {
            out.header(entry)?;
            let digest = (entry.kind == Kind::File).then(|| *blake3::hash(b"").as_bytes());
            append_record(&mut out.piece.records, entry, digest.as_ref());
            return Ok(());
        };
        let changed = opened.size != entry.size || !opened.xattrs.is_empty();
        let mut now = None;
        if changed {
            // The plan was made before the file was opened; the open file says what will be read.
            let entry = now.insert(entry.clone());
            entry.size = opened.size;
            if !opened.xattrs.is_empty() {
                entry.xattrs.clone_from(&opened.xattrs);
            }
        }
        let entry = now.as_ref().unwrap_or(entry);
        out.header(entry)?;
        let digest = self.read_content(&mut opened, out)?;
        append_record(&mut out.piece.records, entry, Some(&digest));
        self.contents.close(index, entry, opened, &digest)
    }

    fn read_content(&self, opened: &mut Opened, out: &mut Out<'_>) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let mut left = opened.size;
        while left > 0 {
            let part = out.space()?;
            let wanted = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = opened
                .file
                .read(&mut part[..wanted])
                .at("read", &opened.path)?;
            if count == 0 {
                return Err(changed(&opened.path));
            }
            let part = &part[..count];
            if opened.known.is_none() {
                hasher.update(part);
            }
            if let Some(copy) = opened.copy_to.as_mut().filter(|_| !opened.cloned) {
                copy.write_all(part).at("write", &opened.path)?;
            }
            out.piece.used += count;
            left -= count as u64;
            if left > 0 && out.is_full() {
                self.cancel.check()?;
            }
        }
        out.append(&[0; 512][..padding(opened.size)])?;
        Ok(opened
            .known
            .unwrap_or_else(|| *hasher.finalize().as_bytes()))
    }
}

fn changed(path: &std::path::Path) -> Error {
    Error::Io {
        op: "read",
        path: path.to_path_buf(),
        source: std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "the file became shorter while it was being read",
        ),
    }
}

/// Where one batch's tar bytes go.
struct Out<'a> {
    piece: Piece,
    sender: Sender<Result<Piece>>,
    reader: &'a Reader<'a>,
}

impl Out<'_> {
    fn is_full(&self) -> bool {
        self.piece.used == self.piece.bytes.len()
    }

    /// Room in the current piece, never empty.
    fn space(&mut self) -> Result<&mut [u8]> {
        if self.is_full() {
            let fresh = self.reader.fresh();
            let full = std::mem::replace(&mut self.piece, fresh);
            // Only an error on the other side ends it early, and that one is reported there.
            self.sender.send(Ok(full)).map_err(|_| Error::Interrupted)?;
        }
        Ok(&mut self.piece.bytes[self.piece.used..])
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.piece.used += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn header(&mut self, entry: &Entry) -> Result<()> {
        let mut header = Vec::with_capacity(512);
        append_header(&mut header, entry);
        self.append(&header)
    }

    fn end(self, outcome: Result<()>) -> Result<(), Unwanted> {
        let last = outcome.map(|()| self.piece);
        self.sender.send(last).map_err(|_| Unwanted)
    }
}

/// What a content digest says of one entry: everything but its times.
pub struct Record<'a> {
    /// Relative path.
    pub path: &'a [u8],
    /// One letter for the type.
    pub tag: u8,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// A link's target, else empty.
    pub target: &'a [u8],
    /// A device's numbers, else zero.
    pub device: (u32, u32),
    /// Extended attributes, sorted.
    pub xattrs: &'a [Xattr],
    /// A regular file's BLAKE3.
    pub digest: Option<&'a [u8; 32]>,
}

impl Record<'_> {
    /// Appends it, each field with its length before it: no two records give the same bytes.
    pub fn append(&self, out: &mut Vec<u8>) {
        let mut field = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        field(self.path);
        field(&[self.tag]);
        let (major, minor) = self.device;
        for number in [self.mode & 0o7777, self.uid, self.gid, major, minor] {
            field(&number.to_le_bytes());
        }
        field(self.target);
        field(&(self.xattrs.len() as u32).to_le_bytes());
        for (name, value) in self.xattrs {
            field(name);
            field(value);
        }
        field(self.digest.map_or(&[], |digest| &digest[..]));
    }
}

fn append_record(out: &mut Vec<u8>, entry: &Entry, digest: Option<&[u8; 32]>) {
    let (tag, target, device): (u8, &[u8], (u32, u32)) = match &entry.kind {
        Kind::File => (b'f', b"", (0, 0)),
        Kind::Directory => (b'd', b"", (0, 0)),
        Kind::Symlink(target) => (b'l', target, (0, 0)),
        Kind::Hardlink(target) => (b'h', target, (0, 0)),
        Kind::CharDevice { major, minor } => (b'c', b"", (*major, *minor)),
        Kind::BlockDevice { major, minor } => (b'b', b"", (*major, *minor)),
        Kind::Fifo => (b'p', b"", (0, 0)),
    };
    let record = Record {
        path: &entry.path,
        tag,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        target,
        device,
        xattrs: &entry.xattrs,
        digest,
    };
    record.append(out);
}
