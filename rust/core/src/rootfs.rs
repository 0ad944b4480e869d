//! The container's file system: mounts, devices, masked and read-only paths, the change of root.
//!
//! Runs in the container's process 1, in its new mount namespace, before anything of the image
//! does. The image is hostile: every path inside is opened with `RESOLVE_IN_ROOT`, and mounts are
//! moved onto that descriptor, so that no symlink of the image leads a mount elsewhere.
//! What it has to make as a mount point is listed as [`Made`], for `take_back` to remove.
//! Source: runtime-spec v1.1, config.md "Mounts", config-linux.md "Default Devices"; openat2(2).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, CWD};
use rustix::io::Errno;
use rustix::mount::{self as sys, MoveMountFlags, OpenTreeFlags};
use serde::{Deserialize, Serialize};

use crate::kernel::{
    self, ATTR_NOATIME, ATTR_NODEV, ATTR_NODIRATIME, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY,
    ATTR_STRICTATIME,
};
use crate::spec::{Mount, Spec};
use crate::{Error, Result};

/// A file or folder that was made only to be mounted on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Made {
    /// Its folder, as a path inside the root.
    parent: Vec<u8>,
    name: Vec<u8>,
    folder: bool,
    /// Which file it is, lest another one is removed in its place.
    inode: u64,
    /// The folder's modification time before and after.
    before: (i64, i64),
    after: (i64, i64),
}

/// How many symlinks one mount point may lead through, as many as the kernel allows a path.
const MOST_LINKS: usize = 40;

fn failed(step: String, source: impl Into<io::Error>, hint: &str) -> Error {
    Error::Sandbox {
        step,
        source: source.into(),
        hint: hint.to_owned(),
    }
}

fn hint_for(error: Errno) -> &'static str {
    match error {
        Errno::NOSYS => {
            "RUN needs Linux 5.12 or newer, and a container that lets its mount calls through"
        }
        Errno::PERM => "this container or kernel does not let this process mount",
        Errno::ROFS => {
            "the mount point is missing and lies below a read-only mount: make it there, or add rw to that"
        }
        _ => "",
    }
}

/// Builds the file system of `spec` and makes it this process's root.
pub fn enter(spec: &Spec) -> Result<Vec<Made>> {
    let mut tree = Tree::open(spec)?;
    for mount in &spec.mounts {
        tree.mount(mount)?;
    }
    tree.hide(spec)?;
    let path = spec.root.path.text();
    if spec.root.readonly {
        kernel::mount_setattr(tree.root.as_fd(), ATTR_RDONLY, false)
            .map_err(|error| failed(format!("make {path} read-only"), error, ""))?;
    }
    change_root(tree.root.as_fd()).map_err(|error| {
        let hint = "a root on an initial ramdisk cannot be changed: start from a disk or a tmpfs";
        let hint = if error == Errno::INVAL { hint } else { "" };
        failed(format!("make {path} the root (pivot_root)"), error, hint)
    })?;
    Ok(tree.made)
}

