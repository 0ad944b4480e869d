//! [`copy_layer`] and [`make_directory`]: COPY and WORKDIR write an upper folder and digest it.
//!
//! Three steps: `place` says where the destination is and what stands there in the layers below;
//! a plan lists every object of the new layer in the tar's order; then folders, links and nodes
//! are made, `pipeline` copies and digests the files in one reading, and the folders get their
//! final attributes. The upper folder holds afterwards what an overlay mount would have left.
//! Source: Dockerfile reference, COPY and WORKDIR.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::attrs::{create, Owners, Writer};
use crate::cancel::Cancel;
use crate::chmod::ModeChange;
use crate::copy_object::{copy_content, copy_object};
use crate::entry::{Entry, Kind, Xattr};
use crate::error::{IoContext, Result};
use crate::explore::thread_count;
use crate::memo::Stamp;
use crate::pack::{self, is_whiteout_name, settle_time};
use crate::pipeline::{digest, Contents, Opened, Packed};
use crate::place::{attributes, order, refuse, Place, Wanted};
use crate::relink::{Earlier, Fingerprints};
use crate::select::{Learned, Picked, Selection};
use crate::source::join;
use crate::stack::Stack;
use crate::tree::remove_tree;

/// How a COPY writes what it copies.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Absolute path; a trailing `/` makes it a folder.
    pub dest: String,
    /// Wanted uid and gid.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`; what comes out of an archive keeps its own mode.
    pub mode: Option<String>,
    /// Without `owner`: the source's own owners, and not 0:0.
    pub keep_owner: bool,
    /// Times later than this, in seconds since the epoch, become this.
    pub clamp_mtime: Option<i64>,
    /// Threads that copy; None is a fitting number. The outcome does not depend on it.
    pub threads: Option<usize>,
    /// The layer of a like step before, and the file of its fingerprints: what is the same in it
    /// is shared. The outcome does not depend on it.
    pub earlier: Option<(PathBuf, PathBuf)>,
    /// Where the new layer's fingerprints are written.
    pub fingerprints: Option<PathBuf>,
}

/// Carries out one COPY into the empty folder `upper`, over `parents` (base first).
pub fn copy_layer(
    sources: &[&Selection],
    parents: &[PathBuf],
    upper: &Path,
    request: &Request,
    cancel: &Cancel,
) -> Result<Packed> {
    let stack = Stack::new(parents.to_vec());
    if sources
        .iter()
        .all(|source| source.picked().is_empty() && source.named().is_empty())
    {
        // Wildcards that match nothing: not even the destination's folder is made.
        return write(sources, &stack, upper, Vec::new(), request, cancel);
    }
    let (wanted, folder_later) = wanted(sources);
    let place = Place::find(&stack, &request.dest, wanted)?;
    if folder_later && place.name.is_some() {
        let reason = "cannot copy a folder onto a file: end the destination with a slash";
        return Err(refuse(request.dest.as_bytes(), reason));
    }
    let mode = request.mode.as_deref().map(ModeChange::parse).transpose()?;
    let newest = sources
        .iter()
        .flat_map(|source| source.picked())
        .map(|picked| picked.mtime)
        .max();
    let unpacked = sources.first().is_some_and(|source| source.unpacked());
    let new_mode = match &mode {
        // As mkdir(2) makes them under the usual umask.
        Some(ModeChange::Octal(bits)) if !unpacked => bits & 0o755,
        _ => 0o755,
    };
    let mut planner = Planner {
        stack: &stack,
        request,
        mode,
        plan: Vec::new(),
    };
    let owner = request.owner.unwrap_or((0, 0));
    let (folders, missing) = place.folders(&stack, owner, new_mode, newest.unwrap_or(0))?;
    planner.add_parents(folders);
    for (number, source) in sources.iter().enumerate() {
        if source.unpacked() {
            planner.add_unpacked(number, source, &place)?;
        } else {
            planner.add_source(number, source, &place, missing)?;
        }
    }
    let mut plan = planner.finish()?;
    Planner::link(&mut plan, sources);
    write(sources, &stack, upper, plan, request, cancel)
}

/// What the sources make of a destination that says nothing itself, and whether a folder comes
/// later. What comes first decides: a folder's or an archive's contents need a folder; files, even
/// several, take the destination's name, each in the place of the one before.
fn wanted(sources: &[&Selection]) -> (Wanted, bool) {
    let mut items = sources.iter().flat_map(|source| {
        let named = source.named().iter();
        named.map(|named| named.is_dir || source.unpacked())
    });
    match items.next() {
        Some(true) => (Wanted::Folder, false),
        _ => (Wanted::Name, items.any(|is_folder| is_folder)),
    }
}

