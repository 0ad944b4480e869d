//! What a selection's files hold: from the memo or by reading, and the digest over all of it.
//!
//! Files are read on several threads,
//! folder by folder, each once, and what was learned of them goes to the memo as it comes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FileType, OFlags};

use super::learned::{Learned, Reading};
use super::Selection;
use crate::attrs;
use crate::cancel::Cancel;
use crate::entry::Xattr;
use crate::error::{IoContext, Result};
use crate::explore::thread_count;
use crate::inventory::At;
use crate::memo::{now_nanos, Clock, DigestMemo, Known, Stamp};
use crate::pipeline::Record;

/// Files that one thread digests at once.
const BATCH: usize = 64;
/// Bytes of records that are hashed at once.
const RECORDS: usize = 16 << 10;
/// A folder with as many objects is kept open while its files are.
const WORTH_OPENING: usize = 3;

/// Extended attributes of files, by slot.
pub type FileXattrs = HashMap<u32, Vec<Xattr>>;

impl Selection {
    /// What `content_digest` learned of the files, with the state of each that it holds for.
    pub fn known(&self) -> Arc<Learned> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known)
    }

    /// The extended attributes of the files that have some, by slot, as `content_digest` saw them.
    pub fn file_xattrs(&self) -> Arc<FileXattrs> {
        let xattrs = self.file_xattrs.lock();
        Arc::clone(&xattrs.unwrap_or_else(PoisonError::into_inner))
    }

    /// `blake3:<hex>` over destinations, types, modes, owners, link targets, xattrs and contents.
    ///
    /// What a copy noted since [`Selection::recall`] is not read again.
    pub fn content_digest(&self, memo: Option<&DigestMemo>, cancel: &Cancel) -> Result<String> {
        let known = self.learn(memo, cancel)?;
        let file_xattrs = self.read_file_xattrs(&known)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"img selection 2\n");
        hasher.update(&[u8::from(self.unpacked), u8::from(self.owners)]);
        for named in &self.named {
            hasher.update(if named.is_dir { b"d" } else { b"f" });
        }
        hasher.update(b"\n");
        let mut records = Vec::with_capacity(RECORDS * 2);
        let (mut tour, mut target) = (self.tour(), Vec::new());
        while let Some(at) = tour.next() {
            self.record(at, tour.dest(), &known, &file_xattrs, &mut target)
                .append(&mut records);
            if records.len() > RECORDS {
                hasher.update(&records);
                records.clear();
            }
        }
        hasher.update(&records);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        *self
            .file_xattrs
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(file_xattrs);
        Ok(format!("blake3:{}", hasher.finalize().to_hex()))
    }

    /// What a content digest says of one object; `target` is room for another one's path.
    fn record<'a>(
        &'a self,
        at: At,
        dest: &'a [u8],
        known: &'a Learned,
        file_xattrs: &'a FileXattrs,
        target: &'a mut Vec<u8>,
    ) -> Record<'a> {
        let inventory = &self.inventory;
        let (look, slot) = (inventory.look(at), inventory.slot(at));
        // Who writes to one name of a file changes the others: which they are is part of what
        // is copied. How many it has elsewhere is not.
        let first = self.hard_link(at).filter(|&first| first != at);
        if let Some(first) = first {
            target.clear();
            inventory.append_dest(first, target);
        }
        let of_file = file_xattrs.get(&(slot as u32));
        Record {
            path: dest,
            tag: first.map_or(tag(look.file_type()), |_| b'h'),
            mode: look.mode,
            uid: look.uid,
            gid: look.gid,
            target: match first {
                Some(_) => target,
                None => inventory.target(at),
            },
            device: look.device,
            xattrs: of_file.map_or(inventory.xattrs(at), Vec::as_slice),
            digest: known.digest(slot),
        }
    }

    /// Gives what shows objects as the last `content_digest` saw them.
    pub fn records(&self) -> Records<'_> {
        Records {
            selection: self,
            known: self.known(),
            file_xattrs: self.file_xattrs(),
        }
    }

    /// Digests of all regular files: from the memo, or read on several threads.
    pub(super) fn learn(&self, memo: Option<&DigestMemo>, cancel: &Cancel) -> Result<Learned> {
        let began = now_nanos();
        let inventory = &self.inventory;
        let known = match (self.noted(memo), memo) {
            (Some(noted), _) => noted,
            (None, Some(memo)) => self.remembered(memo),
            (None, None) => Learned::new(inventory.slots()),
        };
        let mut missing = Vec::new();
        self.each_file(|at, _| {
            let is_known = known.digest(inventory.slot(at)).is_some();
            if !is_known && self.hard_link(at).is_none_or(|first| first == at) {
                missing.push(at);
            }
        });
        let known = Mutex::new(known);
        if !missing.is_empty() {
            let clock = self.root.clock()?;
            self.read_files(&missing, cancel, |read| {
                if let Some(memo) = memo {
                    let files = read.iter().map(|read| (read.state, read.known));
                    memo.record(began, clock, files);
                }
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                for read in read {
                    self.take_over(read, &mut known, clock, began);
                }
            })?;
        }
        let mut known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
        for &(slot, first) in &self.links {
            known.set_same(slot, inventory.slot(first) as u32);
        }
        Ok(known)
    }

    /// Adds what was read of a file to what is known.
    pub(super) fn take_over(&self, read: &Reading, known: &mut Learned, clock: Clock, began: i64) {
        let slot = self.inventory.slot(read.at) as u32;
        let walked = self.inventory.stamp(read.at);
        known.set_read(slot, &walked, read, clock.settled(&read.state, began));
    }

    /// Reads files on several threads; `done` gets them by the batch, in no order.
    fn read_files(
        &self,
        files: &[At],
        cancel: &Cancel,
        done: impl Fn(&[Reading]) + Sync,
    ) -> Result<()> {
        let cursor = AtomicUsize::new(0);
        let run = || -> Result<()> {
            let mut buffer = vec![0; 256 << 10];
            let mut opener = Opener::new(self);
            let mut read = Vec::with_capacity(BATCH);
            loop {
                cancel.check()?;
                let start = cursor.fetch_add(BATCH, Ordering::Relaxed).min(files.len());
                let batch = &files[start..files.len().min(start + BATCH)];
                if batch.is_empty() {
                    return Ok(());
                }
                read.clear();
                for &at in batch {
                    read.push(self.read_file(at, &mut opener, &mut buffer)?);
                }
                done(&read);
            }
        };
        let threads = thread_count().min(files.len().div_ceil(BATCH));
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
            let mut all = run();
            for other in others {
                let more = other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                all = all.and(more);
            }
            all
        })
    }

    fn read_file(&self, at: At, opener: &mut Opener<'_>, buffer: &mut [u8]) -> Result<Reading> {
        let on_disk = || self.root.on_disk(&self.path(at));
        let mut file = File::from(opener.open(at)?);
        let stat = rustix::fs::fstat(&file).at("stat", on_disk())?;
        let attrs = attrs::read_known(file.as_fd(), &stat).at("getxattr", on_disk())?;
        let has_xattrs = attrs.is_some_and(|attrs| !attrs.entry.xattrs.is_empty());
        let mut hasher = blake3::Hasher::new();
        let mut left = stat.st_size as u64;
        loop {
            let count = file.read(buffer).at("read", on_disk())?;
            hasher.update(&buffer[..count]);
            left = left.saturating_sub(count as u64);
            // Most files end where they are said to, and need not be asked once more for an end;
            // those of proc are said to be empty.
            let is_whole = left == 0 && stat.st_size > 0 && count < buffer.len();
            if count == 0 || is_whole {
                break;
            }
        }
        let digest = *hasher.finalize().as_bytes();
        Ok(Reading {
            at,
            state: Stamp::of(&stat),
            known: Known { digest, has_xattrs },
        })
    }

    fn read_file_xattrs(&self, known: &Learned) -> Result<FileXattrs> {
        let mut all = HashMap::new();
        if !known.any_xattrs() {
            return Ok(all);
        }
        let mut tour = self.tour();
        while let Some(at) = tour.next() {
            let slot = self.inventory.slot(at);
            if known.has_xattrs(slot) {
                let file = self.root.open_beneath(tour.path(), OFlags::RDONLY)?;
                let stat = rustix::fs::fstat(&file).at("stat", self.root.on_disk(tour.path()))?;
                all.insert(slot as u32, self.xattrs_of(file, &stat, tour.path())?);
            }
        }
        Ok(all)
    }
}