/// The old root is stacked on the new one, then detached with everything in it.
fn change_root(root: BorrowedFd) -> rustix::io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    sys::unmount(".", sys::UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// A root in the making.
struct Tree {
    root: OwnedFd,
    device: u64,
    made: Vec<Made>,
    /// An empty read-only folder, once one was needed: others are further sights of it.
    empty: Option<PathBuf>,
}

impl Tree {
    /// Binds the root onto itself: `pivot_root` wants a mount, and this one is the container's own.
    fn open(spec: &Spec) -> Result<Tree> {
        let path = spec.root.path.path();
        let step = || format!("bind the root {}", path.display());
        let opened = (|| {
            let root = clone_tree(CWD, path, true)?;
            let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            sys::move_mount(root.as_fd(), "", CWD, path, onto)?;
            let device = fs::fstat(&root)?.st_dev;
            Ok((root, device))
        })();
        let (root, device) =
            opened.map_err(|error: Errno| failed(step(), error, hint_for(error)))?;
        Ok(Tree {
            root,
            device,
            made: Vec::new(),
            empty: None,
        })
    }

    fn mount(&mut self, mount: &Mount) -> Result<()> {
        let destination = mount.destination.path();
        let step = || format!("mount {} at {}", mount.kind, destination.display());
        let options = Options::parse(mount)?;
        let (tree, options) = if mount.is_bind() {
            let source = mount.source.path();
            let tree = clone_tree(CWD, source, options.recursive).map_err(|error| {
                failed(format!("bind {}", source.display()), error, hint_for(error))
            })?;
            (tree, options)
        } else {
            filesystem(mount, options).map_err(|refusal| {
                let said = if refusal.1.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", refusal.1)
                };
                failed(step() + &said, refusal.0, hint_for(refusal.0))
            })?
        };
        let folder = is_folder(tree.as_fd()).map_err(|error| failed(step(), error, ""))?;
        let target = self
            .target(destination, folder)
            .map_err(|error| failed(step(), error, hint_for(error)))?;
        let placed = options
            .apply(tree.as_fd())
            .and_then(|()| place(tree.as_fd(), target.as_fd()));
        placed.map_err(|error| failed(step(), error, hint_for(error)))?;
        if mount.kind == "tmpfs" && same_path(destination, Path::new("/dev")) {
            devices(tree.as_fd())
                .map_err(|error| failed("make the devices of /dev".into(), error, ""))?;
        }
        Ok(())
    }

    /// Masks and write-protects the paths that the specification lists; missing ones are skipped.
    fn hide(&mut self, spec: &Spec) -> Result<()> {
        for path in &spec.linux.readonly_paths {
            self.protect(path.path()).map_err(|error| {
                failed(
                    format!("make {} read-only", path.text()),
                    error,
                    hint_for(error),
                )
            })?;
        }
        for path in &spec.linux.masked_paths {
            self.mask(path.path())
                .map_err(|error| failed(format!("mask {}", path.text()), error, hint_for(error)))?;
        }
        Ok(())
    }

    fn protect(&self, path: &Path) -> rustix::io::Result<()> {
        let Some(target) = self.existing(path)? else {
            return Ok(());
        };
        let tree = clone_tree(target.as_fd(), Path::new(""), true)?;
        set_attributes(tree.as_fd(), ATTR_RDONLY, true)?;
        place(tree.as_fd(), target.as_fd())
    }

    fn mask(&mut self, path: &Path) -> rustix::io::Result<()> {
        let Some(target) = self.existing(path)? else {
            return Ok(());
        };
        if !is_folder(target.as_fd())? {
            let null = clone_tree(CWD, Path::new("/dev/null"), false)?;
            return place(null.as_fd(), target.as_fd());
        }
        let known = match &self.empty {
            Some(empty) => self.existing(empty)?,
            None => None,
        };
        let tree = match known {
            Some(empty) => clone_tree(empty.as_fd(), Path::new(""), false)?,
            None => {
                new_filesystem("tmpfs", &[("mode", Some("755"))]).map_err(|refusal| refusal.0)?
            }
        };
        set_attributes(
            tree.as_fd(),
            ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC,
            false,
        )?;
        place(tree.as_fd(), target.as_fd())?;
        self.empty = Some(path.to_path_buf());
        Ok(())
    }

    fn existing(&self, path: &Path) -> rustix::io::Result<Option<OwnedFd>> {
        match open_inside(self.root.as_fd(), path, OFlags::PATH) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a mount point, which is made where it is missing.
    fn target(&mut self, path: &Path, folder: bool) -> rustix::io::Result<OwnedFd> {
        if let Some(found) = self.existing(path)? {
            return Ok(found);
        }
        self.make(path, folder, MOST_LINKS)?;
        open_inside(self.root.as_fd(), path, OFlags::PATH)
    }

    /// Makes `path` and its missing parents; where a symlink leads nowhere, what it leads to.
    fn make(&mut self, path: &Path, folder: bool, links: usize) -> rustix::io::Result<()> {
        let (Some(parent), Some(Component::Normal(name))) =
            (path.parent(), path.components().next_back())
        else {
            return Err(Errno::INVAL);
        };
        if self.existing(parent)?.is_none() {
            self.make(parent, true, links)?;
        }
        let above = open_inside(
            self.root.as_fd(),
            parent,
            OFlags::RDONLY | OFlags::DIRECTORY,
        )?;
        match fs::readlinkat(&above, name, Vec::new()) {
            Ok(target) => {
                let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
                let target = parent.join(OsStr::from_bytes(target.as_bytes()));
                match self.existing(&target)? {
                    Some(_) => Ok(()),
                    None => self.make(&target, folder, links),
                }
            }
            Err(Errno::NOENT) => self.make_here(above.as_fd(), parent, name, folder),
            Err(Errno::INVAL) => Ok(()), // it exists by now
            Err(error) => Err(error),
        }
    }

    fn make_here(
        &mut self,
        above: BorrowedFd,
        parent: &Path,
        name: &OsStr,
        folder: bool,
    ) -> rustix::io::Result<()> {
        let before = fs::fstat(above)?;
        if folder {
            fs::mkdirat(above, name, Mode::from_raw_mode(0o755))?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::openat(
                above,
                name,
                flags | OFlags::WRONLY,
                Mode::from_raw_mode(0o644),
            )?;
        }
        // What lies on a file system of the container's own, such as /dev, goes with it.
        if before.st_dev == self.device {
            let after = fs::fstat(above)?;
            self.made.push(Made {
                parent: parent.as_os_str().as_bytes().to_vec(),
                name: name.as_bytes().to_vec(),
                folder,
                inode: fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino,
                before: (before.st_mtime, before.st_mtime_nsec as i64),
                after: (after.st_mtime, after.st_mtime_nsec as i64),
            });
        }
        Ok(())
    }
}

/// Removes what was made to be mounted on, newest first, once the container's processes are gone.
///
/// Runs outside, in the builder. A folder that has got contents stays, as does a file with bytes in
/// it; a folder's time is put back unless the container has changed it since.
pub fn take_back(root: &Path, made: &[Made]) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = fs::open(root, flags, Mode::empty()) else {
        return;
    };
    for one in made.iter().rev() {
        // Whatever fails here leaves an empty file or folder in the layer, which harms nothing.
        let _ = one.take_back(root.as_fd());
    }
}

