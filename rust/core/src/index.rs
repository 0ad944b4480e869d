//! [`IndexModes`]: the modes that git's index gives the files of a work tree.
//!
//! git knows two modes of a file. `select` takes them in the place of the disk's where a build
//! normalizes its context, so that another umask changes nothing. The program that reads the index
//! is git itself; here its listing is read. Source: git-ls-files(1), `--stage`.

use std::collections::HashMap;

use rustix::fs::FileType;

const EXECUTABLE: u32 = 0o755;
const PLAIN: u32 = 0o644;

/// What `git ls-files --stage -z` says of modes.
#[derive(Debug, Default)]
pub struct IndexModes {
    /// Whether a file is executable, by its path from the context's root.
    files: HashMap<Box<[u8]>, bool>,
}

impl IndexModes {
    /// Reads git's listing; None where it is none.
    pub fn parse(listing: &[u8]) -> Option<Self> {
        let mut files = HashMap::new();
        for line in listing.split(|&byte| byte == 0).filter(|l| !l.is_empty()) {
            let tab = line.iter().position(|&byte| byte == b'\t')?;
            let (facts, path) = (&line[..tab], &line[tab + 1..]);
            match facts.split(|&byte| byte == b' ').next()? {
                b"100755" => files.insert(path.into(), true),
                b"100644" | b"100664" => files.insert(path.into(), false),
                // A link, or a repository in this one.
                b"120000" | b"160000" => None,
                _ => return None,
            };
        }
        Some(Self { files })
    }

    /// The mode that an object of the work tree has, whatever the umask was that it was written
    /// under. What is not in the index counts as git would add it.
    ///
    /// `mode` is `st_mode`; `path` counts from the root of the context.
    pub fn of(&self, path: &[u8], mode: u32) -> u32 {
        let file_type = FileType::from_raw_mode(mode);
        let bits = match file_type {
            FileType::Directory => EXECUTABLE,
            FileType::RegularFile => {
                let listed = self.files.get(path).copied();
                if listed.unwrap_or(mode & 0o100 != 0) {
                    EXECUTABLE
                } else {
                    PLAIN
                }
            }
            _ => return mode,
        };
        file_type.as_raw_mode() | bits
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const LISTING: &[u8] = b"100644 e69de29bb2d1d6434b8b29ae775ad8c2e48c5391 0\ta b\n\xff\0\
        100755 e69de29bb2d1d6434b8b29ae775ad8c2e48c5391 0\tbin/run\0\
        120000 e69de29bb2d1d6434b8b29ae775ad8c2e48c5391 0\tlink\0\
        160000 e69de29bb2d1d6434b8b29ae775ad8c2e48c5391 0\tmodule\0";

    #[test]
    fn a_file_has_the_mode_of_the_index_whatever_the_disk_says() {
        let modes = IndexModes::parse(LISTING).unwrap();
        assert_eq!(modes.of(b"a b\n\xff", 0o100_777), 0o100_644);
        assert_eq!(modes.of(b"bin/run", 0o100_600), 0o100_755);
    }

    #[test]
    fn what_the_index_lacks_counts_by_its_own_bit_and_folders_and_links_by_their_type() {
        let modes = IndexModes::parse(LISTING).unwrap();
        assert_eq!(modes.of(b"new", 0o100_700), 0o100_755);
        assert_eq!(modes.of(b"new", 0o104_661), 0o100_644);
        assert_eq!(modes.of(b"bin", 0o042_700), 0o040_755);
        assert_eq!(modes.of(b"link", 0o120_777), 0o120_777);
        assert_eq!(modes.of(b"pipe", 0o010_600), 0o010_600);
    }

    #[test]
    fn what_is_no_listing_is_told() {
        assert!(IndexModes::parse(b"").is_some());
        assert!(IndexModes::parse(b"fatal: not a git repository").is_none());
        assert!(IndexModes::parse(b"040000 x 0\tfolder\0").is_none());
    }
}
