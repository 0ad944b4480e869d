//! Attributes of one object on disk: read as an [`Entry`], written from one.
//!
//! [`read`] serves whatever walks a layer directory (`pack`, `stack`, `flatten`), [`Writer`]
//! whatever fills one (`apply`, `copy`, `flatten`). What the process may not own, make or set is
//! recorded in extended attributes of our own and read back as if it had been done, so that a
//! layer written with one id gives the same tar as one written by root. Nothing here walks, and
//! nothing follows a symlink in a name's last component. Errors are plain `io::Error`s: only the
//! caller knows the path that a person would want to read.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    chmodat, chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, lgetxattr,
    llistxattr, lsetxattr, major, makedev, minor, mknodat, openat, readlinkat, statat, utimensat,
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::entry::{Entry, Kind, Xattr, XATTR_OPAQUE, XATTR_OVERRIDE, XATTR_WHITEOUT};

/// Where `security.capability` waits while the process may not set the real one.
const KEPT_CAPABILITY: &[u8] = b"user.img.xattr.security.capability";
/// File capabilities: the one attribute of the `security` family that belongs to an image.
const CAPABILITY: &[u8] = b"security.capability";
/// Linux caps a name list and a value at 64 KiB each (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 1 << 16;
/// Most files have no attributes and few have long ones: the first try is on the stack.
const XATTR_USUAL: usize = 512;

/// What an object of a layer directory means to overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: an entry like any other.
    Plain,
    /// A whiteout (character device 0:0, or its stand-in): the name is deleted from the layers below.
    Whiteout,
    /// An opaque directory: it hides every child that the layers below have.
    Opaque,
}

/// One object: as the image has it (`entry`), and what identifies it on this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attrs {
    /// Its attributes; `path` is empty, for the caller to fill in.
    pub entry: Entry,
    /// Overlay's mark on it.
    pub mark: Mark,
    /// Device that holds it.
    pub dev: u64,
    /// Inode: equal `dev` and `ino` are hard links of one file.
    pub ino: u64,
    /// Number of its links.
    pub nlink: u64,
    /// Change time: seconds and nanoseconds.
    pub ctime: (i64, u32),
}

/// Tells whether an extended attribute is part of an image.
///
/// Files' capabilities, `user.*` and POSIX ACLs are; overlay's and our own bookkeeping, and the
/// labels that a host's security modules write (`security.selinux`), are not. An archive that
/// brings one of the latter must not have it set: `user.overlay.redirect` would let a layer
/// reach elsewhere.
pub fn belongs_to_image(name: &[u8]) -> bool {
    if name.starts_with(b"user.") {
        let private = name.starts_with(b"user.overlay.") || name.starts_with(b"user.img.");
        return !private && name.len() > b"user.".len();
    }
    name == CAPABILITY || name.starts_with(b"system.posix_acl_")
}

/// Reads the object `name` of the folder `parent`; a symlink is read itself.
///
/// Returns:
///     None for a socket, which no layer can hold.
pub fn read(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Attrs>> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let Some(kind) = kind_of(&stat, || {
        Ok(readlinkat(parent, name, Vec::new())?.into_bytes())
    })?
    else {
        return Ok(None);
    };
    let xattrs = match kind {
        // `user.*` exists on files and folders only; sparing the call spares a look-up.
        Kind::File | Kind::Directory => Target::named(parent, name)?.all()?,
        _ => Vec::new(),
    };
    Ok(Some(assemble(&stat, kind, xattrs)))
}

/// Reads an object that is open already (not by `O_PATH`): a regular file or a folder.
///
/// Returns:
///     None for a socket, which no layer can hold.
pub fn read_open(file: BorrowedFd<'_>) -> io::Result<Option<Attrs>> {
    read_known(file, &fstat(file)?)
}

/// The same, for an object whose `stat` is at hand.
pub fn read_known(file: BorrowedFd<'_>, stat: &Stat) -> io::Result<Option<Attrs>> {
    let Some(kind) = kind_of(stat, || Err(Errno::INVAL.into()))? else {
        return Ok(None);
    };
    let xattrs = Target::Open(file).all()?;
    Ok(Some(assemble(stat, kind, xattrs)))
}

