//! The builder's own mounts: [`mount_overlay`] of layer directories, [`mount_memory`], [`unmount`].
//!
//! Called by the snapshotter through the door, from any thread, in the private mount namespace that
//! `idmap::enter` made. Every mount carries `userxattr`, root's too, so that a layer directory
//! reads the same whoever made it. Mounts never outlive the process.
//! Source: kernel documentation, filesystems/overlayfs.rst; mount(2); fsopen(2).

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, CWD};
use rustix::mount::{self as sys, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};

use crate::error::IoContext;
use crate::kernel;
use crate::{Error, Result};

/// The kernel's limit on lower folders of one overlay.
pub const MOST_LOWERS: usize = 500;
/// Longest value that fsconfig(2) takes as a string.
const LONGEST_VALUE: usize = 255;

/// Mounts layer directories, base first, at `target`: writable into `upper` (with `work` beside it
/// on the same file system, both unused so far), read-only without.
///
/// The mount is `volatile`: nothing is synced, and `upper` cannot be mounted as an upper again.
pub fn mount_overlay(
    target: &Path,
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
) -> Result<()> {
    let lowers = topmost_first(lowers);
    if lowers.len() > MOST_LOWERS {
        return Err(Error::Sandbox {
            step: format!("mount an overlay of {} layers", lowers.len()),
            source: io::Error::from_raw_os_error(libc::EINVAL),
            hint: format!("the kernel takes {MOST_LOWERS}; flatten some of them first"),
        });
    }
    match (lowers.as_slice(), upper) {
        // An overlay wants two folders; one alone is what a bind mount shows.
        ([only], None) => bind_read_only(only, target),
        ([], Some((upper, _))) => bind(upper, target, 0),
        ([], None) => Err(Error::Sandbox {
            step: "mount an overlay of no layers".to_owned(),
            source: io::Error::from_raw_os_error(libc::EINVAL),
            hint: String::new(),
        }),
        _ => overlay(target, &lowers, upper),
    }
}

/// Mounts an empty folder that lives in memory alone at `target`: what is in it never reaches a disk.
///
/// A ramfs is never swapped out; where there is none, a tmpfs has to do.
pub fn mount_memory(target: &Path) -> Result<()> {
    let made = in_memory("ramfs").or_else(|_| in_memory("tmpfs"));
    let mount = made.map_err(|source| Error::Sandbox {
        step: format!("mount a folder in memory at {}", target.display()),
        source: source.into(),
        hint: String::new(),
    })?;
    attach(mount.as_fd(), target).at("mount", target)
}

fn in_memory(kind: &str) -> rustix::io::Result<OwnedFd> {
    let context = sys::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    sys::fsconfig_set_string(context.as_fd(), "source", kind)?;
    sys::fsconfig_set_string(context.as_fd(), "mode", "755")?;
    sys::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    sys::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Detaches the mount at `target` and all below it. Not being a mount is no error.
pub fn unmount(target: &Path) -> Result<()> {
    let flags = sys::UnmountFlags::DETACH | sys::UnmountFlags::NOFOLLOW;
    match sys::unmount(target, flags) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error).at("unmount", target),
    }
}

/// Overlay wants the top first, and refuses a folder named twice. The same layer below itself adds
/// nothing: everything in it is covered by its upper copy.
fn topmost_first(lowers: &[PathBuf]) -> Vec<&Path> {
    let mut seen = HashSet::new();
    lowers
        .iter()
        .rev()
        .map(PathBuf::as_path)
        .filter(|path| seen.insert(*path))
        .collect()
}

fn bind_read_only(source: &Path, target: &Path) -> Result<()> {
    bind(source, target, kernel::ATTR_RDONLY)
}

fn bind(source: &Path, target: &Path, attributes: u64) -> Result<()> {
    let flags = sys::OpenTreeFlags::OPEN_TREE_CLONE | sys::OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = sys::open_tree(CWD, source, flags).at("bind", source)?;
    if attributes != 0 {
        kernel::mount_setattr(tree.as_fd(), attributes, false).at("make read-only", source)?;
    }
    attach(tree.as_fd(), target).at("mount", target)
}

