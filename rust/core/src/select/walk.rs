//! [`Walk`]: one folder of a source tree walked on several threads, by the rules of a COPY.
//!
//! `select` starts one for each folder that a pattern names. Ignored folders that nothing brings
//! back are never entered, and what is ignored is not even looked at. Each thread fills a part of
//! the inventory; no file is opened here but a stage's, for its owner.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::attrs;
use crate::cancel::Cancel;
use crate::entry::{Entry, Kind};
use crate::error::{IoContext, Result};
use crate::explore::{explore_with, thread_count, Found};
use crate::ignore::{Ignore, Matched};
use crate::inventory::{self, Folder, Look, Own, Part};
use crate::memo::Stamp;
use crate::source::SourceRoot;

/// The rules of a walk: the ignore file, `--exclude`, and what `--parents` takes.
const IGNORE: usize = 0;
const INCLUDE: usize = 2;
/// Bytes of a folder's listing that the kernel gives at once.
const LISTING: usize = 16 << 10;

/// How a folder is walked.
pub struct Walk<'a> {
    /// The tree that it lies in.
    pub root: &'a SourceRoot,
    /// Owners count.
    pub owners: bool,
    /// See [`IGNORE`] and [`INCLUDE`]; `--exclude` is between them.
    pub rules: [Option<&'a Ignore>; 3],
    /// Length of the source's path and its slash: all rules but the ignore file see what follows.
    pub prefix: usize,
    /// What is left out is remembered.
    pub hidden: bool,
    /// Set where something belongs to somebody else than this namespace's root.
    pub foreign: AtomicBool,
    /// Set where a file has several names.
    pub linked: AtomicBool,
}

/// What a walk found.
pub struct Walked {
    /// The folders, the first one first.
    pub folders: Vec<Folder>,
    /// What is in them.
    pub parts: Vec<Part>,
    /// Of each folder the paths that were left out, where that was asked for.
    pub left_out: Vec<Vec<Vec<u8>>>,
}

/// A folder to visit.
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

/// What one thread fills.
struct Mine {
    number: usize,
    part: Part,
}

/// A folder that is being visited.
struct Visit<'a, 'f> {
    fd: &'a OwnedFd,
    job: &'a Job,
    part: &'a mut Part,
    found: &'a mut Found<'f, Job>,
    left_out: Vec<Vec<u8>>,
}