/// The type of an object; `link` reads a symlink's target.
fn kind_of(stat: &Stat, link: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Option<Kind>> {
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let kind = device_or_plain(file_type, major(stat.st_rdev), minor(stat.st_rdev));
    match kind {
        Some(Kind::Symlink(_)) => Ok(Some(Kind::Symlink(link()?))),
        kind => Ok(kind),
    }
}

/// The kind that a file type means; a symlink's target is left empty.
fn device_or_plain(file_type: FileType, major: u32, minor: u32) -> Option<Kind> {
    match file_type {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Directory),
        FileType::Symlink => Some(Kind::Symlink(Vec::new())),
        FileType::CharacterDevice => Some(Kind::CharDevice { major, minor }),
        FileType::BlockDevice => Some(Kind::BlockDevice { major, minor }),
        FileType::Fifo => Some(Kind::Fifo),
        _ => None,
    }
}

/// Puts together what `stat` and the extended attributes say.
#[allow(clippy::useless_conversion)] // st_nlink is 32 bits wide on some architectures
fn assemble(stat: &Stat, kind: Kind, raw: Vec<Xattr>) -> Attrs {
    let is_file = kind == Kind::File;
    let mark = match kind {
        Kind::CharDevice { major: 0, minor: 0 } => Mark::Whiteout,
        _ => Mark::Plain,
    };
    let mut attrs = Attrs {
        entry: Entry {
            path: Vec::new(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stat.st_mtime,
            mtime_nanos: stat.st_mtime_nsec as u32,
            size: if is_file { stat.st_size as u64 } else { 0 },
            xattrs: Vec::new(),
        },
        mark,
        dev: stat.st_dev,
        ino: stat.st_ino,
        nlink: u64::from(stat.st_nlink),
        ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
    };
    for (name, value) in raw {
        attrs.take_xattr(name, value);
    }
    attrs.entry.xattrs.sort();
    attrs
}

impl Attrs {
    /// Gives one attribute found on disk its meaning.
    fn take_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) {
        if name == XATTR_OVERRIDE.as_bytes() {
            if let Some(wanted) = Override::parse(&value) {
                wanted.put_on(&mut self.entry);
            }
        } else if name == XATTR_OPAQUE.as_bytes() {
            if value == b"y" && self.entry.kind == Kind::Directory {
                self.mark = Mark::Opaque;
            }
        } else if name == XATTR_WHITEOUT.as_bytes() {
            if self.entry.kind == Kind::File && self.entry.size == 0 {
                self.entry.kind = Kind::CharDevice { major: 0, minor: 0 };
                self.mark = Mark::Whiteout;
            }
        } else if name == KEPT_CAPABILITY {
            self.entry.xattrs.push((CAPABILITY.to_vec(), value));
        } else if belongs_to_image(&name) {
            self.entry.xattrs.push((name, value));
        }
    }
}

/// The value of [`XATTR_OVERRIDE`].
#[derive(Debug, PartialEq, Eq)]
struct Override {
    uid: u32,
    gid: u32,
    /// With the type bits.
    mode: u32,
    major: u32,
    minor: u32,
}

impl Override {
    fn of(entry: &Entry) -> Self {
        let (file_type, major, minor) = match entry.kind {
            Kind::CharDevice { major, minor } => (FileType::CharacterDevice, major, minor),
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, major, minor),
            Kind::Fifo => (FileType::Fifo, 0, 0),
            Kind::Directory => (FileType::Directory, 0, 0),
            Kind::Symlink(_) => (FileType::Symlink, 0, 0),
            Kind::File | Kind::Hardlink(_) => (FileType::RegularFile, 0, 0),
        };
        Self {
            uid: entry.uid,
            gid: entry.gid,
            mode: file_type.as_raw_mode() | (entry.mode & 0o7777),
            major,
            minor,
        }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut fields = text.split(':');
        let mut next = |radix| u32::from_str_radix(fields.next()?, radix).ok();
        let parsed = Self {
            uid: next(10)?,
            gid: next(10)?,
            mode: next(8)?,
            major: next(10)?,
            minor: next(10)?,
        };
        fields.next().is_none().then_some(parsed)
    }

    fn format(&self) -> String {
        let Self {
            uid,
            gid,
            mode,
            major,
            minor,
        } = self;
        format!("{uid}:{gid}:{mode:o}:{major}:{minor}")
    }

    /// Replaces what `stat` said.
    ///
    /// Permission bits are taken only where the override changes the type: one id may set any
    /// mode on what it owns, so the inode's own bits are right, and newer where a step ran
    /// `chmod` after this was written.
    fn put_on(&self, entry: &mut Entry) {
        entry.uid = self.uid;
        entry.gid = self.gid;
        let wanted = device_or_plain(FileType::from_raw_mode(self.mode), self.major, self.minor);
        match wanted {
            Some(kind @ (Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo))
                if entry.kind == Kind::File && entry.size == 0 =>
            {
                entry.kind = kind;
                entry.mode = self.mode & 0o7777;
            }
            _ => {}
        }
    }
}

