//! [`write`]: carries a plan out. Folders, links and nodes are made, files copied and digested in one
//! reading, or taken from an earlier layer (`relink`), and the folders get their final attributes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::plan::Plan;
use super::Request;
use crate::attrs::{create, Owners, Writer};
use crate::cancel::Cancel;
use crate::copy_object::{copy_content, copy_object};
use crate::entry::{Entry, Kind};
use crate::error::{IoContext, Result};
use crate::explore::thread_count;
use crate::inventory::At;
use crate::memo::{Known, Stamp};
use crate::pack;
use crate::pipeline::{digest, Contents, Opened, Packed, Plan as _};
use crate::place::{attributes, refuse};
use crate::relink::{Earlier, Fingerprints};
use crate::remove::remove_tree;
use crate::select::{FileXattrs, Learned, Noting};
use crate::stack::Stack;

/// Makes what the plan says in `upper`, digesting it on the way.
pub fn write(
    stack: &Stack,
    upper: &Path,
    plan: &Plan<'_>,
    request: &Request,
    cancel: &Cancel,
) -> Result<Packed> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty()).at("open", upper)?;
    let earlier = request.earlier.as_ref();
    let sources = plan.sources;
    let mut copier = Copier {
        plan,
        known: sources.iter().map(|source| source.known()).collect(),
        noting: sources.iter().map(|source| source.notes()).collect(),
        xattrs: sources.iter().map(|source| source.file_xattrs()).collect(),
        root,
        upper,
        writer: Writer::new(Owners::Keep),
        clones: AtomicBool::new(true),
        drifted: Mutex::default(),
        earlier: earlier.and_then(|(folder, known)| Earlier::open(folder, known)),
        damaged: Mutex::default(),
        fingerprints: None,
    };
    let mut packed = copier.fill(stack, request, cancel)?;
    let damaged = std::mem::take(&mut copier.damaged).into_inner();
    let damaged = damaged.unwrap_or_else(PoisonError::into_inner);
    if damaged.is_some() {
        // What was read of the earlier layer is in the tar already: all of it is made again.
        copier.earlier = None;
        copier.empty()?;
        packed = copier.fill(stack, request, cancel)?;
    }
    packed.damaged = damaged;
    let drifted = copier.drifted.into_inner();
    packed.drifted = drifted.unwrap_or_else(PoisonError::into_inner);
    Ok(packed)
}

struct Copier<'a> {
    plan: &'a Plan<'a>,
    /// What is known of the files of each source.
    known: Vec<Arc<Learned>>,
    /// What takes those that were not digested yet.
    noting: Vec<Option<Noting<'a>>>,
    /// Extended attributes of files that have some, as the sources' digests count them.
    xattrs: Vec<Arc<FileXattrs>>,
    root: OwnedFd,
    upper: &'a Path,
    writer: Writer,
    /// Until the file system says that it cannot share blocks between files.
    clones: AtomicBool,
    /// A file that is not what its selection's digest says.
    drifted: Mutex<Option<String>>,
    /// The layer whose files are shared.
    earlier: Option<Earlier>,
    /// A file of that layer which is not what was written there.
    damaged: Mutex<Option<String>>,
    fingerprints: Option<Fingerprints>,
}