/// Makes `dest` and its missing parents; where nothing is missing, the layer has no entries.
pub fn make_directory(
    parents: &[PathBuf],
    upper: &Path,
    dest: &str,
    owner: (u32, u32),
    mode: u32,
    cancel: &Cancel,
) -> Result<Packed> {
    let stack = Stack::new(parents.to_vec());
    let place = Place::find(&stack, dest, Wanted::Folder)?;
    let (folders, missing) = place.folders(&stack, owner, mode, 0)?;
    let request = Request::default();
    let mut planner = Planner {
        stack: &stack,
        request: &request,
        mode: None,
        plan: Vec::new(),
    };
    if missing {
        planner.add_parents(folders);
    }
    let plan = planner.finish()?;
    write(&[], &stack, upper, plan, &request, cancel)
}

/// One object of the layer to be.
struct Planned {
    entry: Entry,
    /// Number of the source and index in it; None for a folder that was there, or is implied.
    origin: Option<(usize, usize)>,
}

struct Planner<'a> {
    stack: &'a Stack,
    request: &'a Request,
    mode: Option<ModeChange>,
    plan: Vec<Planned>,
}

impl Planner<'_> {
    fn add_parents(&mut self, folders: Vec<Entry>) {
        for entry in folders {
            self.plan.push(self.given(entry));
        }
    }

    /// A folder that comes from no source.
    fn given(&self, mut entry: Entry) -> Planned {
        settle_time(&mut entry, self.request.clamp_mtime);
        Planned {
            entry,
            origin: None,
        }
    }

    /// Adds one source's objects. `missing`: the destination folder is not there yet.
    fn add_source(
        &mut self,
        number: usize,
        source: &Selection,
        place: &Place,
        missing: bool,
    ) -> Result<()> {
        // Folders of the layers below that this source copies into; a name is looked up below
        // only where its folder is one of them.
        let mut merged: Vec<Vec<u8>> = Vec::new();
        if !missing {
            merged.push(place.folder.clone());
        }
        for (index, picked) in source.picked().iter().enumerate() {
            let dest = source.dest(picked);
            let path = match &place.name {
                Some(name) => join([&place.folder[..], &name[..]]),
                None => join([&place.folder[..], dest]),
            };
            check_name(&path)?;
            let parent = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            while merged
                .last()
                .is_some_and(|folder| !is_within(&path[..parent], folder))
            {
                merged.pop();
            }
            if merged
                .last()
                .is_some_and(|folder| folder[..] == path[..parent])
            {
                self.check_over(&path, picked, &mut merged)?;
            }
            let entry = self.entry(source, index, path);
            self.plan.push(Planned {
                entry,
                origin: Some((number, index)),
            });
        }
        Ok(())
    }

    /// Adds what an archive holds, as if it were extracted over the layers below with the
    /// destination as its root. Each entry, a folder's too, replaces what is no folder; a folder
    /// without an entry is looked for, through symlinks, and keeps what it is if it is there.
    fn add_unpacked(&mut self, number: usize, source: &Selection, place: &Place) -> Result<()> {
        // Folders of the archive, and where their contents go.
        let mut ways: Vec<(&[u8], Vec<u8>)> = Vec::new();
        let mut standing: Vec<Planned> = Vec::new();
        for (index, picked) in source.picked().iter().enumerate() {
            let dest = source.dest(picked);
            while ways.last().is_some_and(|(from, _)| !is_within(dest, from)) {
                ways.pop();
            }
            let path = match ways.last() {
                Some((from, to)) => join([&to[..], &dest[from.len() + 1..]]),
                None => join([&place.folder[..], dest]),
            };
            check_name(&path)?;
            let implied = source.implied(picked);
            if implied {
                if let Some((real, folders)) = self.standing(&path, place)? {
                    standing.extend(folders.into_iter().map(|entry| self.given(entry)));
                    ways.push((dest, real));
                    continue;
                }
            }
            let mut entry = self.entry(source, index, path);
            if implied {
                (entry.uid, entry.gid) = (0, 0);
            }
            self.plan.push(Planned {
                entry,
                origin: Some((number, index)),
            });
        }
        // First, so that an entry for one of them stands.
        self.plan.splice(0..0, standing);
        Ok(())
    }

    /// Where a folder is that an archive takes for granted, and the folders that lead there; None
    /// where it has to be made.
    fn standing(&self, path: &[u8], place: &Place) -> Result<Option<(Vec<u8>, Vec<Entry>)>> {
        let as_path = |path| Path::new(OsStr::from_bytes(path));
        let Some(found) = self.stack.lookup(as_path(path))? else {
            return Ok(None);
        };
        let mut real = path.to_vec();
        if found.is_symlink() {
            // An earlier archive of this ADD may have put a folder in its place.
            let replaced = |one: &Planned| one.entry.path == path;
            if self.plan.iter().any(replaced) {
                return Ok(Some((real, Vec::new())));
            }
            let below = as_path(&place.folder);
            let led = self.stack.resolve_below(below, as_path(path))?;
            real = led.into_os_string().into_vec();
        }
        let there = Place {
            folder: real.clone(),
            name: None,
        };
        let (folders, _) = there.folders(self.stack, (0, 0), 0o755, 0)?;
        Ok(Some((real, folders)))
    }

    /// Refuses a folder onto a file and a file onto a folder of the layers below.
    fn check_over(&self, path: &[u8], picked: &Picked, merged: &mut Vec<Vec<u8>>) -> Result<()> {
        let Some(found) = self.stack.lookup(Path::new(OsStr::from_bytes(path)))? else {
            return Ok(());
        };
        match (picked.file_type() == FileType::Directory, found.is_dir()) {
            (true, true) => merged.push(path.to_vec()),
            (true, false) => return Err(refuse(path, "cannot copy a folder onto a file")),
            (false, true) => return Err(refuse(path, "cannot copy a file onto a folder")),
            (false, false) => {}
        }
        Ok(())
    }

    fn entry(&self, source: &Selection, index: usize, path: Vec<u8>) -> Entry {
        let picked = &source.picked()[index];
        let (major, minor) = picked.device;
        let kind = match picked.file_type() {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink(source.target(picked).to_vec()),
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            _ => Kind::File,
        };
        let kept = if self.request.keep_owner {
            (picked.uid, picked.gid)
        } else {
            (0, 0)
        };
        let (uid, gid) = self.request.owner.unwrap_or(kept);
        let mode = match (&self.mode, &kind) {
            (_, Kind::Symlink(_)) => 0o777,
            (Some(change), kind) if !source.unpacked() => {
                change.apply(picked.mode, *kind == Kind::Directory)
            }
            _ => picked.mode & 0o7777,
        };
        let size = if kind == Kind::File {
            picked.stamp.size
        } else {
            0
        };
        let mut entry = Entry {
            path,
            kind,
            mode,
            uid,
            gid,
            mtime: picked.mtime,
            mtime_nanos: 0,
            size,
            xattrs: source.xattrs(index).to_vec(),
        };
        settle_time(&mut entry, self.request.clamp_mtime);
        entry
    }

    /// Sorts the plan; where two sources give one name, the later one stands.
    fn finish(mut self) -> Result<Vec<Planned>> {
        self.plan
            .sort_by(|a, b| order(&a.entry.path, &b.entry.path));
        let mut plan: Vec<Planned> = Vec::with_capacity(self.plan.len());
        for one in self.plan {
            let is_folder = one.entry.kind == Kind::Directory;
            if let Some(last) = plan.last_mut() {
                let last_is_folder = last.entry.kind == Kind::Directory;
                if last.entry.path == one.entry.path {
                    if last_is_folder != is_folder {
                        let reason = "one source has a file here and another a folder";
                        return Err(refuse(&one.entry.path, reason));
                    }
                    *last = one;
                    continue;
                }
                if !last_is_folder && is_within(&one.entry.path, &last.entry.path) {
                    let reason = "one source has a file here and another a folder";
                    return Err(refuse(&last.entry.path, reason));
                }
            }
            plan.push(one);
        }
        Ok(plan)
    }

    /// Makes further names of one file links to its first one in the plan, as it stands after a
    /// later source may have taken some of them.
    fn link(plan: &mut [Planned], sources: &[&Selection]) {
        let mut first: HashMap<(usize, usize), usize> = HashMap::new();
        for at in 0..plan.len() {
            let Some((number, index)) = plan[at].origin else {
                continue;
            };
            let Some(file) = sources[number].hard_link(index) else {
                continue;
            };
            let Some(&one) = first.get(&(number, file)) else {
                first.insert((number, file), at);
                continue;
            };
            let kind = Kind::Hardlink(plan[one].entry.path.clone());
            let entry = plan[one].entry.clone();
            plan[at] = Planned {
                entry: Entry {
                    path: std::mem::take(&mut plan[at].entry.path),
                    kind,
                    size: 0,
                    xattrs: Vec::new(),
                    ..entry
                },
                origin: None,
            };
        }
    }
}

