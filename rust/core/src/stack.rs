//! [`Stack`]: the directories of several layers looked at as one tree, without a mount.
//!
//! Copies ask it where a destination leads and which attributes a folder has; `layers` asks it
//! where a hard link's target is. It reads names only, never writes, and never lets the kernel
//! follow a symlink: layers come from strangers, and an absolute link means the image's root.
//! Source: OCI image-spec v1.1, layer.md, "Whiteouts"; overlay's on-disk form (kernel
//! documentation, filesystems/overlayfs.rst, "whiteouts and opaque directories").

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, CWD};
use rustix::io::Errno;

use crate::attrs::is_whiteout_at;
use crate::entry::XATTR_OPAQUE;
use crate::error::{IoContext, Result};
use crate::Error;

/// Links followed in one resolution before it is called a loop; the kernel's own figure.
const MAX_LINKS: usize = 40;

/// Layer directories, base first, seen as one tree.
#[derive(Debug, Clone)]
pub struct Stack {
    dirs: Vec<PathBuf>,
}

/// What stands at a path of the stack: the uppermost object of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is on disk.
    pub path: PathBuf,
    /// Index of its layer in the stack, 0 is the base.
    pub layer: usize,
    /// Its type on disk (a symlink is not followed).
    pub file_type: FileType,
}

impl Found {
    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// True for a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.file_type == FileType::Symlink
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type == FileType::RegularFile
    }
}

/// A folder of the merged tree: the layers in which its content lives, uppermost first.
#[derive(Debug, Clone)]
struct Folder {
    path: PathBuf,
    layers: Vec<usize>,
}

impl Stack {
    /// Makes a stack of existing layer directories, base first. Reads nothing yet.
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// The layer directories, base first.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Finds what stands at `path` (relative to the stack's root; a leading `/` is dropped).
    ///
    /// No symlink is followed, neither at the end nor on the way: a path that leads through one
    /// names nothing. `..` does not occur in a name, so a path with one names nothing either.
    /// The root is found in the uppermost layer.
    pub fn lookup(&self, path: &Path) -> Result<Option<Found>> {
        let Some(mut folder) = self.root()? else {
            return Ok(None);
        };
        let mut found = self.found_folder(&folder);
        let mut components = names(path).into_iter().peekable();
        while let Some(step) = components.next() {
            let Step::Down(name) = step else {
                return Ok(None);
            };
            let Some((object, below)) = self.child(&folder, &name)? else {
                return Ok(None);
            };
            found = object;
            match below {
                Some(next) => folder = next,
                None if components.peek().is_some() => return Ok(None),
                None => {}
            }
        }
        Ok(Some(found))
    }

