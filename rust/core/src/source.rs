//! [`SourceRoot`]: a context folder or a stage's root, and what a source pattern names in it.
//!
//! `select` asks it. Nothing outside the root is ever opened: `..` stops at the root, symlinks in
//! a pattern are resolved inside it, and every open goes from the root's descriptor with the
//! kernel forbidden to follow a link.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{IoContext, Result};
use crate::glob::Glob;
use crate::ignore::{clean, Ignore};
use crate::memo::Clock;
use crate::stack::Stack;
use crate::Error;

/// A tree that files are taken from.
#[derive(Debug)]
pub struct SourceRoot {
    path: PathBuf,
    fd: OwnedFd,
    stack: Stack,
}

/// One object that a pattern names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its path relative to the root, all symlinks followed; empty for the root.
    pub path: Vec<u8>,
    /// Its name at the destination: the last word of what the pattern matched.
    pub name: Vec<u8>,
    /// What the pattern matched: `path`, unless that leads through a symlink.
    pub matched: Vec<u8>,
    /// True for a folder, whose contents are meant.
    pub is_dir: bool,
}

impl SourceRoot {
    /// Opens the tree.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
        Ok(Self {
            path: path.to_path_buf(),
            fd,
            stack: Stack::new(vec![path.to_path_buf()]),
        })
    }

    /// Where something of the tree is, for messages.
    pub fn on_disk(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    /// How its files' times can be trusted.
    pub fn clock(&self) -> Result<Clock> {
        Clock::of(&self.fd).at("stat", &self.path)
    }

    /// Opens an object of the tree for reading, following no symlink.
    pub fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let name = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), how) {
            // Old kernels lack the call, old seccomp lists refuse it; the walk that found the
            // path saw no symlink in it.
            Err(Errno::NOSYS | Errno::PERM) => {
                rustix::fs::openat(&self.fd, name, flags, Mode::empty())
            }
            other => other,
        }
        .at("open", self.on_disk(path))
    }

    /// Opens a file of an open folder of the tree for reading, following no symlink.
    pub fn open_in(&self, folder: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let flags = flags | OFlags::NOCTTY | OFlags::NONBLOCK;
        rustix::fs::openat(folder, name, flags, Mode::empty())
    }

    /// Reads an object's attributes, following no symlink at its end; None where it is missing.
    pub fn stat(&self, path: &[u8]) -> Result<Option<Stat>> {
        let name = if path.is_empty() { b"." } else { path };
        match rustix::fs::statat(self.fd.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno).at("stat", self.on_disk(path)),
        }
    }

    /// Finds what a source word names, in the order of names.
    ///
    /// A word without a wildcard that names nothing is an error; a wildcard may match nothing.
    /// The second value is true where `ignore` took away something that the word matched.
    pub fn named(&self, pattern: &str, ignore: &Ignore) -> Result<(Vec<Named>, bool)> {
        let globs = globs(pattern)?;
        let plain = globs
            .iter()
            .take_while(|glob| glob.plain().is_some())
            .count();
        let base = join(globs[..plain].iter().filter_map(Glob::plain));
        if plain == globs.len() {
            return match self.settle(&base, ignore)? {
                Settled::Named(named) => Ok((vec![named], false)),
                Settled::Ignored => Err(missing(pattern, IGNORED)),
                Settled::Missing => Err(missing(pattern, "not found")),
            };
        }
        let mut found = Vec::new();
        let mut ignored = false;
        for path in self.expand(&base, &globs[plain..])? {
            match self.settle(&path, ignore)? {
                Settled::Named(named) => found.push(named),
                Settled::Ignored => ignored = true,
                Settled::Missing => {
                    return Err(missing(
                        &String::from_utf8_lossy(&path),
                        "a symbolic link that leads nowhere",
                    ))
                }
            }
        }
        Ok((found, ignored))
    }

    /// The paths that match the wildcards below `base`; symlinks on the way are not entered.
    fn expand(&self, base: &[u8], globs: &[Glob]) -> Result<Vec<Vec<u8>>> {
        let base = self.stack.resolve(Path::new(OsStr::from_bytes(base)))?;
        let mut paths = vec![base.into_os_string().into_vec()];
        for glob in globs {
            let mut next = Vec::new();
            for path in paths {
                let is_dir = |stat: Stat| FileType::from_raw_mode(stat.st_mode).is_dir();
                if !self.stat(&path)?.is_some_and(is_dir) {
                    continue;
                }
                let mut names = match glob.plain() {
                    Some(name) => vec![name.to_vec()],
                    None => self.names(&path)?,
                };
                names.retain(|name| glob.matches(name));
                names.sort_unstable();
                next.extend(names.iter().map(|name| join([path.as_slice(), name])));
            }
            paths = next;
        }
        let mut existing = Vec::new();
        for path in paths {
            if self.stat(&path)?.is_some() {
                existing.push(path);
            }
        }
        Ok(existing)
    }

    fn names(&self, folder: &[u8]) -> Result<Vec<Vec<u8>>> {
        let fd = self.open_beneath(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(fd).at("read", self.on_disk(folder))? {
            let entry = entry.at("read", self.on_disk(folder))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// The path that a word without a wildcard stands for, symlinks on the way not followed.
    ///
    /// Returns:
    ///     None for a word with a wildcard.
    pub fn literal(pattern: &str) -> Result<Option<Vec<u8>>> {
        let globs = globs(pattern)?;
        let names: Option<Vec<&[u8]>> = globs.iter().map(Glob::plain).collect();
        Ok(names.map(join))
    }

    /// Does something stand at a path that leads through no symlink?
    pub fn has(&self, path: &[u8]) -> Result<bool> {
        let found = self.stack.lookup(Path::new(OsStr::from_bytes(path)))?;
        Ok(found.is_some())
    }

    /// Follows a matched path to what it stands for.
    fn settle(&self, path: &[u8], ignore: &Ignore) -> Result<Settled> {
        let real = self.stack.resolve(Path::new(OsStr::from_bytes(path)))?;
        let real = real.into_os_string().into_vec();
        let Some(stat) = self.stat(&real)? else {
            return Ok(Settled::Missing);
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        let hidden = |path: &[u8]| {
            let known = ignore.walk_to(path);
            ignore.is_out(&known) && !(is_dir && ignore.may_return(&known))
        };
        if hidden(&real) || (real != path && hidden(path)) {
            return Ok(Settled::Ignored);
        }
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        Ok(Settled::Named(Named {
            name: name.to_vec(),
            matched: path.to_vec(),
            path: real,
            is_dir,
        }))
    }
}

/// Why a source is missing that stands on disk.
pub const IGNORED: &str = "excluded by the ignore file";

enum Settled {
    Named(Named),
    Ignored,
    Missing,
}

/// The words of a source pattern, `..` clamped at the root.
fn globs(pattern: &str) -> Result<Vec<Glob>> {
    let cleaned = clean(format!("/{pattern}").as_bytes());
    let cleaned = String::from_utf8_lossy(&cleaned);
    let words = cleaned.split('/').filter(|word| !word.is_empty());
    let globs = words.map(Glob::new).collect::<Result<Vec<Glob>>>();
    globs.map_err(|error| in_pattern(pattern, error))
}

/// Gives an error about a part of a source word the whole word.
pub fn in_pattern(pattern: &str, error: Error) -> Error {
    match error {
        Error::Copy {
            reason, not_found, ..
        } => Error::Copy {
            path: pattern.to_owned(),
            reason,
            not_found,
        },
        other => other,
    }
}

/// Nothing stands where a source word points.
pub fn missing(path: &str, reason: &str) -> Error {
    Error::Copy {
        path: path.to_owned(),
        reason: reason.to_owned(),
        not_found: true,
    }
}

/// Joins the words of a relative path, empty ones left out.
pub fn join<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut path = Vec::new();
    for word in words.into_iter().filter(|word| !word.is_empty()) {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(word);
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, SourceRoot) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for folder in ["src/deep", "docs", "x*"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in [
            "a.txt",
            "b.txt",
            "src/main.c",
            "src/deep/x.c",
            "docs/main.md",
            "x*/y",
        ] {
            fs::write(root.join(file), file).unwrap();
        }
        fs::write(dir.path().join("secret"), "outside").unwrap();
        symlink("src", root.join("link")).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink(dir.path().join("secret"), root.join("absolute")).unwrap();
        symlink("a.txt", root.join("alias")).unwrap();
        let root = SourceRoot::open(&root).unwrap();
        (dir, root)
    }

    fn paths(root: &SourceRoot, pattern: &str) -> Vec<String> {
        let (named, _) = root.named(pattern, &Ignore::default()).unwrap();
        named
            .into_iter()
            .map(|named| {
                let path = String::from_utf8(named.path).unwrap();
                let name = String::from_utf8(named.name).unwrap();
                let kind = if named.is_dir { "/" } else { "" };
                format!("{path}{kind}={name}")
            })
            .collect()
    }

    #[test]
    fn patterns_name_files_and_folders() {
        let (_dir, root) = tree();
        assert_eq!(paths(&root, "a.txt"), ["a.txt=a.txt"]);
        assert_eq!(paths(&root, "/src/"), ["src/=src"]);
        assert_eq!(paths(&root, "."), ["/="]);
        assert_eq!(paths(&root, "*.txt"), ["a.txt=a.txt", "b.txt=b.txt"]);
        assert_eq!(
            paths(&root, "*/main.*"),
            ["docs/main.md=main.md", "src/main.c=main.c"]
        );
        assert_eq!(paths(&root, "x\\*/y"), ["x*/y=y"]);
        assert_eq!(paths(&root, "x[*]/y"), ["x*/y=y"]);
        assert!(paths(&root, "*.none").is_empty());
    }

    #[test]
    fn a_symlink_named_as_a_source_is_followed_inside() {
        let (_dir, root) = tree();
        assert_eq!(paths(&root, "link"), ["src/=link"]);
        assert_eq!(paths(&root, "link/main.c"), ["src/main.c=main.c"]);
        assert_eq!(paths(&root, "alias"), ["a.txt=alias"]);
        assert_eq!(paths(&root, "link/*.c"), ["src/main.c=main.c"]);
    }

    #[test]
    fn nothing_outside_the_root_is_reached() {
        let (_dir, root) = tree();
        assert_eq!(paths(&root, "../../a.txt"), ["a.txt=a.txt"]);
        for pattern in ["../secret", "out", "absolute", "src/../../secret"] {
            let error = root.named(pattern, &Ignore::default()).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Copy {
                        not_found: true,
                        ..
                    }
                ),
                "{error}"
            );
        }
        assert!(root.open_beneath(b"link/main.c", OFlags::RDONLY).is_err());
        assert!(root.open_beneath(b"../secret", OFlags::RDONLY).is_err());
    }

    #[test]
    fn what_is_ignored_is_not_found() {
        let (_dir, root) = tree();
        let ignore = Ignore::new(["b.txt", "src", "!src/main.c", "docs"]).unwrap();
        let error = root.named("b.txt", &ignore).unwrap_err().to_string();
        assert!(error.contains("ignore file"), "{error}");
        assert!(root.named("docs", &ignore).is_err());
        assert!(root.named("src/main.c", &ignore).is_ok());
        assert!(root.named("src", &ignore).is_ok());
        assert!(root.named("link/deep", &ignore).is_err());
        let (named, ignored) = root.named("?.txt", &ignore).unwrap();
        assert_eq!(named.len(), 1);
        assert!(ignored);
    }

    #[test]
    fn a_bad_pattern_is_an_error() {
        let (_dir, root) = tree();
        assert!(root.named("[a", &Ignore::default()).is_err());
    }
}