fn check_name(path: &[u8]) -> Result<()> {
    if is_whiteout_name(path) {
        let reason = "a name that begins with .wh. means a deletion in a layer";
        return Err(refuse(path, reason));
    }
    Ok(())
}

/// Is `path` the folder itself, or below it?
fn is_within(path: &[u8], folder: &[u8]) -> bool {
    folder.is_empty()
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Makes what the plan says in `upper`, digesting it on the way.
fn write(
    sources: &[&Selection],
    stack: &Stack,
    upper: &Path,
    plan: Vec<Planned>,
    request: &Request,
    cancel: &Cancel,
) -> Result<Packed> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty()).at("open", upper)?;
    let (entries, origins) = plan.into_iter().map(|one| (one.entry, one.origin)).unzip();
    let entries: Vec<Entry> = entries;
    let earlier = request.earlier.as_ref();
    let mut copier = Copier {
        sources,
        origins,
        known: sources.iter().map(|source| source.known()).collect(),
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
    let mut packed = copier.fill(&entries, stack, request, cancel)?;
    let damaged = std::mem::take(&mut copier.damaged).into_inner();
    let damaged = damaged.unwrap_or_else(PoisonError::into_inner);
    if damaged.is_some() {
        // What was read of the earlier layer is in the tar already: all of it is made again.
        copier.earlier = None;
        copier.empty()?;
        packed = copier.fill(&entries, stack, request, cancel)?;
    }
    packed.damaged = damaged;
    let drifted = copier.drifted.into_inner();
    packed.drifted = drifted.unwrap_or_else(PoisonError::into_inner);
    Ok(packed)
}

