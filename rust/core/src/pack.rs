//! [`pack_layer`]: digests a layer directory (an overlay upper) as a tar, and writes one if asked.
//!
//! The executor's diff: a RUN leaves an upper directory, this walks it once and has `pipeline`
//! read it once. Overlay's marks become OCI whiteouts; hard links become links to the first of
//! their names. The order is that of the names, folder by folder; a whiteout stands where the name
//! it hides would, the opaque marker first in its folder. The folder itself is no entry.
//! Source: OCI image-spec v1.1, layer.md, "Creating" and "Whiteouts".

mod plan;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RawDir};
use sha2::{Digest as _, Sha256};

use crate::attrs::{self, Attrs, Mark};
use crate::cancel::Cancel;
use crate::compress::{hex, BlobWriter, Options};
use crate::entry::{Entry, Kind, WHITEOUT_PREFIX};
use crate::error::{IoContext, Result};
use crate::explore::{explore_with, thread_count};
use crate::inflate::sniff;
use crate::inventory::{self, Folder, Found, Inventory, Look, Own, Part};
use crate::memo::Stamp;
use crate::pipeline::{digest, Contents, Opened, Packed};
use crate::source::join;
use crate::Error;

use plan::Plan;

/// Bytes of a tar that are read at once.
const PIECE: usize = 256 << 10;

/// What to make of a layer directory.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// File for the tar, and how it is made; None digests only. Who wants a blob knows the layer's
    /// content digest already: it is not made again, and left empty.
    pub blob: Option<(PathBuf, Options)>,
    /// Times later than this, in seconds since the epoch, become this.
    pub clamp_mtime: Option<i64>,
    /// Threads that read; None is a fitting number. The outcome does not depend on it.
    pub threads: Option<usize>,
}

/// Digests the layer directory `source`; the same directory gives the same bytes every time.
pub fn pack_layer(source: &Path, request: &Request, cancel: &Cancel) -> Result<Packed> {
    let threads = request.threads.unwrap_or_else(thread_count);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(source, flags, Mode::empty()).at("open", source)?;
    let layer = Layer {
        root,
        path: source.to_path_buf(),
        content: request.blob.as_ref().map(|_| [0; 32]),
    };
    let plan = Plan::new(layer.walk(threads, cancel)?, request.clamp_mtime);
    let blob = match &request.blob {
        Some((path, options)) => {
            let options = Options {
                threads,
                ..options.clone()
            };
            Some(BlobWriter::create(path, options)?)
        }
        None => None,
    };
    let mut packed = digest(&plan, &layer, blob, threads, cancel)?;
    if request.blob.is_some() {
        packed.content_digest.clear();
    }
    Ok(packed)
}

/// Compresses the tar of a blob anew: a layer that was made elsewhere has a tar that its folder does
/// not give back. Gives what [`pack_layer`] does, but for the entries, which nobody looks at.
pub fn repack_blob(source: &Path, request: &Request, cancel: &Cancel) -> Result<Packed> {
    let file = File::open(source).at("open", source)?;
    let (codec, stream) = sniff(BufReader::with_capacity(PIECE, file)).at("read", source)?;
    let mut tar = codec.reader(stream).at("read", source)?;
    let mut blob = match &request.blob {
        Some((path, options)) => {
            let threads = request.threads.unwrap_or_else(thread_count);
            let options = Options {
                threads,
                ..options.clone()
            };
            Some(BlobWriter::create(path, options)?)
        }
        None => None,
    };
    let mut sum = Sha256::new();
    let mut length = 0;
    let mut piece = vec![0; PIECE];
    loop {
        cancel.check()?;
        let count = tar.read(&mut piece).at("decompress", source)?;
        if count == 0 {
            break;
        }
        sum.update(&piece[..count]);
        length += count as u64;
        if let Some(blob) = &mut blob {
            blob.write(&piece[..count])?;
        }
    }
    let diff_id = format!("sha256:{}", hex(&sum.finalize()));
    let written = blob.map(BlobWriter::finish).transpose()?;
    Ok(Packed {
        uncompressed_size: length,
        content_digest: String::new(),
        entries: 0,
        digest: written
            .as_ref()
            .map(|written| written.digest.clone().unwrap_or_else(|| diff_id.clone())),
        size: written.as_ref().map(|written| written.size),
        reused: written.as_ref().map(|written| written.reused),
        drifted: None,
        damaged: None,
        diff_id,
    })
}

struct Layer {
    root: OwnedFd,
    path: PathBuf,
    /// What stands for the BLAKE3 of every file's content where nobody asks for it.
    content: Option<[u8; 32]>,
}