    /// Follows every symlink of `path` inside the stack and returns where it leads, relative to
    /// the stack's root (empty is the root itself).
    ///
    /// Absolute targets start again at the root, `..` stops there. What does not exist is taken
    /// as it is written, so the path of something still to be made can be asked for.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf> {
        self.follow(Path::new(""), path, Top::Stops)
    }

    /// The same below the folder `base`, a path without symlinks, as if that were the root; where
    /// a symlink leads above it, that is an error. Both paths are relative to the stack's root.
    pub fn resolve_below(&self, base: &Path, path: &Path) -> Result<PathBuf> {
        let path = path.strip_prefix(base).unwrap_or(path);
        self.follow(base, path, Top::Refuses)
    }

    fn follow(&self, base: &Path, path: &Path, top: Top) -> Result<PathBuf> {
        let mut todo = names(path);
        todo.reverse();
        // Folders from the root down to where we stand; None from the first missing name on.
        let mut trail: Vec<Option<Folder>> = vec![self.root()?];
        let mut real: Vec<OsString> = Vec::new();
        for name in base {
            let below = match trail.last() {
                Some(Some(folder)) => self.child(folder, &name.to_owned())?,
                _ => None,
            };
            trail.push(below.and_then(|(_, below)| below));
            real.push(name.to_owned());
        }
        let floor = real.len();
        let mut links = 0;
        while let Some(step) = todo.pop() {
            let name = match step {
                Step::Root => {
                    trail.truncate(floor + 1);
                    real.truncate(floor);
                    continue;
                }
                Step::Up => {
                    if real.len() > floor {
                        real.pop();
                        trail.pop();
                    } else if top == Top::Refuses {
                        return Err(refuse(path, "a symbolic link leads out of the destination"));
                    }
                    continue;
                }
                Step::Down(name) => name,
            };
            let child = match trail.last() {
                Some(Some(folder)) => self.child(folder, &name)?,
                _ => None,
            };
            match child {
                Some((object, _)) if object.is_symlink() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(refuse(path, "too many levels of symbolic links"));
                    }
                    let target = rustix::fs::readlink(&object.path, Vec::new())
                        .at("readlink", &object.path)?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        todo.extend(names(&target).into_iter().rev());
                        todo.push(Step::Root);
                    } else {
                        todo.extend(names(&target).into_iter().rev());
                    }
                }
                other => {
                    real.push(name);
                    trail.push(other.and_then(|(_, below)| below));
                }
            }
        }
        Ok(real.iter().collect())
    }

    /// The merged root: every layer, down to the first opaque one.
    fn root(&self) -> Result<Option<Folder>> {
        let mut layers = Vec::with_capacity(self.dirs.len());
        for index in (0..self.dirs.len()).rev() {
            layers.push(index);
            if is_opaque(&self.dirs[index])? {
                break;
            }
        }
        Ok((!layers.is_empty()).then(|| Folder {
            path: PathBuf::new(),
            layers,
        }))
    }

    fn found_folder(&self, folder: &Folder) -> Found {
        let layer = folder.layers[0];
        Found {
            path: self.dirs[layer].join(&folder.path),
            layer,
            file_type: FileType::Directory,
        }
    }

    /// Looks one name up in a merged folder: the object, and the merged folder where it is one.
    ///
    /// Every parent is known to be a real directory in each of the folder's layers, so joining the
    /// name cannot leave the layer.
    fn child(&self, folder: &Folder, name: &OsString) -> Result<Option<(Found, Option<Folder>)>> {
        let path = folder.path.join(name);
        let mut layers = Vec::new();
        for &index in &folder.layers {
            let on_disk = self.dirs[index].join(&path);
            let stat = match rustix::fs::lstat(&on_disk) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno).at("stat", on_disk),
            };
            let file_type = FileType::from_raw_mode(stat.st_mode);
            if file_type == FileType::Directory {
                layers.push(index);
                if is_opaque(&on_disk)? {
                    break;
                }
                continue;
            }
            let deleted = is_whiteout_at(CWD, on_disk.as_os_str(), &stat);
            if layers.is_empty() && !deleted.at("getxattr", &on_disk)? {
                let found = Found {
                    path: on_disk,
                    layer: index,
                    file_type,
                };
                return Ok(Some((found, None)));
            }
            // A whiteout, or a file that a folder above replaced: nothing below it shows.
            break;
        }
        if layers.is_empty() {
            return Ok(None);
        }
        let below = Folder { path, layers };
        Ok(Some((self.found_folder(&below), Some(below))))
    }
}

/// True for overlay's whiteout: a character device 0:0.
pub fn is_whiteout(file_type: FileType, rdev: u64) -> bool {
    file_type == FileType::CharacterDevice && rdev == 0
}

/// True where a directory hides everything of the layers below.
pub fn is_opaque(dir: &Path) -> Result<bool> {
    let mut value = [0_u8; 8];
    match rustix::fs::lgetxattr(dir, XATTR_OPAQUE, &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno).at("getxattr", dir),
    }
}

fn refuse(path: &Path, reason: &str) -> Error {
    Error::Copy {
        path: path.display().to_string(),
        reason: reason.to_owned(),
        not_found: false,
    }
}

/// What `..` does at the top.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Top {
    Stops,
    Refuses,
}

/// One step of a path.
enum Step {
    Root,
    Up,
    Down(OsString),
}

fn names(path: &Path) -> Vec<Step> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(Step::Down(name.to_os_string())),
            Component::ParentDir => Some(Step::Up),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// Reads one small file of a stack of layers, symlinks resolved inside it; None where there is no
/// regular file of that name. More than `limit` bytes is an error, not a truncated answer.
pub fn read_in_layers(layers: &[PathBuf], path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let stack = Stack::new(layers.to_vec());
    let Some(found) = stack.lookup(&stack.resolve(path)?)? else {
        return Ok(None);
    };
    if !found.is_file() {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&found.path, flags, Mode::empty()).at("open", &found.path)?;
    let mut content = Vec::new();
    File::from(file)
        .take(limit.saturating_add(1))
        .read_to_end(&mut content)
        .at("read", &found.path)?;
    if content.len() as u64 > limit {
        return Err(Error::Layer {
            entry: String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned(),
            reason: format!("larger than {limit} bytes"),
        });
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests;