impl Made {
    fn take_back(&self, root: BorrowedFd) -> rustix::io::Result<()> {
        let parent = Path::new(OsStr::from_bytes(&self.parent));
        let name = OsStr::from_bytes(&self.name);
        let above = open_inside(root, parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let now = fs::fstat(&above)?;
        let found = fs::statat(&above, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if found.st_ino != self.inode || (!self.folder && found.st_size != 0) {
            return Ok(());
        }
        let how = if self.folder {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        fs::unlinkat(&above, name, how)?;
        let unchanged = (now.st_mtime, now.st_mtime_nsec as i64) == self.after;
        let (seconds, nanoseconds) = if unchanged {
            self.before
        } else {
            (now.st_mtime, now.st_mtime_nsec as i64)
        };
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: fs::UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: seconds,
                tv_nsec: nanoseconds as _,
            },
        };
        fs::futimens(&above, &times)
    }
}

// ---- small steps ------------------------------------------------------------------------------

/// Opens a path as if `root` were `/`. A race with a rename is tried again.
fn open_inside(root: BorrowedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    loop {
        match fs::openat2(
            root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        ) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A detached copy of a mount, of all below it where `recursive`; of `at` itself for an empty path.
fn clone_tree(at: BorrowedFd, path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    sys::open_tree(at, path, flags)
}

fn place(tree: BorrowedFd, target: BorrowedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    sys::move_mount(tree, "", target, "", flags)
}

fn set_attributes(tree: BorrowedFd, set: u64, recursive: bool) -> rustix::io::Result<()> {
    kernel::mount_setattr(tree, set, recursive)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn is_folder(fd: BorrowedFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(fs::fstat(fd)?.st_mode) == FileType::Directory)
}

fn same_path(a: &Path, b: &Path) -> bool {
    a.components().eq(b.components())
}

/// The kernel's answer and the file system's own words.
struct Refusal(Errno, String);

/// A file system of the container's own; where a nested container may not have a new one, the
/// existing `/proc`, or a read-only sight of the existing `/sys`.
fn filesystem(mount: &Mount, options: Options) -> Result<(OwnedFd, Options), Refusal> {
    let data: Vec<_> = options
        .data
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_deref()))
        .collect();
    match new_filesystem(&mount.kind, &data) {
        Err(Refusal(Errno::PERM, _)) if mount.kind == "proc" || mount.kind == "sysfs" => {
            let sysfs = mount.kind == "sysfs";
            let path = if sysfs { "/sys" } else { "/proc" };
            let tree = clone_tree(CWD, Path::new(path), true)
                .map_err(|error| Refusal(error, String::new()))?;
            let attributes = options.attributes | if sysfs { ATTR_RDONLY } else { 0 };
            let options = Options {
                attributes,
                recursive: true,
                data: Vec::new(),
            };
            Ok((tree, options))
        }
        other => other.map(|tree| (tree, options)),
    }
}

fn new_filesystem(kind: &str, data: &[(&str, Option<&str>)]) -> Result<OwnedFd, Refusal> {
    let context = sys::fsopen(kind, sys::FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|error| Refusal(error, String::new()))?;
    let made = (|| {
        // What `df` and /proc/mounts show.
        sys::fsconfig_set_string(context.as_fd(), "source", kind)?;
        for (key, value) in data {
            match value {
                Some(value) => sys::fsconfig_set_string(context.as_fd(), *key, *value)?,
                None => sys::fsconfig_set_flag(context.as_fd(), *key)?,
            }
        }
        sys::fsconfig_create(context.as_fd())?;
        let none = sys::MountAttrFlags::empty();
        sys::fsmount(context.as_fd(), sys::FsMountFlags::FSMOUNT_CLOEXEC, none)
    })();
    made.map_err(|error| Refusal(error, crate::mounts::complaints(context.as_fd())))
}

/// The devices that every container has; ones that this machine lacks are left out.
fn devices(dev: BorrowedFd) -> rustix::io::Result<()> {
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let tree = match clone_tree(CWD, &Path::new("/dev").join(name), false) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY;
        let target = fs::openat(dev, name, flags, Mode::from_raw_mode(0o666))?;
        place(tree.as_fd(), target.as_fd())?;
    }
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
        ("/proc/kcore", "core"),
    ];
    links
        .iter()
        .try_for_each(|(target, name)| fs::symlinkat(*target, dev, *name))
}