impl Layer {
    fn on_disk(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let name = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.root, name, flags, Mode::empty()).at("open", self.on_disk(path))
    }

    fn walk(&self, threads: usize, cancel: &Cancel) -> Result<Inventory> {
        let part = |number| (number, Part::default());
        let (folders, parts) = explore_with(
            threads,
            cancel,
            Vec::new(),
            part,
            |folder: Vec<u8>, found, (number, part)| {
                let start = part.len();
                let own = self.visit(&folder, part, |path| found.folder(path))?;
                Ok::<Folder, Error>(part.close(*number, start, own))
            },
        )?;
        let mut inventory = Inventory::default();
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        inventory
            .adopt(&[], folders, parts)
            .at("read", &self.path)?;
        Ok(inventory)
    }

    /// Puts what is in a folder into `part`; `later` numbers the folders among it.
    fn visit(
        &self,
        folder: &[u8],
        part: &mut Part,
        mut later: impl FnMut(Vec<u8>) -> usize,
    ) -> Result<Own> {
        let fd = self.open(folder, OFlags::DIRECTORY)?;
        let own = attrs::read_open(fd.as_fd()).at("stat", self.on_disk(folder))?;
        let mut buffer = [MaybeUninit::uninit(); LISTING];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.at("read", self.on_disk(folder))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let path = || join([folder, name]);
            if is_whiteout_name(name) {
                return Err(Error::Layer {
                    entry: String::from_utf8_lossy(&path()).into_owned(),
                    reason: "a name that begins with .wh. means a deletion in a layer".to_owned(),
                });
            }
            // A folder's visit looks at it.
            let mut is_folder = entry.file_type() == FileType::Directory;
            if !is_folder {
                let attrs = attrs::read(fd.as_fd(), OsStr::from_bytes(name));
                // A socket: no layer can hold one.
                let Some(attrs) = attrs.at("stat", self.on_disk(&path()))? else {
                    continue;
                };
                is_folder = attrs.entry.kind == Kind::Directory;
                if !is_folder {
                    let added = part.add(found(name, attrs));
                    added.at("read", self.on_disk(&path()))?;
                }
            }
            if is_folder {
                let added = part.add_folder(name, later(path()), 0);
                added.at("read", self.on_disk(&path()))?;
            }
        }
        Ok(own.map_or_else(Own::default, |attrs| Own {
            look: look(&attrs),
            seconds: attrs.entry.mtime,
            is_opaque: attrs.mark == Mark::Opaque,
            xattrs: attrs.entry.xattrs,
        }))
    }
}

/// Bytes of a folder's listing that the kernel gives at once.
const LISTING: usize = 16 << 10;

fn found(name: &[u8], attrs: Attrs) -> Found<'_> {
    let linked = attrs.nlink > 1;
    let whiteout = attrs.mark == Mark::Whiteout;
    Found {
        look: look(&attrs),
        name,
        stamp: Stamp {
            dev: attrs.dev,
            ino: attrs.ino,
            size: attrs.entry.size,
            mtime: attrs.entry.mtime.saturating_mul(1_000_000_000),
            ctime: 0,
        },
        seconds: attrs.entry.mtime,
        flags: if linked { inventory::LINKED } else { 0 }
            | if whiteout { inventory::WHITEOUT } else { 0 },
        xattrs: attrs.entry.xattrs,
        target: match attrs.entry.kind {
            Kind::Symlink(target) => target.into(),
            _ => Cow::Borrowed(&[]),
        },
    }
}

fn look(attrs: &Attrs) -> Look {
    let entry = &attrs.entry;
    let (file_type, device) = match entry.kind {
        Kind::File | Kind::Hardlink(_) => (FileType::RegularFile, (0, 0)),
        Kind::Directory => (FileType::Directory, (0, 0)),
        Kind::Symlink(_) => (FileType::Symlink, (0, 0)),
        Kind::CharDevice { major, minor } => (FileType::CharacterDevice, (major, minor)),
        Kind::BlockDevice { major, minor } => (FileType::BlockDevice, (major, minor)),
        Kind::Fifo => (FileType::Fifo, (0, 0)),
    };
    Look {
        mode: file_type.as_raw_mode() | entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        device,
        dev: attrs.dev,
    }
}

/// A file that is called like a whiteout would delete something where the layer is unpacked.
pub fn is_whiteout_name(path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    name.starts_with(WHITEOUT_PREFIX)
}

/// Whole seconds, none later than the clamp.
pub fn settle_time(entry: &mut Entry, clamp: Option<i64>) {
    entry.mtime_nanos = 0;
    entry.mtime = entry.mtime.min(clamp.unwrap_or(i64::MAX));
}

impl Contents for Layer {
    fn open(&self, _index: usize, entry: &Entry) -> Result<Option<Opened>> {
        if entry.size == 0 {
            return Ok(None);
        }
        Ok(Some(Opened {
            file: File::from(Layer::open(self, &entry.path, OFlags::empty())?),
            size: entry.size,
            path: self.on_disk(&entry.path),
            copy_to: None,
            cloned: false,
            known: self.content,
            state: None,
            xattrs: Vec::new(),
        }))
    }

    fn close(&self, _: usize, _: &Entry, _: Opened, _: &[u8; 32]) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
