//! [`Selection`]: the files that one COPY or ADD takes out of one tree, in a stable order.
//!
//! The solver makes one per source for the cache key ([`Selection::content_digest`]) and hands it
//! to `copy` on a miss. The tree is walked once, on several threads; ignored folders that nothing
//! brings back are never entered, and a file whose identity the memo knows is never read.
//! Nothing is written here. Source: Dockerfile reference, COPY and ".dockerignore file".

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::attrs;
use crate::cancel::Cancel;
use crate::entry::{Entry, Kind, Xattr};
use crate::error::{IoContext, Result};
use crate::explore::{explore, thread_count, Found};
use crate::ignore::{clean, Ignore, Matched};
use crate::index::IndexModes;
use crate::memo::{now_nanos, DigestMemo, Known, Stamp};
use crate::pipeline::Record;
use crate::source::{in_pattern, join, missing, Named, SourceRoot, IGNORED};

/// Files that one thread digests at once.
const BATCH: usize = 64;

/// What a selection is made of.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// Source words, Go's `filepath.Match` globs.
    pub patterns: &'a [String],
    /// Lines of the ignore file.
    pub ignore: &'a [Vec<u8>],
    /// `--exclude` patterns, relative to each folder that is copied.
    pub exclude: &'a [Vec<u8>],
    /// What is taken keeps the folders that it lies in, from the pivot `/./` on.
    pub parents: bool,
    /// The tree is an archive, unpacked: the folders in it that have no entry of their own.
    pub unpacked: Option<&'a [Vec<u8>]>,
    /// Owners count (a stage's files); otherwise every file is 0:0 (a context's).
    pub owners: bool,
    /// What is left out is remembered, see [`Selection::hidden`].
    pub hidden: bool,
    /// The tree is a work tree of git, and its files have the modes of the index.
    pub modes: Option<Arc<IndexModes>>,
}

/// One object of a selection. Paths lie in the selection, see [`Selection::path`].
#[derive(Debug, Clone)]
pub struct Picked {
    path: Range<usize>,
    dest: Range<usize>,
    target: Range<usize>,
    /// `st_mode`, with the type bits.
    pub mode: u32,
    /// Owner in the image.
    pub uid: u32,
    /// Group in the image.
    pub gid: u32,
    /// Device numbers, or zeros.
    pub device: (u32, u32),
    /// Modification time in whole seconds, rounded down.
    pub mtime: i64,
    /// Identity of the content when the tree was walked.
    pub stamp: Stamp,
    /// The file has other names, somewhere.
    linked: bool,
}

impl Picked {
    /// Its type, in the image.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

/// What is known of one file.
#[derive(Debug, Clone, Copy)]
pub struct Learnt {
    /// The state of the file that it holds for.
    pub state: Stamp,
    /// Its content.
    pub known: Known,
    /// A later change of the file would show in its state (see [`crate::memo::Clock::settled`]).
    pub settled: bool,
}

/// What is known of each object of a selection.
pub type Learned = Vec<Option<Learnt>>;

/// One regular file of a selection, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the root of the tree.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// `blake3:<hex>` of its content.
    pub digest: String,
}

/// The files that one COPY or ADD takes out of one tree.
#[derive(Debug)]
pub struct Selection {
    root: SourceRoot,
    owners: bool,
    arena: Vec<u8>,
    picked: Vec<Picked>,
    /// Extended attributes of what is no regular file, by index.
    xattrs: HashMap<usize, Vec<Xattr>>,
    /// Of each file that has several names in one folder that is copied, the index of the first
    /// one, by index; of that one itself too.
    links: HashMap<usize, usize>,
    unpacked: bool,
    /// Folders that an archive took for granted.
    implied: HashSet<Vec<u8>>,
    ignored: bool,
    /// What lies in the folders and was left out, where it was asked for: each path from the root.
    hidden: Option<Vec<Vec<u8>>>,
    foreign: bool,
    modes: Option<Arc<IndexModes>>,
    /// Something has another mode here than on disk.
    altered: bool,
    /// What the patterns named.
    named: Vec<Named>,
    /// What `content_digest` learned of each file.
    known: Mutex<Arc<Learned>>,
    /// The extended attributes of files that have some, by index; as `content_digest` read them.
    file_xattrs: Mutex<Arc<HashMap<usize, Vec<Xattr>>>>,
}

