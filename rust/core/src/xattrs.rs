//! Extended attributes as copies see them: which ones an image keeps, and the override record.
//!
//! An image keeps `user.*` and `security.capability`; labels of this machine's security modules,
//! access lists, and what overlay and `img` write for themselves stay here.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

use crate::entry::{Xattr, XATTR_OVERRIDE};
use crate::error::{IoContext, Result};
use crate::Error;

/// The kernel's limit for one value, and for the list of names. Source: limits.h, `XATTR_SIZE_MAX`.
const LIMIT: usize = 64 << 10;

/// Does an image keep the attribute of this name?
pub fn kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.")
            && !name.starts_with(b"user.overlay.")
            && !name.starts_with(b"user.img."))
}

/// Every attribute of an open file that an image keeps, sorted; and the override record's value.
pub fn of_file(file: impl AsFd, path: &Path) -> Result<(Vec<Xattr>, Option<Vec<u8>>)> {
    let mut small = [0_u8; 1024];
    let length = match rustix::fs::flistxattr(&file, &mut small[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NOSYS) => 0,
        Err(Errno::RANGE) => return from_long_list(file, path),
        Err(errno) => return Err(errno).at("listxattr", path),
    };
    collect(file, path, &small[..length])
}

fn from_long_list(file: impl AsFd, path: &Path) -> Result<(Vec<Xattr>, Option<Vec<u8>>)> {
    let mut list = vec![0; LIMIT];
    let length = rustix::fs::flistxattr(&file, &mut list[..]).at("listxattr", path)?;
    collect(file, path, &list[..length])
}

fn collect(file: impl AsFd, path: &Path, list: &[u8]) -> Result<(Vec<Xattr>, Option<Vec<u8>>)> {
    let (mut xattrs, mut marked) = (Vec::new(), None);
    for name in list.split(|&byte| byte == 0) {
        let is_override = name == XATTR_OVERRIDE.as_bytes();
        if !is_override && !kept(name) {
            continue;
        }
        let mut value = vec![0; LIMIT];
        match rustix::fs::fgetxattr(&file, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno).at("getxattr", path),
        }
        if is_override {
            marked = Some(value);
        } else {
            xattrs.push((name.to_vec(), value));
        }
    }
    xattrs.sort();
    Ok((xattrs, marked))
}

/// What an override record says in place of `stat`. See [`XATTR_OVERRIDE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `st_mode`, with the type bits.
    pub mode: u32,
    /// Device numbers.
    pub device: (u32, u32),
}

impl Override {
    /// Reads a record; a malformed one is an error, as it would give wrong owners silently.
    pub fn parse(value: &[u8], path: &Path) -> Result<Self> {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let mut fields = text.split(':');
        let mut number = |radix| u32::from_str_radix(fields.next()?, radix).ok();
        let parsed = (|| {
            Some(Self {
                uid: number(10)?,
                gid: number(10)?,
                mode: number(8)?,
                device: (number(10)?, number(10)?),
            })
        })();
        parsed
            .filter(|_| text.split(':').count() == 5)
            .ok_or_else(|| Error::Layer {
                entry: path.display().to_string(),
                reason: format!("malformed {XATTR_OVERRIDE}"),
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn labels_of_this_machine_are_not_kept() {
        for name in ["user.a", "security.capability"] {
            assert!(kept(name.as_bytes()));
        }
        for name in [
            "user.overlay.opaque",
            "user.img.override",
            "trusted.overlay.opaque",
            "security.selinux",
            "system.posix_acl_access",
        ] {
            assert!(!kept(name.as_bytes()));
        }
    }

    #[test]
    fn attributes_come_sorted_with_the_override_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let set = |name: &str, value: &[u8]| {
            rustix::fs::fsetxattr(&file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
        };
        set("user.b", b"2");
        set("user.a", b"1");
        set("user.overlay.origin", b"x");
        set(XATTR_OVERRIDE, b"1:2:100644:0:0");
        let (xattrs, marked) = of_file(&file, file.path()).unwrap();
        let wanted: Vec<Xattr> = vec![
            (b"user.a".to_vec(), b"1".to_vec()),
            (b"user.b".to_vec(), b"2".to_vec()),
        ];
        assert_eq!(xattrs, wanted);
        let marked = Override::parse(&marked.unwrap(), file.path()).unwrap();
        assert_eq!((marked.uid, marked.gid, marked.mode), (1, 2, 0o100_644));
    }

    #[test]
    fn a_malformed_override_is_an_error() {
        for text in [
            "",
            "1:2:3",
            "1:2:9:0:0",
            "1:2:644:0:0:0",
            "-1:2:644:0:0",
            "a:b:c:d:e",
        ] {
            assert!(Override::parse(text.as_bytes(), Path::new("x")).is_err());
        }
    }
}
