//! One entry of a layer: what the tar reader yields, the tar writer takes, and a walk of a
//! directory finds. Source: OCI image-spec v1.1, layer.md, "File Types" and "File Attributes".

/// An xattr name and its value, both as raw bytes.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What an entry is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of `size` bytes.
    #[default]
    File,
    /// A directory.
    Directory,
    /// A symbolic link; the bytes are its target.
    Symlink(Vec<u8>),
    /// A hard link to an earlier entry; the bytes are that entry's path within the layer.
    Hardlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One entry. Paths are relative to the layer's root, without a leading `/` or `./`, and without
/// a trailing `/`; the root directory itself has the empty path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Relative path, raw bytes.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits (`0o7777`).
    pub mode: u32,
    /// Owner as the image has it (the id inside the build's user namespace).
    pub uid: u32,
    /// Group as the image has it.
    pub gid: u32,
    /// Modification time, seconds since the epoch (may be negative).
    pub mtime: i64,
    /// Nanoseconds part of `mtime`, 0 to 999,999,999.
    pub mtime_nanos: u32,
    /// Content length in bytes for a regular file, else 0.
    pub size: u64,
    /// Extended attributes sorted by name, overlay's own and `user.img.*` never among them.
    pub xattrs: Vec<Xattr>,
}

impl Entry {
    /// Makes of a file's entry one of a further name, `target` being its first one in the layer.
    pub fn become_link(&mut self, target: Vec<u8>) {
        self.kind = Kind::Hardlink(target);
        self.size = 0;
        self.xattrs.clear();
    }
}

/// Prefix of an OCI whiteout: `.wh.<name>` hides `<name>` of the layers below.
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The OCI opaque marker: hides every child of the layers below.
pub const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// On disk (overlay's own form): an opaque directory carries this xattr with the value `y`.
pub const XATTR_OPAQUE: &str = "user.overlay.opaque";
/// On disk, where a whiteout device is refused (a store on an overlay): an empty regular file with
/// this xattr is a whiteout, in a folder whose [`XATTR_OPAQUE`] is `x`. Overlay's own second form
/// (Linux 6.7).
pub const XATTR_WHITEOUT: &str = "user.overlay.whiteout";
/// On disk: what could not be owned or made for want of ids or privilege. A regular file or
/// directory carries `uid:gid:mode:major:minor` (decimal, decimal, octal `st_mode` with the type
/// bits, decimal, decimal); reading a layer directory gives these values in place of `stat`'s.
pub const XATTR_OVERRIDE: &str = "user.img.override";