impl Selection {
    /// Walks the tree at `root` for what the patterns name.
    pub fn new(root: &Path, request: &Request<'_>, cancel: &Cancel) -> Result<Self> {
        let mut selection = Self {
            root: SourceRoot::open(root)?,
            owners: request.owners,
            arena: Vec::new(),
            picked: Vec::new(),
            xattrs: HashMap::new(),
            links: HashMap::new(),
            unpacked: request.unpacked.is_some(),
            implied: request
                .unpacked
                .unwrap_or_default()
                .iter()
                .cloned()
                .collect(),
            ignored: false,
            hidden: request.hidden.then(Vec::new),
            foreign: false,
            modes: request.modes.clone(),
            altered: false,
            named: Vec::new(),
            known: Mutex::default(),
            file_xattrs: Mutex::default(),
        };
        let ignore = Ignore::new(request.ignore)?;
        let exclude = Ignore::new(request.exclude)?;
        for pattern in request.patterns {
            if request.parents {
                selection.add_with_parents(pattern, &ignore, &exclude, cancel)?;
            } else {
                selection.add_pattern(pattern, &ignore, &exclude, cancel)?;
            }
        }
        Ok(selection)
    }

    fn add_pattern(
        &mut self,
        pattern: &str,
        ignore: &Ignore,
        exclude: &Ignore,
        cancel: &Cancel,
    ) -> Result<()> {
        let (named, ignored) = self.root.named(pattern, ignore)?;
        self.ignored |= ignored;
        for source in named {
            // A file that is named is wanted, whatever `--exclude` says.
            if source.is_dir {
                self.add_folder(&source.path, None, ignore, exclude, cancel)?;
            } else {
                self.add_single(&source.path, &source.name)?;
            }
            self.named.push(source);
        }
        Ok(())
    }

    /// Adds what matches behind the pivot of each folder that the words before it name.
    ///
    /// A word without a wildcard must name something; symlinks behind the pivot are not followed.
    fn add_with_parents(
        &mut self,
        pattern: &str,
        ignore: &Ignore,
        exclude: &Ignore,
        cancel: &Cancel,
    ) -> Result<()> {
        let (pivot, rest) = pattern.split_once("/./").unwrap_or(("/", pattern));
        let rest = clean(format!("/{rest}").as_bytes());
        let rest = String::from_utf8_lossy(&rest[1..]).into_owned();
        let include = match rest.as_str() {
            "" => None,
            rest => Some(Ignore::of_path(rest).map_err(|error| in_pattern(pattern, error))?),
        };
        let literal = SourceRoot::literal(&rest)?;
        let folders = self.root.named(pivot, ignore);
        let (folders, ignored) = folders.map_err(|error| in_pattern(pattern, error))?;
        self.ignored |= ignored;
        for folder in folders.into_iter().filter(|folder| folder.is_dir) {
            let count = self.picked.len();
            self.add_folder(&folder.path, include.as_ref(), ignore, exclude, cancel)?;
            if let (Some(literal), true) = (&literal, self.picked.len() == count) {
                let path = join([&folder.path[..], literal]);
                if !self.root.has(&path)? {
                    return Err(missing(pattern, "not found"));
                }
                if ignore.excludes(&path) {
                    return Err(missing(pattern, IGNORED));
                }
            }
            self.named.push(folder);
        }
        Ok(())
    }

    /// The objects, folders included, each folder before what is in it.
    pub fn picked(&self) -> &[Picked] {
        &self.picked
    }

    /// Its path relative to the root of the tree.
    pub fn path(&self, picked: &Picked) -> &[u8] {
        &self.arena[picked.path.clone()]
    }

    /// Its path relative to the destination folder; empty for the source folder itself.
    pub fn dest(&self, picked: &Picked) -> &[u8] {
        &self.arena[picked.dest.clone()]
    }