impl Walk<'_> {
    /// Walks the folder `source`.
    pub fn run(&self, source: &[u8], cancel: &Cancel) -> Result<Walked> {
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
        let mine = |number| Mine {
            number,
            part: Part::default(),
        };
        let (visited, parts) =
            explore_with(thread_count(), cancel, first, mine, |job, found, mine| {
                self.visit(&job, found, mine)
            })?;
        let parts = parts.into_iter().map(|mine| mine.part).collect();
        let (mut folders, mut left_out) = (Vec::with_capacity(visited.len()), Vec::new());
        for (folder, hidden) in visited {
            folders.push(folder);
            if self.hidden {
                left_out.push(hidden);
            }
        }
        Ok(Walked {
            folders,
            parts,
            left_out,
        })
    }

    fn note_owner(&self, stat: &Stat) {
        if is_foreign(stat) {
            self.foreign.store(true, Ordering::Relaxed);
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

    fn visit(
        &self,
        job: &Job,
        found: &mut Found<'_, Job>,
        mine: &mut Mine,
    ) -> Result<(Folder, Vec<Vec<u8>>)> {
        let on_disk = || self.root.on_disk(&job.path);
        let fd = self
            .root
            .open_beneath(&job.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let stat = rustix::fs::fstat(&fd).at("stat", on_disk())?;
        self.note_owner(&stat);
        let attrs = attrs::read_known(fd.as_fd(), &stat).at("getxattr", on_disk())?;
        let mut entry = attrs.map(|attrs| attrs.entry);
        let own = Own {
            xattrs: take_xattrs(&mut entry),
            look: self.look(&stat, entry.as_ref().filter(|_| self.owners)),
            seconds: stat.st_mtime,
            is_opaque: false,
        };
        let start = mine.part.len();
        let mut visit = Visit {
            fd: &fd,
            job,
            part: &mut mine.part,
            found,
            left_out: Vec::new(),
        };
        let mut buffer = [MaybeUninit::uninit(); LISTING];
        let mut entries = RawDir::new(&fd, &mut buffer);
        let mut path = job.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        let stem = path.len();
        while let Some(entry) = entries.next() {
            let entry = entry.at("read", on_disk())?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                path.truncate(stem);
                path.extend_from_slice(name);
                self.add(&mut visit, &path, stem, entry.file_type())?;
            }
        }
        let left_out = visit.left_out;
        Ok((mine.part.close(mine.number, start, own), left_out))
    }

    /// Adds what `path` names, whose last name begins at `stem`; `kind` is what the listing says.
    fn add(
        &self,
        visit: &mut Visit<'_, '_>,
        path: &[u8],
        stem: usize,
        kind: FileType,
    ) -> Result<()> {
        let name = OsStr::from_bytes(&path[stem..]);
        let mut below: [Matched; 3] = Default::default();
        // What is out is not even looked at, where the folder's listing tells its type.
        let listed = match kind {
            FileType::Unknown => None,
            kind => Some((kind, self.judge(path, visit.job, kind.is_dir(), &mut below))),
        };
        match listed {
            Some((_, Verdict::Out)) => {
                self.leave_out(path, visit);
                return Ok(());
            }
            // Its visit looks at it.
            Some((FileType::Directory, verdict)) => {
                return self.enter(visit, path, stem, &verdict, below);
            }
            _ => {}
        }
        let stat = match rustix::fs::statat(visit.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went away since the folder was read.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno).at("stat", self.root.on_disk(path)),
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let verdict = match listed {
            Some((kind, verdict)) if kind == file_type => verdict,
            _ => self.judge(path, visit.job, file_type.is_dir(), &mut below),
        };
        if matches!(verdict, Verdict::Out) {
            self.leave_out(path, visit);
            return Ok(());
        }
        match file_type {
            FileType::Socket => Ok(()),
            FileType::Directory => self.enter(visit, path, stem, &verdict, below),
            _ => self.take(visit, path, stem, &stat),
        }
    }

    /// Adds an object that is no folder.
    fn take(&self, visit: &mut Visit<'_, '_>, path: &[u8], stem: usize, stat: &Stat) -> Result<()> {
        let name = OsStr::from_bytes(&path[stem..]);
        self.note_owner(stat);
        let (mut target, mut entry) = (Vec::new(), None);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                target = rustix::fs::readlinkat(visit.fd, name, Vec::new())
                    .at("readlink", self.root.on_disk(path))?
                    .into_bytes();
            }
            FileType::RegularFile if self.owners => {
                let attrs =
                    attrs::read(visit.fd.as_fd(), name).at("stat", self.root.on_disk(path))?;
                entry = attrs.map(|attrs| attrs.entry);
            }
            _ => {}
        }
        let linked = stat.st_nlink > 1;
        if linked {
            self.linked.store(true, Ordering::Relaxed);
        }
        let found = inventory::Found {
            name: name.as_bytes(),
            target: target.into(),
            look: self.look(stat, entry.as_ref()),
            stamp: Stamp::of(stat),
            seconds: stat.st_mtime,
            flags: if linked { inventory::LINKED } else { 0 },
            xattrs: Vec::new(),
        };
        visit.part.add(found).at("read", self.root.on_disk(path))
    }

    /// Adds a folder, which is visited later.
    fn enter(
        &self,
        visit: &mut Visit<'_, '_>,
        path: &[u8],
        stem: usize,
        verdict: &Verdict,
        known: [Matched; 3],
    ) -> Result<()> {
        let flags = match verdict {
            Verdict::Hidden => inventory::HIDDEN,
            _ => 0,
        };
        let number = visit.found.folder(Job {
            path: path.to_vec(),
            known,
        });
        let added = visit.part.add_folder(&path[stem..], number, flags);
        added.at("read", self.root.on_disk(path))
    }

    fn leave_out(&self, path: &[u8], visit: &mut Visit<'_, '_>) {
        if self.hidden {
            visit.left_out.push(path.to_vec());
        }
    }

    fn look(&self, stat: &Stat, entry: Option<&Entry>) -> Look {
        look(stat, self.owners, entry)
    }
}

/// What an object looks like in the image: `entry` says what it means there, where that is not
/// what `stat` says.
pub fn look(stat: &Stat, owners: bool, entry: Option<&Entry>) -> Look {
    let mut look = Look::of(stat);
    if !owners {
        (look.uid, look.gid) = (0, 0);
    }
    let Some(entry) = entry else {
        return look;
    };
    (look.uid, look.gid) = (entry.uid, entry.gid);
    let file_type = match entry.kind {
        Kind::CharDevice { major, minor } => {
            look.device = (major, minor);
            FileType::CharacterDevice
        }
        Kind::BlockDevice { major, minor } => {
            look.device = (major, minor);
            FileType::BlockDevice
        }
        Kind::Fifo => FileType::Fifo,
        _ => return look,
    };
    look.mode = file_type.as_raw_mode() | entry.mode;
    look
}

fn take_xattrs(entry: &mut Option<Entry>) -> Vec<crate::entry::Xattr> {
    let entry = entry.as_mut();
    entry.map_or_else(Vec::new, |entry| std::mem::take(&mut entry.xattrs))
}

/// Tells a file that is somebody else's than this namespace's root.
pub fn is_foreign(stat: &Stat) -> bool {
    stat.st_uid != 0 || stat.st_gid != 0
}
