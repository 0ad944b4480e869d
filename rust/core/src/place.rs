//! [`Place`]: where a COPY or WORKDIR goes, given the layers below it.
//!
//! `copy` asks it before it writes anything. Symlinks among the destination's parents are
//! followed inside the image; folders that exist keep their attributes, missing ones are made.
//! It reads and never writes.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::attrs;
use crate::entry::{Entry, Kind};
use crate::error::{IoContext, Result};
use crate::stack::Stack;
use crate::Error;

/// A destination, all symlinks resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The folder that takes what is copied, relative to the root; empty is the root.
    pub folder: Vec<u8>,
    /// The name of the one file that is copied; None keeps the names of the sources.
    pub name: Option<Vec<u8>>,
}

/// What a destination without a trailing slash may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A folder, made where it is missing.
    Folder,
    /// The new name of what is copied, unless a folder of that name exists.
    Name,
}

impl Place {
    /// Finds it. With a trailing slash, `dest` is a folder, whatever is `wanted`.
    ///
    /// Symlinks are followed, also at the very end, also to where nothing stands yet.
    pub fn find(stack: &Stack, dest: &str, wanted: Wanted) -> Result<Self> {
        let last = dest.rsplit('/').next().unwrap_or_default();
        let wants_folder = wanted == Wanted::Folder || matches!(last, "" | "." | "..");
        let whole = bytes(stack.resolve(Path::new(dest))?);
        let is_folder = stack
            .lookup(Path::new(OsStr::from_bytes(&whole)))?
            .map(|found| found.is_dir());
        match is_folder {
            Some(true) => Ok(Self::folder(whole)),
            Some(false) if wants_folder => Err(refuse(
                dest.as_bytes(),
                "the destination must be a folder, and is a file",
            )),
            None if wants_folder || whole.is_empty() => Ok(Self::folder(whole)),
            Some(false) | None => {
                let slash = whole.iter().rposition(|&byte| byte == b'/');
                Ok(Self {
                    folder: whole[..slash.unwrap_or(0)].to_vec(),
                    name: Some(whole[slash.map_or(0, |at| at + 1)..].to_vec()),
                })
            }
        }
    }

    /// The root folder.
    pub fn root() -> Self {
        Self::folder(Vec::new())
    }

    fn folder(folder: Vec<u8>) -> Self {
        Self { folder, name: None }
    }

    /// Sets `path` to where something goes that lies at `dest` among what is copied.
    pub fn put(&self, dest: &[u8], path: &mut Vec<u8>) {
        path.clear();
        path.extend_from_slice(&self.folder);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(self.name.as_deref().unwrap_or(dest));
    }

    /// The folders that lead to it and itself, from the root (left out) down, and whether any of
    /// them is missing in the layers below. New ones get this owner and mode, and the time of the
    /// nearest folder above them that exists, or `mtime` below the root: no clock is asked.
    pub fn folders(
        &self,
        stack: &Stack,
        owner: (u32, u32),
        mode: u32,
        mtime: i64,
    ) -> Result<(Vec<Entry>, bool)> {
        let mut folders: Vec<Entry> = Vec::new();
        let mut missing = stack.lookup(Path::new(""))?.is_none() && self.folder.is_empty();
        let mut mtime = mtime;
        let ends = (0..self.folder.len()).filter(|&at| self.folder[at] == b'/');
        let ends: Vec<usize> = ends.chain([self.folder.len()]).collect();
        for end in ends.into_iter().filter(|&end| end > 0) {
            let path = Path::new(OsStr::from_bytes(&self.folder[..end]));
            let found = stack.lookup(path)?;
            let mut entry = match &found {
                Some(found) if found.is_dir() => attributes(stack, path)?,
                Some(_) => {
                    let reason = "a file stands where a folder must be";
                    return Err(refuse(&self.folder[..end], reason));
                }
                None => {
                    missing = true;
                    new_folder(owner, mode, mtime)
                }
            };
            mtime = entry.mtime;
            entry.path = self.folder[..end].to_vec();
            folders.push(entry);
        }
        Ok((folders, missing))
    }
}

fn bytes(path: PathBuf) -> Vec<u8> {
    path.into_os_string().into_vec()
}

/// COPY cannot do this.
pub fn refuse(path: &[u8], reason: &str) -> Error {
    Error::Copy {
        path: String::from_utf8_lossy(path).into_owned(),
        reason: reason.to_owned(),
        not_found: false,
    }
}

fn new_folder((uid, gid): (u32, u32), mode: u32, mtime: i64) -> Entry {
    Entry {
        path: Vec::new(),
        kind: Kind::Directory,
        mode,
        uid,
        gid,
        mtime,
        mtime_nanos: 0,
        size: 0,
        xattrs: Vec::new(),
    }
}

/// The attributes that the layers give a folder; those of a new one where they have none.
pub fn attributes(stack: &Stack, folder: &Path) -> Result<Entry> {
    let Some(found) = stack.lookup(folder)? else {
        return Ok(new_folder((0, 0), 0o755, 0));
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&found.path, flags, Mode::empty()).at("open", &found.path)?;
    let attrs = attrs::read_open(fd.as_fd()).at("stat", &found.path)?;
    Ok(attrs.map_or_else(|| new_folder((0, 0), 0o755, 0), |attrs| attrs.entry))
}

/// The order of a tar: by names, folder by folder, a folder right before what is in it.
pub fn order(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    // The end of a path comes first, then the slash: below every other byte of a name.
    let rank = |path: &[u8]| match path.get(common) {
        None => 0,
        Some(b'/') => 1,
        Some(&byte) => u16::from(byte) + 1,
    };
    rank(a).cmp(&rank(b))
}