    /// A symlink's target.
    pub fn target(&self, picked: &Picked) -> &[u8] {
        &self.arena[picked.target.clone()]
    }

    /// Extended attributes of what is no regular file.
    pub fn xattrs(&self, index: usize) -> &[Xattr] {
        self.xattrs.get(&index).map_or(&[], Vec::as_slice)
    }

    /// The file that an object is one of several names of: the index of its first name.
    ///
    /// Names count that lie in one folder that is copied, however deep. A file that a pattern
    /// names itself has that one name, and so has one whose other names were left out.
    pub fn hard_link(&self, index: usize) -> Option<usize> {
        self.links.get(&index).copied()
    }

    /// The tree that the files come from.
    pub fn root(&self) -> &SourceRoot {
        &self.root
    }

    /// Whether the owners are the source's own.
    pub fn owners(&self) -> bool {
        self.owners
    }

    /// True where the files came out of an archive: they replace whatever stands in their way.
    pub fn unpacked(&self) -> bool {
        self.unpacked
    }

    /// True for a folder of an archive that has no entry of its own there.
    pub fn implied(&self, picked: &Picked) -> bool {
        !self.implied.is_empty() && self.implied.contains(self.path(picked))
    }

    /// True where the ignore file took away something that a pattern named.
    pub fn ignored(&self) -> bool {
        self.ignored
    }

    /// What lies in the folders and was left out, no folder and what is in it both; only where the
    /// request asked for it.
    pub fn hidden(&self) -> &[Vec<u8>] {
        self.hidden.as_deref().unwrap_or_default()
    }

    /// True where something belongs to another user or group than this namespace's root.
    pub fn foreign(&self) -> bool {
        self.foreign
    }

    /// True where something has another mode here than on disk.
    pub fn altered(&self) -> bool {
        self.altered
    }

    /// What the patterns named, in their order.
    pub fn named(&self) -> &[Named] {
        &self.named
    }

    /// Bytes of all regular files.
    pub fn total_bytes(&self) -> u64 {
        self.files().map(|(_, picked)| picked.stamp.size).sum()
    }

    fn files(&self) -> impl Iterator<Item = (usize, &Picked)> {
        let all = self.picked.iter().enumerate();
        all.filter(|(_, picked)| picked.file_type() == FileType::RegularFile)
    }