struct Copier<'a> {
    sources: &'a [&'a Selection],
    origins: Vec<Option<(usize, usize)>>,
    known: Vec<Arc<Learned>>,
    root: OwnedFd,
    upper: &'a Path,
    writer: Writer,
    /// Until the file system says that it cannot share blocks between files.
    clones: AtomicBool,
    /// A file that is not what its selection's digest says.
    drifted: Mutex<Option<String>>,
    /// Extended attributes of files that have some, as the sources' digests count them.
    xattrs: Vec<Arc<HashMap<usize, Vec<Xattr>>>>,
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
    fn fill(
        &mut self,
        entries: &[Entry],
        stack: &Stack,
        request: &Request,
        cancel: &Cancel,
    ) -> Result<Packed> {
        self.fingerprints = match &request.fingerprints {
            Some(path) => Some(Fingerprints::create(path, entries)?),
            None => None,
        };
        self.writer
            .begin(self.root.as_fd())
            .at("chmod", self.upper)?;
        for entry in entries {
            cancel.check()?;
            self.make(entry)?;
        }
        let threads = request.threads.unwrap_or_else(thread_count);
        let mut packed = digest(entries, &*self, None, threads, cancel)?;
        let all_linked = self.link(entries)?;
        self.finish_folders(entries, stack)?;
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
    fn finish_folders(&self, entries: &[Entry], stack: &Stack) -> Result<()> {
        let folders = entries.iter().rev();
        for entry in folders.filter(|entry| entry.kind == Kind::Directory) {
            let name = OsStr::from_bytes(&entry.path);
            let done = self.writer.named(self.root.as_fd(), name, entry);
            done.at("chmod", self.on_disk(&entry.path))?;
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
    fn shared(&self, number: usize, item: usize, entry: &Entry) -> Option<Opened> {
        let earlier = self.earlier.as_ref()?;
        let known = self.known[number].get(item).copied().flatten()?.known;
        let none = Vec::new();
        let xattrs = if known.has_xattrs {
            self.xattrs[number].get(&item)?
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
    fn link(&self, entries: &[Entry]) -> Result<bool> {
        let root = self.root.as_fd();
        let mut all = true;
        for entry in entries {
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
        let Some((number, item)) = self.origins[index] else {
            return Ok(None);
        };
        if let Some(shared) = self.shared(number, item, entry) {
            return Ok(Some(shared));
        }
        let source = self.sources[number];
        let path = source.path(&source.picked()[item]);
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
        let learnt = self.known[number].get(item).copied().flatten();
        // A file that could change without a trace is digested again.
        let known = learnt
            .filter(|learnt| learnt.settled && learnt.state == stamp)
            .map(|learnt| learnt.known);
        let xattrs = match known {
            Some(known) if !known.has_xattrs => Vec::new(),
            _ => source.xattrs_of(&file, path)?,
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
            xattrs,
            file,
        }))
    }

    fn close(&self, index: usize, entry: &Entry, opened: Opened, digest: &[u8; 32]) -> Result<()> {
        if let Some(fingerprints) = &self.fingerprints {
            fingerprints.add(entry, digest)?;
        }
        let Some((number, item)) = self.origins[index] else {
            return Ok(());
        };
        let learnt = self.known[number].get(item).copied().flatten();
        let differs = learnt.is_some_and(|learnt| learnt.known.digest != *digest);
        let Some(copy) = &opened.copy_to else {
            return self.share(entry, opened, !differs);
        };
        if differs {
            let source = self.sources[number];
            let path = String::from_utf8_lossy(source.path(&source.picked()[item]));
            let mut drifted = self.drifted.lock().unwrap_or_else(PoisonError::into_inner);
            drifted.get_or_insert_with(|| path.into_owned());
        }
        let done = self.writer.file(copy.as_fd(), entry);
        done.at("chmod", self.on_disk(&entry.path))
    }
}

#[cfg(test)]
mod tests;