/// Shows objects of a selection, see [`Selection::records`].
pub struct Records<'a> {
    selection: &'a Selection,
    known: Arc<Learned>,
    file_xattrs: Arc<FileXattrs>,
}

impl Records<'_> {
    /// Shows one: its path below the destination is given; `show` gets its size, and the rest.
    pub fn show<T>(&self, at: At, dest: &[u8], show: impl FnOnce(u64, &Record<'_>) -> T) -> T {
        let (selection, mut target) = (self.selection, Vec::new());
        let record = selection.record(at, dest, &self.known, &self.file_xattrs, &mut target);
        show(selection.inventory.stamp(at).size, &record)
    }
}

/// Opens files of a selection; one after the other of one folder costs no path.
pub struct Opener<'a> {
    selection: &'a Selection,
    folder: Option<(u32, OwnedFd)>,
}

impl<'a> Opener<'a> {
    /// Makes one.
    pub fn new(selection: &'a Selection) -> Self {
        Self {
            selection,
            folder: None,
        }
    }

    /// Opens an object for reading, following no symlink.
    pub fn open(&mut self, at: At) -> Result<OwnedFd> {
        let (inventory, root) = (&self.selection.inventory, &self.selection.root);
        if self
            .folder
            .as_ref()
            .is_none_or(|(folder, _)| *folder != at.folder)
        {
            self.folder = None;
            if inventory.siblings(at) < WORTH_OPENING {
                return root.open_beneath(&self.selection.path(at), OFlags::RDONLY);
            }
            let Some(path) = inventory.folder_path(at) else {
                return root.open_beneath(&self.selection.path(at), OFlags::RDONLY);
            };
            let folder = root.open_beneath(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            self.folder = Some((at.folder, folder));
        }
        match &self.folder {
            Some((_, folder)) => root
                .open_in(folder, inventory.name(at))
                .at("open", root.on_disk(&self.selection.path(at))),
            None => root.open_beneath(&self.selection.path(at), OFlags::RDONLY),
        }
    }
}

fn tag(file_type: FileType) -> u8 {
    match file_type {
        FileType::Directory => b'd',
        FileType::Symlink => b'l',
        FileType::CharacterDevice => b'c',
        FileType::BlockDevice => b'b',
        FileType::Fifo => b'p',
        _ => b'f',
    }
}