impl Copier<'_> {
    fn on_disk(&self, path: &[u8]) -> PathBuf {
        self.upper.join(OsStr::from_bytes(path))
    }

    /// Makes and digests all of the layer in the empty folder.
    fn fill(&mut self, stack: &Stack, request: &Request, cancel: &Cancel) -> Result<Packed> {
        let plan = self.plan;
        let mut entries = plan.entries();
        self.fingerprints = match &request.fingerprints {
            Some(path) => Some(Fingerprints::create(path, plan.linked())?),
            None => None,
        };
        self.writer
            .begin(self.root.as_fd())
            .at("chmod", self.upper)?;
        for index in plan.others() {
            cancel.check()?;
            self.make(entries.entry(index))?;
        }
        let threads = request.threads.unwrap_or_else(thread_count);
        let mut packed = digest(plan, &*self, None, threads, cancel)?;
        let all_linked = self.link()?;
        self.finish_folders(stack)?;
        if self.writer.dropped() > 0 || !all_linked {
            // With one id a symlink's owner can be neither set nor recorded, and a file system has
            // a limit of names for one file. The digest must be that of what stands on disk: the
            // tar is made from it again whenever the layer leaves.
            let request = pack::Request {
                threads: Some(threads),
                ..pack::Request::default()
            };
            packed = pack::pack_layer(self.upper, &request, cancel)?;
        }
        let fingerprints = self.fingerprints.take();
        fingerprints.map_or(Ok(()), Fingerprints::finish)?;
        Ok(packed)
    }

    /// Gives the folders their attributes, those within others first.
    fn finish_folders(&self, stack: &Stack) -> Result<()> {
        let mut entries = self.plan.entries();
        for index in self.plan.others().rev() {
            let entry = entries.entry(index);
            if entry.kind == Kind::Directory {
                let name = OsStr::from_bytes(&entry.path);
                let done = self.writer.named(self.root.as_fd(), name, entry);
                done.at("chmod", self.on_disk(&entry.path))?;
            }
        }
        // An overlay shows its uppermost layer's root: it must look as the one below does.
        let own = attributes(stack, Path::new(""))?;
        self.writer
            .folder(self.root.as_fd(), &own)
            .at("chmod", self.upper)
    }

    /// Makes the folder empty again.
    fn empty(&self) -> Result<()> {
        let never = AtomicBool::new(false);
        for child in std::fs::read_dir(self.upper).at("read", self.upper)? {
            remove_tree(&child.at("read", self.upper)?.path(), &never)?;
        }
        Ok(())
    }

    /// Opens the file of the earlier layer that is the one to be made, if there is one.
    ///
    /// The source is not even opened: its digest is what the step's key was made of, so a layer
    /// that has this content is what the key says, whatever becomes of the source meanwhile.
    fn shared(&self, number: usize, at: At, entry: &Entry) -> Option<Opened> {
        let earlier = self.earlier.as_ref()?;
        let inventory = self.plan.sources[number].inventory();
        let known = self.known[number].of(inventory, at)?.known;
        let none = Vec::new();
        let xattrs = if known.has_xattrs {
            self.xattrs[number].get(&(inventory.slot(at) as u32))?
        } else {
            &none
        };
        Some(Opened {
            file: earlier.file(entry, xattrs, &known.digest)?,
            size: entry.size,
            path: earlier.on_disk(&entry.path),
            copy_to: None,
            cloned: false,
            known: None,
            state: None,
            xattrs: xattrs.clone(),
        })
    }

    /// Takes a file of the earlier layer that was read, if what was read is right.
    fn share(&self, entry: &Entry, mut opened: Opened, is_right: bool) -> Result<()> {
        let Some(earlier) = self.earlier.as_ref().filter(|_| is_right) else {
            let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            damaged.get_or_insert_with(|| opened.path.display().to_string());
            return Ok(());
        };
        if earlier.link(&entry.path, self.root.as_fd()).is_ok() {
            return Ok(());
        }
        let name = OsStr::from_bytes(&entry.path);
        let copied = (|| {
            opened.file.rewind()?;
            let made = create(self.root.as_fd(), name, Writer::birth_mode(entry))?;
            copy_content(&opened.file, &File::from(made.try_clone()?), entry.size)?;
            self.writer.file(made.as_fd(), entry)
        })();
        copied.at("copy", self.on_disk(&entry.path))
    }

    /// Makes everything but regular files; folders get their final attributes at the end.
    fn make(&self, entry: &Entry) -> Result<()> {
        let name = OsStr::from_bytes(&entry.path);
        let parent = self.root.as_fd();
        match &entry.kind {
            Kind::File | Kind::Hardlink(_) => Ok(()),
            Kind::Directory => {
                rustix::fs::mkdirat(parent, name, Mode::RWXU).at("mkdir", self.on_disk(&entry.path))
            }
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), parent, name)
                    .at("symlink", self.on_disk(&entry.path))?;
                let done = self.writer.named(parent, name, entry);
                done.at("chown", self.on_disk(&entry.path))
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => {
                let done = self.writer.make_node(parent, name, entry);
                done.at("mknod", self.on_disk(&entry.path))
            }
        }
    }

    /// Gives files their further names; false where one became a file of its own.
    fn link(&self) -> Result<bool> {
        let root = self.root.as_fd();
        let mut all = true;
        let mut entries = self.plan.entries();
        for index in self.plan.links() {
            let entry = entries.entry(index);
            let Kind::Hardlink(target) = &entry.kind else {
                continue;
            };
            let (from, to) = (target.as_slice(), entry.path.as_slice());
            match rustix::fs::linkat(root, from, root, to, AtFlags::empty()) {
                Err(Errno::MLINK) => {
                    let (from, to) = (OsStr::from_bytes(from), OsStr::from_bytes(to));
                    copy_object(root, from, root, to, &self.writer)
                        .at("copy", self.on_disk(&entry.path))?;
                    all = false;
                }
                done => done.at("link", self.on_disk(&entry.path))?,
            }
        }
        Ok(all)
    }

    /// Shares the source's blocks where the file system can; false where they must be copied.
    fn clone_blocks(&self, to: &File, from: &File, size: u64) -> bool {
        if size == 0 || !self.clones.load(Ordering::Relaxed) {
            return false;
        }
        let cloned = rustix::fs::ioctl_ficlone(to, from).is_ok();
        if !cloned {
            self.clones.store(false, Ordering::Relaxed);
        }
        cloned && to.metadata().is_ok_and(|made| made.len() == size)
    }
}