fn attach(tree: BorrowedFd, target: &Path) -> rustix::io::Result<()> {
    sys::move_mount(
        tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

fn open_folder(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at("open", path)
}

/// The kernel's answer and, where the file system wrote one, its own words.
struct Refusal {
    error: io::Error,
    words: String,
}

fn overlay(target: &Path, lowers: &[&Path], upper: Option<(&Path, &Path)>) -> Result<()> {
    let made = match with_fsconfig(lowers, upper) {
        // `lowerdir+` came with Linux 6.5, the calls themselves with 5.2.
        Err(refusal)
            if matches!(
                refusal.error.raw_os_error(),
                Some(libc::EINVAL | libc::ENOSYS)
            ) =>
        {
            return match with_option_string(target, lowers, upper)? {
                Ok(()) => Ok(()),
                // The newer interface tells more about the same mistake.
                Err(_) if !refusal.words.is_empty() => Err(overlay_refused(target, refusal)),
                Err(error) => Err(overlay_refused(
                    target,
                    Refusal {
                        error,
                        words: String::new(),
                    },
                )),
            };
        }
        other => other,
    };
    let mount = made.map_err(|refusal| overlay_refused(target, refusal))?;
    attach(mount.as_fd(), target).at("mount", target)
}

fn with_fsconfig(lowers: &[&Path], upper: Option<(&Path, &Path)>) -> Result<OwnedFd, Refusal> {
    let silent = |error: rustix::io::Errno| Refusal {
        error: error.into(),
        words: String::new(),
    };
    let context = sys::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(silent)?;
    let mut held = Vec::new();
    let configured = (|| {
        sys::fsconfig_set_string(context.as_fd(), "source", "overlay")?;
        for lower in lowers {
            let value = value_for(lower, &mut held)?;
            sys::fsconfig_set_string(context.as_fd(), "lowerdir+", value)?;
        }
        if let Some((upper, work)) = upper {
            let (upper, work) = (value_for(upper, &mut held)?, value_for(work, &mut held)?);
            sys::fsconfig_set_string(context.as_fd(), "upperdir", upper)?;
            sys::fsconfig_set_string(context.as_fd(), "workdir", work)?;
            sys::fsconfig_set_flag(context.as_fd(), "volatile")?;
        }
        sys::fsconfig_set_flag(context.as_fd(), "userxattr")?;
        sys::fsconfig_create(context.as_fd())?;
        sys::fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
    })();
    configured.map_err(|error: rustix::io::Errno| Refusal {
        error: error.into(),
        words: complaints(context.as_fd()),
    })
}

/// A path as fsconfig takes it: a long one, or one with characters that overlay reads as its own,
/// goes by a descriptor, which must stay open (in `held`) until the mount is made.
fn value_for(path: &Path, held: &mut Vec<OwnedFd>) -> rustix::io::Result<PathBuf> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let special = |byte: &u8| matches!(byte, b'\\' | b':' | b',');
    if bytes.len() <= LONGEST_VALUE && !bytes.iter().any(special) {
        return Ok(path.to_path_buf());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    let value = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    held.push(folder);
    Ok(value)
}

/// What the file system said: lines of `e overlay: ...` on the context's descriptor.
pub(crate) fn complaints(context: BorrowedFd) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0u8; 1024];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        if length == 0 || lines.len() == 8 {
            break;
        }
        let line = String::from_utf8_lossy(&buffer[..length]);
        lines.push(line.trim().trim_start_matches("e ").to_owned());
    }
    lines.join("; ")
}

/// mount(2) with one option string, which must fit a page: every folder is named by the number of a
/// descriptor, relative to a working directory that one throw-away thread has for itself.
fn with_option_string(
    target: &Path,
    lowers: &[&Path],
    upper: Option<(&Path, &Path)>,
) -> Result<io::Result<()>> {
    let mut held = Vec::new();
    let mut hold = |path: &Path| -> Result<String> {
        let folder = open_folder(path)?;
        let number = folder.as_raw_fd().to_string();
        held.push(folder);
        Ok(number)
    };
    let names = lowers
        .iter()
        .map(|path| hold(path))
        .collect::<Result<Vec<_>>>()?;
    let mut options = format!("userxattr,lowerdir={}", names.join(":"));
    if let Some((upper, work)) = upper {
        let (upper, work) = (hold(upper)?, hold(work)?);
        options = format!("{options},upperdir={upper},workdir={work},volatile");
    }
    let target = std::path::absolute(target).at("mount", target)?;
    let options = std::ffi::CString::new(options).unwrap_or_default(); // digits: it holds no NUL
    std::thread::spawn(move || -> io::Result<()> {
        // SAFETY: gives this thread, which ends below, a working directory of its own.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS)? };
        rustix::process::chdir("/proc/self/fd")?;
        sys::mount(
            "overlay",
            &target,
            "overlay",
            sys::MountFlags::empty(),
            options.as_c_str(),
        )?;
        Ok(())
    })
    .join()
    .map_err(|_| Error::Interrupted)
}

fn overlay_refused(target: &Path, refusal: Refusal) -> Error {
    let hint = match refusal.error.raw_os_error() {
        Some(libc::ENODEV) => "this kernel has no overlay; as root: modprobe overlay".to_owned(),
        Some(libc::EPERM) => {
            "an ordinary user's overlay mounts need Linux 5.11 or newer, and a container that lets them".to_owned()
        }
        _ if refusal.words.contains("not supported as upperdir") => {
            "the state folder lies on a file system that overlay cannot write to (overlay itself, NFS); \
             put it on a volume, a tmpfs or a local disk with --state DIR"
                .to_owned()
        }
        _ => String::new(),
    };
    let words = if refusal.words.is_empty() {
        String::new()
    } else {
        format!(" ({})", refusal.words)
    };
    Error::Sandbox {
        step: format!("mount an overlay at {}{words}", target.display()),
        source: refusal.error,
        hint,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn overlay_gets_the_top_first_and_no_folder_twice() {
        let lowers = ["base", "a", "b", "a"].map(PathBuf::from);
        let names: Vec<_> = topmost_first(&lowers)
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "b", "base"]);
    }

    #[test]
    fn more_lowers_than_the_kernel_takes_are_refused_with_the_limit() {
        let lowers: Vec<PathBuf> = (0..501)
            .map(|number| format!("/l/{number}").into())
            .collect();
        let error = mount_overlay(Path::new("/nonexistent"), &lowers, None).unwrap_err();
        let Error::Sandbox { hint, .. } = error else {
            panic!("{error}")
        };
        assert!(hint.contains("500"));
    }

    #[test]
    fn unmounting_what_is_no_mount_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        unmount(folder.path()).unwrap();
        unmount(&folder.path().join("missing")).unwrap();
    }

    #[test]
    fn a_path_that_overlay_would_misread_goes_by_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a:b,c");
        std::fs::create_dir(&odd).unwrap();
        let mut held = Vec::new();
        assert!(value_for(&odd, &mut held)
            .unwrap()
            .starts_with("/proc/self/fd"));
        assert_eq!(value_for(folder.path(), &mut held).unwrap(), folder.path());
        assert_eq!(held.len(), 1);
    }
}
