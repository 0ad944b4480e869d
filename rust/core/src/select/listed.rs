//! What people and other programs are shown of a selection: its files.

use std::sync::Arc;

use rustix::fs::FileType;

use super::Selection;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::inventory::At;

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

impl Selection {
    /// The regular files with their digests, for people; reads those not digested yet.
    pub fn listed(&self, cancel: &Cancel) -> Result<Vec<Listed>> {
        let mut known = self.known();
        if known.is_empty() {
            known = Arc::new(self.learn(None, cancel)?);
        }
        let mut files = Vec::new();
        self.each_file(|at, path| {
            let digest = known.digest(self.inventory.slot(at));
            let hex = |digest: &[u8; 32]| blake3::Hash::from(*digest).to_hex();
            files.push(Listed {
                path: String::from_utf8_lossy(path).into_owned(),
                size: self.inventory.stamp(at).size,
                mode: self.look(at).mode & 0o7777,
                digest: digest.map_or_else(String::new, |digest| format!("blake3:{}", hex(digest))),
            });
        });
        Ok(files)
    }

    /// Bytes of all regular files.
    pub fn total_bytes(&self) -> u64 {
        let mut sum = 0;
        self.each_file(|at, _| sum += self.inventory.stamp(at).size);
        sum
    }

    /// The paths of the regular files, relative to the root; reads none of them.
    pub fn file_paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.each_file(|_, path| paths.push(String::from_utf8_lossy(path).into_owned()));
        paths
    }

    /// Shows each regular file, with its path from the root.
    pub(super) fn each_file(&self, mut show: impl FnMut(At, &[u8])) {
        let mut tour = self.tour();
        while let Some(at) = tour.next() {
            if self.look(at).file_type() == FileType::RegularFile {
                show(at, tour.path());
            }
        }
    }
}