impl Contents for Copier<'_> {
    fn open(&self, index: usize, entry: &Entry) -> Result<Option<Opened>> {
        let Some((number, at)) = self.plan.origin(index) else {
            return Ok(None);
        };
        if let Some(shared) = self.shared(number, at, entry) {
            return Ok(Some(shared));
        }
        let source = self.plan.sources[number];
        let path = &source.path(at)[..];
        let on_disk = source.root().on_disk(path);
        let file = File::from(source.root().open_beneath(path, OFlags::RDONLY)?);
        let stat = rustix::fs::fstat(&file).at("stat", &on_disk)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refuse(
                path,
                "it changed its type while it was being copied",
            ));
        }
        let stamp = Stamp::of(&stat);
        let learnt = self.known[number].of(source.inventory(), at);
        // A file that could change without a trace is digested again.
        let known = learnt
            .filter(|learnt| learnt.settled && learnt.state == stamp)
            .map(|learnt| learnt.known);
        let xattrs = match known {
            Some(known) if !known.has_xattrs => Vec::new(),
            _ => source.xattrs_of(&file, &stat, path)?,
        };
        let mode = if xattrs.is_empty() {
            Writer::birth_mode(entry)
        } else {
            Mode::RUSR | Mode::WUSR
        };
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(&self.root, entry.path.as_slice(), flags, mode)
            .at("create", self.on_disk(&entry.path))?;
        let copy = File::from(copy);
        Ok(Some(Opened {
            cloned: self.clone_blocks(&copy, &file, stamp.size),
            size: stamp.size,
            path: on_disk,
            copy_to: Some(copy),
            known: known.map(|known| known.digest),
            state: known.is_none().then_some(stamp),
            xattrs,
            file,
        }))
    }

    fn close(&self, index: usize, entry: &Entry, opened: Opened, digest: &[u8; 32]) -> Result<()> {
        if let Some(fingerprints) = &self.fingerprints {
            fingerprints.add(entry, digest)?;
        }
        let Some((number, at)) = self.plan.origin(index) else {
            return Ok(());
        };
        let source = self.plan.sources[number];
        let noting = self.noting[number].as_ref();
        if let (Some(noting), Some(state)) = (noting, opened.state) {
            // The digest will be that of what was copied: it cannot differ.
            let has_xattrs = !opened.xattrs.is_empty();
            let digest = *digest;
            noting.note(at, state, Known { digest, has_xattrs });
        }
        let learnt = self.known[number].of(source.inventory(), at);
        let learnt = learnt.filter(|_| noting.is_none());
        let differs = learnt.is_some_and(|learnt| learnt.known.digest != *digest);
        let Some(copy) = &opened.copy_to else {
            return self.share(entry, opened, !differs);
        };
        if differs {
            let path = source.path(at);
            let mut drifted = self.drifted.lock().unwrap_or_else(PoisonError::into_inner);
            drifted.get_or_insert_with(|| String::from_utf8_lossy(&path).into_owned());
        }
        let done = self.writer.file(copy.as_fd(), entry);
        done.at("chmod", self.on_disk(&entry.path))
    }
}
