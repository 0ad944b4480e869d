//! An object of an inventory as an entry of a tar.

use rustix::fs::FileType;

use super::{At, Inventory};
use crate::entry::{Entry, Kind};

impl Inventory {
    /// Makes `entry` say what the object is; its path stays.
    pub fn describe(&self, at: At, entry: &mut Entry) {
        let look = self.look(at);
        let (major, minor) = look.device;
        entry.kind = match look.file_type() {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink(self.target(at).to_vec()),
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            _ => Kind::File,
        };
        (entry.mode, entry.uid, entry.gid) = (look.mode & 0o7777, look.uid, look.gid);
        entry.size = match entry.kind {
            Kind::File => self.stamp(at).size,
            _ => 0,
        };
        (entry.mtime, entry.mtime_nanos) = (self.seconds(at), 0);
        entry.xattrs.clear();
        entry.xattrs.extend_from_slice(self.xattrs(at));
    }
}