    /// What `content_digest` learned of one file, with the state of the file it holds for.
    pub fn known(&self) -> Arc<Learned> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known)
    }

    /// The extended attributes of the files that have some, by index, as `content_digest` saw them.
    pub fn file_xattrs(&self) -> Arc<HashMap<usize, Vec<Xattr>>> {
        let xattrs = self.file_xattrs.lock();
        Arc::clone(&xattrs.unwrap_or_else(PoisonError::into_inner))
    }

    /// The regular files with their digests, for people; reads those not digested yet.
    pub fn listed(&self, cancel: &Cancel) -> Result<Vec<Listed>> {
        let mut known = self.known();
        if known.is_empty() {
            known = Arc::new(self.learn(None, cancel)?);
        }
        let files = self.files().map(|(index, picked)| Listed {
            path: String::from_utf8_lossy(self.path(picked)).into_owned(),
            size: picked.stamp.size,
            mode: picked.mode & 0o7777,
            digest: known[index].map_or_else(String::new, |learnt| {
                format!(
                    "blake3:{}",
                    blake3::Hash::from(learnt.known.digest).to_hex()
                )
            }),
        });
        Ok(files.collect())
    }

    /// The paths of the regular files, relative to the root; reads none of them.
    pub fn file_paths(&self) -> Vec<String> {
        let paths = self.files().map(|(_, picked)| self.path(picked));
        paths
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect()
    }

    fn add_single(&mut self, path: &[u8], name: &[u8]) -> Result<()> {
        let stat = self.root.stat(path)?;
        let stat = stat
            .ok_or(Errno::NOENT)
            .at("stat", self.root.on_disk(path))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
            return Ok(());
        }
        self.foreign |= is_foreign(&stat);
        let mut child = Child::new(0..0, &stat, self.owners);
        if self.owners && child.file_type() == FileType::RegularFile {
            let file = self.root.open_beneath(path, OFlags::RDONLY)?;
            let attrs = attrs::read_open(file.as_fd()).at("stat", self.root.on_disk(path))?;
            child.take(attrs.map(|attrs| attrs.entry));
        }
        let path = self.remember(path);
        let dest = self.remember(name);
        self.push(&child, path, dest, &[]);
        Ok(())
    }

    fn remember(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        start..self.arena.len()
    }

    fn remember_in(&mut self, folder: &[u8], name: &[u8]) -> Range<usize> {
        let start = self.arena.len();
        self.arena.extend_from_slice(folder);
        if !folder.is_empty() {
            self.arena.push(b'/');
        }
        self.arena.extend_from_slice(name);
        start..self.arena.len()
    }

    fn push(&mut self, child: &Child, path: Range<usize>, dest: Range<usize>, target: &[u8]) {
        let target = self.remember(target);
        let mode = match &self.modes {
            Some(modes) => modes.of(&self.arena[path.clone()], child.mode),
            None => child.mode,
        };
        self.altered |= mode != child.mode;
        self.picked.push(Picked {
            path,
            dest,
            target,
            mode,
            uid: child.uid,
            gid: child.gid,
            device: child.device,
            mtime: child.mtime,
            stamp: child.stamp,
            linked: child.linked,
        });
    }

    /// Adds the contents of a folder; of it itself nothing is kept.
    fn add_folder(
        &mut self,
        source: &[u8],
        include: Option<&Ignore>,
        ignore: &Ignore,
        exclude: &Ignore,
        cancel: &Cancel,
    ) -> Result<()> {
        let prefix = source.len() + usize::from(!source.is_empty());
        let walk = Walk {
            root: &self.root,
            owners: self.owners,
            rules: [Some(ignore), Some(exclude), include],
            prefix,
            hidden: self.hidden.is_some(),
            foreign: AtomicBool::new(false),
            linked: AtomicBool::new(false),
        };
        let mut nodes = walk.run(source, cancel)?;
        self.foreign |= walk.foreign.load(Ordering::Relaxed);
        let linked = walk.linked.load(Ordering::Relaxed);
        self.picked
            .reserve_exact(nodes.iter().map(|node| node.children.len()).sum());
        let count = self.picked.len();
        if !nodes.is_empty() {
            self.add_children(source, prefix, &mut nodes, 0);
        }
        if linked {
            self.find_links(count);
        }
        Ok(())
    }

    /// Finds the files that have several names among what was picked from `start` on.
    ///
    /// What may be one depends on no more than the image shows: a file of the source, or anything
    /// out of an archive.
    fn find_links(&mut self, start: usize) {
        let mut first: HashMap<Stamp, usize> = HashMap::new();
        for (index, picked) in self.picked.iter().enumerate().skip(start) {
            let may_be = match picked.file_type() {
                FileType::RegularFile => true,
                FileType::Directory => false,
                _ => self.unpacked,
            };
            if !may_be || !picked.linked {
                continue;
            }
            if let Some(&first) = first.get(&picked.stamp) {
                self.links.insert(first, first);
                self.links.insert(index, first);
            } else {
                first.insert(picked.stamp, index);
            }
        }
    }

    fn add_xattrs(&mut self, index: usize, node: &mut Node) {
        let xattrs = std::mem::take(&mut node.xattrs);
        if !xattrs.is_empty() {
            self.xattrs.insert(index, xattrs);
        }
    }

    /// Adds what is in one folder. A folder that is ignored but for something below it is kept for
    /// that alone.
    fn add_children(&mut self, folder: &[u8], prefix: usize, nodes: &mut Vec<Node>, id: usize) {
        let children = std::mem::take(&mut nodes[id].children);
        let names = std::mem::take(&mut nodes[id].names);
        if let Some(hidden) = &mut self.hidden {
            hidden.append(&mut nodes[id].hidden);
        }
        for child in children {
            let left_out = self.hidden.as_ref().map(Vec::len);
            let (arena, count) = (self.arena.len(), self.picked.len());
            let place = self.remember_in(folder, &names[child.name.clone()]);
            let dest = place.start + prefix..place.end;
            let Some(below) = child.folder else {
                self.push(&child, place, dest, &names[child.target.clone()]);
                continue;
            };
            let own = nodes[below].own.clone();
            self.push(&own, place.clone(), dest, &[]);
            self.add_xattrs(count, &mut nodes[below]);
            let path = self.arena[place].to_vec();
            self.add_children(&path, prefix, nodes, below);
            if child.hidden && self.picked.len() == count + 1 {
                self.picked.truncate(count);
                self.arena.truncate(arena);
                self.xattrs.remove(&count);
                if let (Some(hidden), Some(left_out)) = (&mut self.hidden, left_out) {
                    hidden.truncate(left_out);
                    hidden.push(path);
                }
            }
        }
    }

    /// `blake3:<hex>` over destinations, types, modes, owners, link targets, xattrs and contents.
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
        let mut records = Vec::with_capacity(BATCH * 256);
        for index in 0..self.picked.len() {
            self.record(index, &known, &file_xattrs)
                .append(&mut records);
            if records.len() > BATCH * 192 {
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

    /// What a content digest says of one object.
    fn record<'a>(
        &'a self,
        index: usize,
        known: &'a Learned,
        file_xattrs: &'a HashMap<usize, Vec<Xattr>>,
    ) -> Record<'a> {
        let picked = &self.picked[index];
        // Who writes to one name of a file changes the others: which they are is part of what
        // is copied. How many it has elsewhere is not.
        let first = self.hard_link(index).filter(|&first| first != index);
        Record {
            path: self.dest(picked),
            tag: first.map_or(tag(picked.file_type()), |_| b'h'),
            mode: picked.mode,
            uid: picked.uid,
            gid: picked.gid,
            target: first.map_or(self.target(picked), |first| self.dest(&self.picked[first])),
            device: picked.device,
            xattrs: file_xattrs
                .get(&index)
                .map_or(self.xattrs(index), Vec::as_slice),
            digest: known
                .get(index)
                .and_then(Option::as_ref)
                .map(|learnt| &learnt.known.digest),
        }
    }

    /// Shows each object as the last `content_digest` saw it: its path from the root of the tree,
    /// its size, and the rest.
    pub fn each_record(&self, mut show: impl FnMut(&[u8], u64, &Record<'_>)) {
        let known = self.known();
        let file_xattrs = self.file_xattrs();
        for (index, picked) in self.picked.iter().enumerate() {
            let record = self.record(index, &known, &file_xattrs);
            show(self.path(picked), picked.stamp.size, &record);
        }
    }

    /// Digests of all regular files, by index: from the memo, or read on several threads.
    fn learn(&self, memo: Option<&DigestMemo>, cancel: &Cancel) -> Result<Learned> {
        let began = now_nanos();
        let mut known = vec![None; self.picked.len()];
        let mut missing = Vec::new();
        let mut found = match memo {
            Some(memo) => memo
                .find(self.files().map(|(_, picked)| picked.stamp))
                .into_iter(),
            None => Vec::new().into_iter(),
        };
        for (index, picked) in self.files() {
            match found.next().flatten() {
                Some(answer) => {
                    known[index] = Some(Learnt {
                        state: picked.stamp,
                        known: answer,
                        settled: true,
                    });
                }
                None if self.hard_link(index).is_some_and(|first| first != index) => {}
                None => missing.push(index),
            }
        }
        if missing.is_empty() {
            return Ok(known);
        }
        let clock = self.root.clock()?;
        let read = self.read_files(&missing, cancel)?;
        if let Some(memo) = memo {
            let files = read.iter().map(|&(_, stamp, known)| (stamp, known));
            memo.record(began, clock, files);
        }
        for (index, state, answer) in read {
            known[index] = Some(Learnt {
                state,
                known: answer,
                settled: clock.settled(&state, began),
            });
        }
        for (&index, &first) in &self.links {
            known[index] = known[index].or(known[first]);
        }
        Ok(known)
    }

    fn read_files(&self, files: &[usize], cancel: &Cancel) -> Result<Vec<(usize, Stamp, Known)>> {
        let cursor = AtomicUsize::new(0);
        let run = || -> Result<Vec<(usize, Stamp, Known)>> {
            let mut buffer = vec![0; 256 << 10];
            let mut done = Vec::new();
            loop {
                cancel.check()?;
                let start = cursor.fetch_add(BATCH, Ordering::Relaxed).min(files.len());
                let batch = &files[start..files.len().min(start + BATCH)];
                if batch.is_empty() {
                    return Ok(done);
                }
                for &index in batch {
                    let (stamp, known) = self.read_file(index, &mut buffer)?;
                    done.push((index, stamp, known));
                }
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
                all = all.and_then(|mut all| {
                    all.extend(more?);
                    Ok(all)
                });
            }
            all
        })
    }

    fn read_file(&self, index: usize, buffer: &mut [u8]) -> Result<(Stamp, Known)> {
        let path = self.path(&self.picked[index]);
        let on_disk = || self.root.on_disk(path);
        let mut file = File::from(self.root.open_beneath(path, OFlags::RDONLY)?);
        let stat = rustix::fs::fstat(&file).at("stat", on_disk())?;
        let has_xattrs = !self.xattrs_of(&file, path)?.is_empty();
        let mut hasher = blake3::Hasher::new();
        loop {
            let count = file.read(buffer).at("read", on_disk())?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        let digest = *hasher.finalize().as_bytes();
        Ok((Stamp::of(&stat), Known { digest, has_xattrs }))
    }

    /// What an image keeps of an open file's extended attributes.
    pub fn xattrs_of(&self, file: impl AsFd, path: &[u8]) -> Result<Vec<Xattr>> {
        let attrs = attrs::read_open(file.as_fd()).at("getxattr", self.root.on_disk(path))?;
        Ok(attrs.map_or_else(Vec::new, |attrs| attrs.entry.xattrs))
    }

    fn read_file_xattrs(&self, known: &Learned) -> Result<HashMap<usize, Vec<Xattr>>> {
        let mut all = HashMap::new();
        for (index, learnt) in known.iter().enumerate() {
            if learnt.is_some_and(|learnt| learnt.known.has_xattrs) {
                let path = self.path(&self.picked[index]);
                let file = self.root.open_beneath(path, OFlags::RDONLY)?;
                all.insert(index, self.xattrs_of(file, path)?);
            }
        }
        Ok(all)
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

/// One folder as the walk found it.
struct Node {
    own: Child,
    xattrs: Vec<Xattr>,
    children: Vec<Child>,
    /// Names and link targets of the children.
    names: Vec<u8>,
    /// Paths of what was left out, where that is asked for.
    hidden: Vec<Vec<u8>>,
}

impl Node {
    /// Adds a folder, which is visited later.
    fn enter(
        &mut self,
        path: &[u8],
        name: &[u8],
        verdict: &Verdict,
        known: [Matched; 3],
        found: &mut Found<'_, Job>,
    ) {
        let path = path.to_vec();
        let child = Child {
            name: self.remember(name),
            folder: Some(found.folder(Job { path, known })),
            hidden: matches!(verdict, Verdict::Hidden),
            ..Child::default()
        };
        self.children.push(child);
    }

    fn remember(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.names.len();
        self.names.extend_from_slice(bytes);
        start..self.names.len()
    }
}

#[derive(Debug, Clone, Default)]
struct Child {
    name: Range<usize>,
    target: Range<usize>,
    mode: u32,
    uid: u32,
    gid: u32,
    device: (u32, u32),
    mtime: i64,
    stamp: Stamp,
    /// Index of the folder's own node.
    folder: Option<usize>,
    /// Ignored, and here only for what may be brought back below it.
    hidden: bool,
    /// It has other names.
    linked: bool,
}

impl Child {
    fn new(name: Range<usize>, stat: &Stat, owners: bool) -> Self {
        let is_device = matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::CharacterDevice | FileType::BlockDevice
        );
        let rdev = if is_device { stat.st_rdev } else { 0 };
        Self {
            name,
            target: 0..0,
            mode: stat.st_mode,
            uid: if owners { stat.st_uid } else { 0 },
            gid: if owners { stat.st_gid } else { 0 },
            device: (rustix::fs::major(rdev), rustix::fs::minor(rdev)),
            mtime: stat.st_mtime,
            stamp: Stamp::of(stat),
            folder: None,
            hidden: false,
            linked: stat.st_nlink > 1,
        }
    }

    fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Takes what the object means in the image, where that is not what `stat` says.
    fn take(&mut self, entry: Option<Entry>) {
        let Some(entry) = entry else {
            return;
        };
        (self.uid, self.gid) = (entry.uid, entry.gid);
        let file_type = match entry.kind {
            Kind::CharDevice { major, minor } => {
                self.device = (major, minor);
                FileType::CharacterDevice
            }
            Kind::BlockDevice { major, minor } => {
                self.device = (major, minor);
                FileType::BlockDevice
            }
            Kind::Fifo => FileType::Fifo,
            _ => return,
        };
        self.mode = file_type.as_raw_mode() | entry.mode;
    }
}

/// The rules of a walk: the ignore file, `--exclude`, and what `--parents` takes.
const IGNORE: usize = 0;
const INCLUDE: usize = 2;

struct Walk<'a> {
    root: &'a SourceRoot,
    owners: bool,
    rules: [Option<&'a Ignore>; 3],
    /// Length of the source's path and its slash: all rules but the ignore file see what follows.
    prefix: usize,
    /// What is left out is remembered.
    hidden: bool,
    foreign: AtomicBool,
    /// Set where a file has several names.
    linked: AtomicBool,
}

struct Job {
    path: Vec<u8>,
    /// What each rule knows in this folder.
    known: [Matched; 3],
}

/// What the rules say of one name.
enum Verdict {
    /// It is taken.
    In,
    /// It is not, and nothing below it can be.
    Out,
    /// It is not, but something below it may be.
    Hidden,
}

impl Walk<'_> {
    fn run(&self, source: &[u8], cancel: &Cancel) -> Result<Vec<Node>> {
        let mut known: [Matched; 3] = Default::default();
        for (index, rule) in self.rules.iter().enumerate() {
            if let Some(rule) = rule {
                known[index] = match index {
                    IGNORE => rule.walk_to(source),
                    _ => rule.top(),
                };
            }
        }
        let first = Job {
            path: source.to_vec(),
            known,
        };
        explore(thread_count(), cancel, first, |job, found| {
            self.visit(&job, found)
        })
    }

    fn note_owner(&self, stat: &Stat) {
        if is_foreign(stat) {
            self.foreign.store(true, Ordering::Relaxed);
        }
    }

    fn leave_out(&self, path: &[u8], node: &mut Node) {
        if self.hidden {
            node.hidden.push(path.to_vec());
        }
    }

    /// Judges a name; for a folder that is entered, `below` is filled with what is known in it.
    fn judge(&self, path: &[u8], job: &Job, is_dir: bool, below: &mut [Matched; 3]) -> Verdict {
        let mut verdict = Verdict::In;
        for (index, rule) in self.rules.iter().enumerate() {
            let Some(rule) = rule.filter(|rule| index == INCLUDE || !rule.is_empty()) else {
                continue;
            };
            let path = &path[if index == IGNORE { 0 } else { self.prefix }..];
            let known = &job.known[index];
            let decided = rule.decide(path, known);
            let out = rule.takes(decided) != (index == INCLUDE);
            if is_dir {
                below[index] = rule.enter(path, known, decided);
            }
            if out {
                let may_hold = is_dir
                    && match index {
                        INCLUDE => rule.may_take(&below[index]),
                        _ => rule.may_return(&below[index]),
                    };
                if !may_hold {
                    return Verdict::Out;
                }
                verdict = Verdict::Hidden;
            }
        }
        verdict
    }

    fn visit(&self, job: &Job, found: &mut Found<'_, Job>) -> Result<Node> {
        let on_disk = || self.root.on_disk(&job.path);
        let fd = self
            .root
            .open_beneath(&job.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let stat = rustix::fs::fstat(&fd).at("stat", on_disk())?;
        let attrs = attrs::read_known(fd.as_fd(), &stat).at("getxattr", on_disk())?;
        let mut own = Child::new(0..0, &stat, self.owners);
        let mut entry = attrs.map(|attrs| attrs.entry);
        let xattrs = entry
            .as_mut()
            .map_or_else(Vec::new, |entry| std::mem::take(&mut entry.xattrs));
        if self.owners {
            own.take(entry);
        }
        let mut node = Node {
            own,
            xattrs,
            children: Vec::new(),
            names: Vec::new(),
            hidden: Vec::new(),
        };
        self.note_owner(&stat);
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut entries = RawDir::new(&fd, &mut buffer);
        let mut child_path = job.path.clone();
        if !child_path.is_empty() {
            child_path.push(b'/');
        }
        let stem = child_path.len();
        while let Some(entry) = entries.next() {
            let entry = entry.at("read", on_disk())?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                child_path.truncate(stem);
                child_path.extend_from_slice(name);
                let kind = entry.file_type();
                self.add(&fd, job, &child_path, kind, &mut node, found)?;
            }
        }
        let names = &node.names;
        let name = |child: &Child| &names[child.name.clone()];
        node.children.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        Ok(node)
    }

    fn add(
        &self,
        folder: &OwnedFd,
        job: &Job,
        path: &[u8],
        kind: FileType,
        node: &mut Node,
        found: &mut Found<'_, Job>,
    ) -> Result<()> {
        let name = &path[path.len() - name_length(path)..];
        let mut below: [Matched; 3] = Default::default();
        // What is out is not even looked at, where the folder's listing tells its type.
        let listed = match kind {
            FileType::Unknown => None,
            kind => Some((kind, self.judge(path, job, kind.is_dir(), &mut below))),
        };
        if matches!(listed, Some((_, Verdict::Out))) {
            self.leave_out(path, node);
            return Ok(());
        }
        if let Some((FileType::Directory, verdict)) = listed {
            // Its visit looks at it.
            node.enter(path, name, &verdict, below, found);
            return Ok(());
        }
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went away since the folder was read.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno).at("stat", self.root.on_disk(path)),
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let verdict = match listed {
            Some((kind, verdict)) if kind == file_type => verdict,
            _ => self.judge(path, job, file_type.is_dir(), &mut below),
        };
        if matches!(verdict, Verdict::Out) {
            self.leave_out(path, node);
            return Ok(());
        }
        match file_type {
            FileType::Socket => return Ok(()),
            FileType::Directory => {
                node.enter(path, name, &verdict, below, found);
                return Ok(());
            }
            _ => {}
        }
        self.note_owner(&stat);
        let mut child = Child::new(node.remember(name), &stat, self.owners);
        if child.linked {
            self.linked.store(true, Ordering::Relaxed);
        }
        match file_type {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())
                    .at("readlink", self.root.on_disk(path))?;
                child.target = node.remember(target.as_bytes());
            }
            FileType::RegularFile if self.owners => {
                let attrs = attrs::read(folder.as_fd(), OsStr::from_bytes(name))
                    .at("stat", self.root.on_disk(path))?;
                child.take(attrs.map(|attrs| attrs.entry));
            }
            _ => {}
        }
        node.children.push(child);
        Ok(())
    }
}

/// Tells a file that is somebody else's than this namespace's root.
fn is_foreign(stat: &Stat) -> bool {
    stat.st_uid != 0 || stat.st_gid != 0
}

/// Length of a path's last name.
fn name_length(path: &[u8]) -> usize {
    let slash = path.iter().rposition(|&byte| byte == b'/');
    path.len() - slash.map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests;