/// Writes attributes of objects that this process has just made. One serves all threads.
///
/// A chown is spared where the new object has the right owner from birth. That holds only while
/// its folder is not set-group-id; so a tree's folders are given their modes after everything in
/// them was made (as their times must be anyway), and its root passes [`Writer::begin`].
#[derive(Debug)]
pub struct Writer {
    uid: u32,
    gid: u32,
    umask: u32,
    owners: Owners,
    dropped: AtomicU64,
}

/// What a [`Writer`] does with owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Sets them, or records them where they cannot be set.
    Keep,
    /// Leaves everything to the caller's own id and records nothing: a tree for people.
    Drop,
}

impl Writer {
    /// Makes one for the process's present ids and umask.
    pub fn new(owners: Owners) -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: read_umask().unwrap_or(0o777),
            owners,
            dropped: AtomicU64::new(0),
        }
    }

    /// The ids that new objects have from birth.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// How many attributes could neither be set nor recorded (a symlink's owner with one id; a
    /// file system without extended attributes).
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Readies a tree's root folder: not set-group-id, no default ACL, owned by the process.
    pub fn begin(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        fchmod(root, Mode::from_raw_mode(0o700))?;
        let stat = fstat(root)?;
        if stat.st_gid != self.gid {
            let gid = Gid::from_raw(self.gid);
            ignore_refusal(fchown(root, None, Some(gid)))?;
        }
        Ok(())
    }

    /// The mode to create a regular file with, so that [`Writer::file`] rarely needs a chmod.
    pub fn birth_mode(entry: &Entry) -> Mode {
        if entry.xattrs.is_empty() {
            Mode::from_raw_mode(entry.mode & 0o777)
        } else {
            Mode::from_raw_mode(0o600)
        }
    }

    /// Finishes a regular file that was made with [`Writer::birth_mode`] and filled.
    ///
    /// Its content must be complete: a later write would drop set-id bits and capabilities.
    pub fn file(&self, file: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
        let born = Self::birth_mode(entry).as_raw_mode() & !self.umask;
        let changed = self.owner_and_xattrs(&Target::Open(file), entry)?;
        if changed || born != entry.mode & 0o7777 {
            fchmod(file, Mode::from_raw_mode(entry.mode & 0o7777))?;
        }
        Ok(futimens(file, &times(entry))?)
    }

    /// Finishes an object of any kind, by name: owner, attributes, mode, times, in this order.
    pub fn named(&self, parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> io::Result<()> {
        self.owner_and_xattrs(&Target::lazy(parent, name), entry)?;
        if !matches!(entry.kind, Kind::Symlink(_)) {
            let mode = Mode::from_raw_mode(entry.mode & 0o7777);
            chmodat(parent, name, mode, AtFlags::empty())?;
        }
        Ok(utimensat(
            parent,
            name,
            &times(entry),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Finishes an open folder (the root of a tree, which has no name of its own).
    pub fn folder(&self, folder: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
        self.owner_and_xattrs(&Target::Open(folder), entry)?;
        fchmod(folder, Mode::from_raw_mode(entry.mode & 0o7777))?;
        Ok(futimens(folder, &times(entry))?)
    }

    /// Makes and finishes a device or a named pipe; without the privilege, an empty regular file
    /// that is recorded as one. With [`Owners::Drop`] such a device is left out.
    ///
    /// A device 0:0 out of an archive is never made as such: overlay would see a whiteout.
    pub fn make_node(&self, parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let (file_type, dev) = match entry.kind {
            Kind::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
            Kind::Fifo => (FileType::Fifo, 0),
            _ => return Err(Errno::INVAL.into()),
        };
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let made = if dev == 0 && file_type != FileType::Fifo {
            Err(Errno::PERM)
        } else {
            mknodat(parent, name, file_type, mode, dev)
        };
        match made {
            Ok(()) => self.named(parent, name, entry),
            Err(Errno::PERM | Errno::ACCESS) if self.owners == Owners::Drop => {
                self.drop_one();
                Ok(())
            }
            Err(Errno::PERM) => self.make_stand_in(parent, name, entry),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the empty regular file that stands for a device.
    fn make_stand_in(&self, parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let file = create(parent, name, Mode::from_raw_mode(0o600))?;
        let target = Target::Open(file.as_fd());
        self.record_override(&target, entry)?;
        fchmod(&file, Mode::from_raw_mode(entry.mode & 0o777))?;
        Ok(futimens(&file, &times(entry))?)
    }

    /// Sets owner and attributes; tells whether the mode has to be set after it.
    fn owner_and_xattrs(&self, target: &Target<'_>, entry: &Entry) -> io::Result<bool> {
        let chowned = self.owner(target, entry)?;
        for (name, value) in &entry.xattrs {
            if belongs_to_image(name) {
                self.xattr(target, name, value)?;
            }
        }
        Ok(chowned || !entry.xattrs.is_empty())
    }

    /// Sets or records the owner; false where it is right already.
    fn owner(&self, target: &Target<'_>, entry: &Entry) -> io::Result<bool> {
        if self.owners == Owners::Drop || (entry.uid, entry.gid) == (self.uid, self.gid) {
            return Ok(false);
        }
        match target.chown(entry.uid, entry.gid) {
            Ok(()) => {}
            // EPERM: an ordinary user; EINVAL: an id that the user namespace does not map.
            Err(Errno::PERM | Errno::INVAL) => match entry.kind {
                Kind::File | Kind::Directory => self.record_override(target, entry)?,
                _ => self.drop_one(),
            },
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    fn record_override(&self, target: &Target<'_>, entry: &Entry) -> io::Result<()> {
        let value = Override::of(entry).format();
        let name = XATTR_OVERRIDE.as_bytes();
        let mut done = target.set(name, value.as_bytes());
        if done == Err(Errno::ACCESS) {
            // An ordinary user may set user.* only on what it may write.
            target.chmod(0o700)?;
            done = target.set(name, value.as_bytes());
        }
        self.tolerate(done)
    }

    /// Sets one attribute; a refused capability is kept under a name of our own.
    fn xattr(&self, target: &Target<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
        let done = match target.set(name, value) {
            Err(Errno::PERM) if name == CAPABILITY && self.owners == Owners::Keep => {
                target.set(KEPT_CAPABILITY, value)
            }
            Err(Errno::ACCESS) => {
                target.chmod(0o700)?;
                target.set(name, value)
            }
            other => other,
        };
        self.tolerate(done)
    }

    /// Counts what the file system or the kernel will not hold; passes on what is a failure.
    fn tolerate(&self, done: rustix::io::Result<()>) -> io::Result<()> {
        match done {
            Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) => {
                self.drop_one();
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Creates a regular file that must not exist yet, for writing.
pub fn create(parent: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, mode)?)
}

/// Makes a whiteout. Linux lets any user make this one device (since 5.8), but overlay lets nobody:
/// there, and on older kernels, a marked file stands for it.
pub fn make_whiteout(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let mode = Mode::empty();
    match mknodat(parent, name, FileType::CharacterDevice, mode, 0) {
        Err(Errno::PERM) => stand_in_whiteout(parent, name),
        done => Ok(done?),
    }
}

/// Makes a whiteout of overlay's second form.
fn stand_in_whiteout(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let file = create(parent, name, Mode::from_raw_mode(0o600))?;
    let (mark, value) = (XATTR_WHITEOUT, XattrFlags::empty());
    fsetxattr(&file, mark, b"y", value)?;
    // Without this, overlay does not look for such files in the folder.
    let path = Target::path(parent, OsStr::new("."))?;
    match lsetxattr(path, XATTR_OPAQUE, b"x", XattrFlags::CREATE) {
        Err(Errno::EXIST) => Ok(()),
        done => Ok(done?),
    }
}

/// Tells whether what `stat` was read from, the object `name` of `parent`, is a whiteout.
pub fn is_whiteout_at(parent: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<bool> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => Ok(stat.st_rdev == 0),
        FileType::RegularFile if stat.st_size == 0 => {
            let mut value = [0_u8; 1];
            match lgetxattr(Target::path(parent, name)?, XATTR_WHITEOUT, &mut value) {
                Ok(_) | Err(Errno::RANGE) => Ok(true),
                Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
        _ => Ok(false),
    }
}

/// Marks an open folder opaque.
pub fn make_opaque(folder: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fsetxattr(folder, XATTR_OPAQUE, b"y", XattrFlags::empty())?)
}

/// Access and modification time of an entry, both `mtime`: reading must leave no trace in a layer.
pub fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime,
        tv_nsec: i64::from(entry.mtime_nanos.min(999_999_999)) as _,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The process's umask, without changing it for the other threads.
fn read_umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

fn ignore_refusal(done: rustix::io::Result<()>) -> io::Result<()> {
    match done {
        Err(Errno::PERM | Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// What an attribute call works on. The `*at` forms of the xattr calls are younger than the
/// kernels we serve, so a name in a folder is reached through `/proc/self/fd`.
enum Target<'a> {
    Open(BorrowedFd<'a>),
    Named {
        parent: BorrowedFd<'a>,
        name: &'a OsStr,
    },
}

impl<'a> Target<'a> {
    fn named(parent: BorrowedFd<'a>, name: &'a OsStr) -> io::Result<Self> {
        if name.as_bytes().contains(&0) {
            return Err(Errno::INVAL.into());
        }
        Ok(Self::Named { parent, name })
    }

    fn lazy(parent: BorrowedFd<'a>, name: &'a OsStr) -> Self {
        Self::Named { parent, name }
    }

    /// The path by which the xattr calls reach a named object.
    fn path(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<CString> {
        let mut path = Vec::with_capacity(name.len() + 32);
        if parent.as_raw_fd() >= 0 {
            path.extend_from_slice(format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes());
        }
        path.extend_from_slice(name.as_bytes());
        CString::new(path).map_err(|_| Errno::INVAL)
    }

    fn chown(&self, uid: u32, gid: u32) -> rustix::io::Result<()> {
        // -1 means "leave it" to the kernel and is no id that anything can own.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self {
            Self::Open(fd) => fchown(fd, uid, gid),
            Self::Named { parent, name } => {
                chownat(parent, *name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    fn chmod(&self, mode: u32) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            Self::Named { parent, name } => chmodat(parent, *name, mode, AtFlags::empty()),
        }
    }

    fn set(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        let flags = XattrFlags::empty();
        match self {
            Self::Open(fd) => fsetxattr(fd, name, value, flags),
            Self::Named { parent, name: file } => {
                lsetxattr(Self::path(*parent, file)?, name, value, flags)
            }
        }
    }

    /// Every attribute, in the file system's order. None where it has no attributes at all.
    fn all(&self) -> io::Result<Vec<Xattr>> {
        let path = match self {
            Self::Open(_) => CString::default(),
            Self::Named { parent, name } => Self::path(*parent, name)?,
        };
        let list = self.grow(|target, buffer| match target {
            Self::Open(fd) => flistxattr(fd, buffer),
            Self::Named { .. } => llistxattr(&path, buffer),
        });
        let list = match list {
            Ok(list) => list,
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut found = Vec::new();
        for name in list.split(|byte| *byte == 0).filter(|name| wanted(name)) {
            let value = self.grow(|target, buffer| match target {
                Self::Open(fd) => fgetxattr(fd, name, buffer),
                Self::Named { .. } => lgetxattr(&path, name, buffer),
            });
            match value {
                Ok(value) => found.push((name.to_vec(), value)),
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// Calls with the usual buffer, then with the largest one that can be needed.
    fn grow(
        &self,
        call: impl Fn(&Self, &mut [u8]) -> rustix::io::Result<usize>,
    ) -> rustix::io::Result<Vec<u8>> {
        let mut usual = [0_u8; XATTR_USUAL];
        match call(self, &mut usual) {
            Ok(length) => Ok(usual[..length].to_vec()),
            Err(Errno::RANGE) => {
                let mut large = vec![0_u8; XATTR_MAX];
                let length = call(self, &mut large)?;
                large.truncate(length);
                Ok(large)
            }
            Err(error) => Err(error),
        }
    }
}

/// The attributes whose values are worth a system call.
fn wanted(name: &[u8]) -> bool {
    belongs_to_image(name)
        || name == XATTR_OVERRIDE.as_bytes()
        || name == XATTR_OPAQUE.as_bytes()
        || name == XATTR_WHITEOUT.as_bytes()
        || name == KEPT_CAPABILITY
}

#[cfg(test)]
mod tests;
