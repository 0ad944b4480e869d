//! [`Earlier`]: the layer of a like COPY before, whose files the new layer shares by hard links.
//!
//! Most of a COPY that is done again is as it was, and to make a file costs more than to read it.
//! Since no published layer is ever changed, the new one may take a file of the earlier one as it
//! stands. Which one that is, fingerprints tell: of each file that a COPY writes, a digest over its
//! path, attributes, time and content ([`Fingerprints`]), kept beside the layer. `copy` looks the
//! wanted file's up ([`Earlier::file`]), reads the content from there, checks it against the
//! content's own digest on the way into the tar, and asks for the link ([`Earlier::link`]).
//! A file that is refused for whatever reason is copied like any other: this decides about time
//! and room on the disk, never about a result.
//!
//! Format, version 1: magic, then fingerprints in no order. There is no sum over it: one that is
//! damaged is nobody's.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::attrs;
use crate::entry::{Entry, Kind, Xattr};
use crate::error::{IoContext, Result};
use crate::pipeline::Record;

const MAGIC: &[u8; 8] = b"imgsame1";
/// Bytes of a BLAKE3 that are kept, as [`Fingerprint`] has them. Nobody finds two files of one
/// fingerprint, and half a million take 12 MB.
const LENGTH: usize = 24;

/// Says of one regular file where it stands, what it is and what is in it.
type Fingerprint = [u64; LENGTH / 8];

fn fingerprint(entry: &Entry, xattrs: &[Xattr], content: &[u8; 32]) -> Fingerprint {
    let mut record = Vec::with_capacity(192);
    Record {
        path: &entry.path,
        tag: b'f',
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        target: b"",
        device: (0, 0),
        xattrs,
        digest: Some(content),
    }
    .append(&mut record);
    record.extend_from_slice(&entry.mtime.to_le_bytes());
    numbers(&blake3::hash(&record).as_bytes()[..LENGTH])
}

/// The first bytes as numbers, which are compared at once.
fn numbers(bytes: &[u8]) -> Fingerprint {
    let mut numbers = [0; LENGTH / 8];
    for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        for &byte in bytes {
            *number = *number << 8 | u64::from(byte);
        }
    }
    numbers
}

/// Fingerprints of a layer, as they are written. All threads share one.
#[derive(Debug)]
pub struct Fingerprints {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
    /// Paths that have further names in their layer.
    linked: HashSet<Vec<u8>>,
}

impl Fingerprints {
    /// Begins those of a layer, in a file that may be there.
    ///
    /// A file that has several names in its layer (`linked`: the first of them) gets none. In a stack of both layers two names
    /// of one file could show then, one of either, and they would not be what was copied.
    pub fn create(path: &Path, linked: HashSet<Vec<u8>>) -> Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 16, File::create(path).at("create", path)?);
        file.write_all(MAGIC).at("write", path)?;
        Ok(Self {
            path: path.to_path_buf(),
            file: Mutex::new(file),
            linked,
        })
    }

    /// Adds that of a regular file as it stands in the layer now.
    pub fn add(&self, entry: &Entry, content: &[u8; 32]) -> Result<()> {
        if !self.linked.is_empty() && self.linked.contains(&entry.path) {
            return Ok(());
        }
        let mut bytes = [0; LENGTH];
        let numbers = fingerprint(entry, &entry.xattrs, content);
        for (bytes, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            bytes.copy_from_slice(&number.to_be_bytes());
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&bytes).at("write", &self.path)
    }

    /// Writes the last of them.
    pub fn finish(self) -> Result<()> {
        let file = self.file.into_inner();
        let mut file = file.unwrap_or_else(PoisonError::into_inner);
        file.flush().at("write", &self.path)
    }
}

/// A published layer whose files may be taken.
#[derive(Debug)]
pub struct Earlier {
    path: PathBuf,
    root: OwnedFd,
    /// Sorted.
    known: Vec<Fingerprint>,
}

impl Earlier {
    /// Opens a layer folder and the file of its fingerprints; None where either is missing.
    pub fn open(folder: &Path, fingerprints: &Path) -> Option<Self> {
        let bytes = std::fs::read(fingerprints).ok()?;
        let mut known: Vec<Fingerprint> = bytes
            .strip_prefix(MAGIC)?
            .chunks_exact(LENGTH)
            .map(numbers)
            .collect();
        known.sort_unstable();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Some(Self {
            path: folder.to_path_buf(),
            root: rustix::fs::open(folder, flags, Mode::empty()).ok()?,
            known,
        })
    }

    /// Where one of its files is, for people.
    pub fn on_disk(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    /// Opens the file that is in all what `entry` and `xattrs` say, with this content; None where
    /// there is none. That the content is right is for the caller to see, who reads it.
    pub fn file(&self, entry: &Entry, xattrs: &[Xattr], content: &[u8; 32]) -> Option<File> {
        let wanted = fingerprint(entry, xattrs, content);
        self.known.binary_search(&wanted).ok()?;
        let file = self.open_beneath(&entry.path).ok()?;
        let stands = is_as_written(file.as_fd(), entry, xattrs).unwrap_or(false);
        stands.then(|| File::from(file))
    }

    fn open_beneath(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        // A link makes the kernel take the file for changed, and note the next reading of it: as
        // much work again as the link itself.
        let quiet = flags | OFlags::NOATIME;
        match rustix::fs::openat2(&self.root, path, quiet, Mode::empty(), how) {
            // Old kernels lack the call, old seccomp lists refuse it, and who does not own a file
            // may not read it unnoticed. Nobody but this store's builders writes there, and those
            // made a file at this path.
            Err(Errno::NOSYS | Errno::PERM) => {
                rustix::fs::openat(&self.root, path, flags, Mode::empty())
            }
            opened => opened,
        }
    }

    /// Gives the file at `path` the same name below another root.
    ///
    /// Errors are the kernel's: a file has as many names as it can have, the layer has gone, or
    /// the file system knows no hard links.
    pub fn link(&self, path: &[u8], root: BorrowedFd<'_>) -> rustix::io::Result<()> {
        rustix::fs::linkat(&self.root, path, root, path, AtFlags::empty())
    }
}

/// Does an open file have the attributes that it was written with?
fn is_as_written(file: BorrowedFd<'_>, entry: &Entry, xattrs: &[Xattr]) -> io::Result<bool> {
    let stat = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        || stat.st_size as u64 != entry.size
        || stat.st_mode & 0o7777 != entry.mode & 0o7777
        || (stat.st_mtime, stat.st_mtime_nsec as u32) != (entry.mtime, entry.mtime_nanos)
    {
        return Ok(false);
    }
    if (stat.st_uid, stat.st_gid) == (entry.uid, entry.gid) && xattrs.is_empty() {
        return Ok(true);
    }
    // Owners that could not be set are recorded in attributes.
    let found = attrs::read_known(file, &stat)?.map(|found| found.entry);
    Ok(found.is_some_and(|found| {
        found.kind == Kind::File
            && (found.uid, found.gid) == (entry.uid, entry.gid)
            && found.xattrs == xattrs
    }))
}

#[cfg(test)]
mod tests;
