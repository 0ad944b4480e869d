//! [`Links`]: under which name the tar has each file that has several.
//!
//! Most such files of a cache have their other names outside of it, and are never asked for again:
//! one costs a few words and its name here, not its path.

use std::collections::HashMap;

/// What a file is told by: its device and its inode.
pub type Inode = (u64, u64);

/// First names in the tar.
#[derive(Debug, Default)]
pub struct Links {
    /// Number of the folder, and where the name begins in `names`.
    found: HashMap<Inode, (u32, u32)>,
    /// Paths of folders, each with the slash at its end; one may be there several times.
    folders: Vec<Vec<u8>>,
    /// The names, a zero byte behind each.
    names: Vec<u8>,
}

impl Links {
    /// Remembers the path of a file that is in the tar now.
    ///
    /// After four gigabytes of names nothing more is remembered: such files are there repeatedly.
    pub fn note(&mut self, inode: Inode, path: &[u8]) {
        let stem = path.iter().rposition(|&byte| byte == b'/');
        let (folder, name) = path.split_at(stem.map_or(0, |slash| slash + 1));
        if self.folders.last().is_none_or(|last| last != folder) {
            self.folders.push(folder.to_vec());
        }
        let number = u32::try_from(self.folders.len() - 1);
        let start = u32::try_from(self.names.len());
        if let (Ok(number), Ok(start)) = (number, start) {
            self.found.insert(inode, (number, start));
            self.names.extend_from_slice(name);
            self.names.push(0);
        }
    }

    /// The path under which the tar has a file; None where it has it not.
    pub fn path(&self, inode: Inode) -> Option<Vec<u8>> {
        let &(folder, start) = self.found.get(&inode)?;
        let name = self.names[start as usize..].split(|&byte| byte == 0);
        let name = name.into_iter().next().unwrap_or_default();
        Some([&self.folders[folder as usize], name].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_the_path_that_it_was_noted_with_last() {
        let mut links = Links::default();
        let paths = [
            "top",
            "a/one",
            "a/two",
            "a/b/three",
            "a/four",
            "\u{e9}/five",
        ];
        for (ino, path) in (1..).zip(paths) {
            links.note((7, ino), path.as_bytes());
        }
        links.note((8, 1), b"a/other");
        for (ino, path) in (1..).zip(paths) {
            assert_eq!(links.path((7, ino)), Some(path.as_bytes().to_vec()));
        }
        assert_eq!(links.path((8, 1)), Some(b"a/other".to_vec()));
        assert_eq!(links.path((8, 2)), None);
    }
}