/// Mount options, sorted into what they mean.
#[derive(Default)]
struct Options {
    attributes: u64,
    recursive: bool,
    /// What goes to the file system itself.
    data: Vec<(String, Option<String>)>,
}

impl Options {
    /// Options that lift a restriction are the default and change nothing: a bind mount keeps what
    /// its source has. Propagation is always private.
    fn parse(mount: &Mount) -> Result<Options> {
        let mut options = Options::default();
        for option in &mount.options {
            match option.as_str() {
                "ro" => options.attributes |= ATTR_RDONLY,
                "rro" => {
                    options.attributes |= ATTR_RDONLY;
                    options.recursive = true;
                }
                "nosuid" => options.attributes |= ATTR_NOSUID,
                "nodev" => options.attributes |= ATTR_NODEV,
                "noexec" => options.attributes |= ATTR_NOEXEC,
                "noatime" => options.attributes |= ATTR_NOATIME,
                "strictatime" => options.attributes |= ATTR_STRICTATIME,
                "nodiratime" => options.attributes |= ATTR_NODIRATIME,
                "rbind" => options.recursive = true,
                "bind" | "rw" | "suid" | "dev" | "exec" | "atime" | "diratime" | "relatime"
                | "private" | "rprivate" | "defaults" => {}
                other if mount.is_bind() => {
                    return Err(Error::Unsupported {
                        feature: format!("the option {other:?} of a bind mount"),
                        place: mount.destination.text(),
                    });
                }
                other => options.data.push(match other.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (other.to_owned(), None),
                }),
            }
        }
        Ok(options)
    }

    /// Restrictions hold for everything below a recursive bind mount too.
    fn apply(&self, tree: BorrowedFd) -> rustix::io::Result<()> {
        match self.attributes {
            0 => Ok(()),
            set => set_attributes(tree, set, self.recursive),
        }
    }
}

#[cfg(test)]
mod tests;
