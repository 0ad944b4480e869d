//! [`Part`]: what one thread of a walk found, as it finds it.
//!
//! The names lie behind one another, a symlink's target behind its name; what many objects share is
//! a [`Look`], kept once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::{At, Folder, TOP};
use crate::entry::Xattr;
use crate::memo::Stamp;

/// What many objects share: everything of `stat` but times, size and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Look {
    /// `st_mode`, with the type bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device numbers, or zeros.
    pub device: (u32, u32),
    /// Device of the file system.
    pub dev: u64,
}

impl Look {
    /// Takes it from the kernel's answer.
    pub fn of(stat: &Stat) -> Self {
        let is_device = matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::CharacterDevice | FileType::BlockDevice
        );
        let rdev = if is_device { stat.st_rdev } else { 0 };
        Self {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            device: (rustix::fs::major(rdev), rustix::fs::minor(rdev)),
            dev: stat.st_dev,
        }
    }

    /// Its type.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

/// It has other names, somewhere.
pub const LINKED: u8 = 1;
/// A folder: `more` is its number.
pub(super) const FOLDER: u8 = 2;
/// It is left out, and counts for nothing.
pub(super) const OUT: u8 = 4;
/// A folder that is wanted only for something below it.
pub const HIDDEN: u8 = 8;
/// Overlay's whiteout.
pub const WHITEOUT: u8 = 16;
/// Something of it lies in the tables beside.
pub(super) const RARE: u8 = 32;

/// One object of a folder.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Object {
    /// Where its name begins; a symlink's target follows it.
    pub(super) name: u32,
    /// Number of its [`Look`].
    pub(super) look: u32,
    /// Of a folder its number; of a symlink the length of its target.
    pub(super) more: u32,
    pub(super) length: u8,
    pub(super) flags: u8,
    pub(super) size: u64,
    pub(super) ino: u64,
    /// Nanoseconds since the epoch, as in [`Stamp`].
    pub(super) mtime: i64,
    pub(super) ctime: i64,
}

/// What few objects have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    pub(super) xattrs: Vec<Xattr>,
    /// The time in seconds, where it does not fit into nanoseconds.
    pub(super) seconds: Option<i64>,
}

/// What one thread found.
#[derive(Debug, Default)]
pub struct Part {
    pub(super) objects: Vec<Object>,
    pub(super) names: Vec<u8>,
    pub(super) looks: Vec<Look>,
    /// Numbers of the looks.
    numbers: HashMap<Look, u32>,
    last: u32,
    /// By where an object's name begins.
    pub(super) rare: HashMap<u32, Rare>,
    /// Slots of the parts before.
    pub(super) base: u32,
}

/// One object on its way into a part.
#[derive(Debug, Default)]
pub struct Found<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// A symlink's target.
    pub target: Cow<'a, [u8]>,
    /// What it looks like.
    pub look: Look,
    /// Its identity.
    pub stamp: Stamp,
    /// Modification time in whole seconds.
    pub seconds: i64,
    /// [`LINKED`] and [`WHITEOUT`].
    pub flags: u8,
    /// Extended attributes of the image.
    pub xattrs: Vec<Xattr>,
}

impl Part {
    /// Takes an object into the folder that is being read.
    ///
    /// Fails where there are more than four thousand million objects, or bytes of names.
    pub fn add(&mut self, found: Found<'_>) -> Result<(), Errno> {
        let name = self.remember(&[found.name, &found.target])?;
        let look = self.number(found.look);
        let fits = found.stamp.mtime.div_euclid(1_000_000_000) == found.seconds;
        let seconds = (!fits).then_some(found.seconds);
        let is_rare = seconds.is_some() || !found.xattrs.is_empty();
        if is_rare {
            let xattrs = found.xattrs;
            self.rare.insert(name, Rare { xattrs, seconds });
        }
        self.objects.push(Object {
            name,
            look,
            more: found.target.len() as u32,
            length: found.name.len() as u8,
            flags: found.flags | if is_rare { RARE } else { 0 },
            size: found.stamp.size,
            ino: found.stamp.ino,
            mtime: found.stamp.mtime,
            ctime: found.stamp.ctime,
        });
        Ok(())
    }

    /// Takes a folder that is visited later, as `number`.
    pub fn add_folder(&mut self, name: &[u8], number: usize, flags: u8) -> Result<(), Errno> {
        let more = u32::try_from(number).map_err(|_| Errno::OVERFLOW)?;
        let object = Object {
            name: self.remember(&[name])?,
            more,
            length: name.len() as u8,
            flags: flags | FOLDER,
            ..Object::default()
        };
        self.objects.push(object);
        Ok(())
    }

    /// Ends a folder whose objects begin at `start` ([`Part::len`] before the first of them), and
    /// sorts them. `part` is this part's place among those of the walk.
    pub fn close(&mut self, part: usize, start: usize, own: Own) -> Folder {
        let names = &self.names;
        let name = |object: &Object| &names[span(object.name, usize::from(object.length))];
        self.objects[start..].sort_unstable_by(|a, b| name(a).cmp(name(b)));
        let look = self.number(own.look);
        Folder {
            up: At {
                folder: TOP,
                place: 0,
            },
            part: part as u32,
            start: start as u32,
            count: (self.objects.len() - start) as u32,
            look,
            seconds: own.seconds,
            is_opaque: own.is_opaque,
            xattrs: (!own.xattrs.is_empty()).then(|| Box::new(own.xattrs)),
        }
    }

    /// Objects so far.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    fn remember(&mut self, words: &[&[u8]]) -> Result<u32, Errno> {
        let start = u32::try_from(self.names.len()).map_err(|_| Errno::OVERFLOW)?;
        if self.objects.len() >= TOP as usize {
            return Err(Errno::OVERFLOW);
        }
        for word in words {
            self.names.extend_from_slice(word);
        }
        Ok(start)
    }

    pub(super) fn number(&mut self, look: Look) -> u32 {
        if self.looks.get(self.last as usize) != Some(&look) {
            let next = self.looks.len() as u32;
            self.last = *self.numbers.entry(look).or_insert(next);
            if self.last == next {
                self.looks.push(look);
            }
        }
        self.last
    }

    pub(super) fn name(&self, object: &Object) -> &[u8] {
        &self.names[span(object.name, usize::from(object.length))]
    }

    pub(super) fn shrink(&mut self) {
        self.numbers = HashMap::new();
        self.objects.shrink_to_fit();
        self.names.shrink_to_fit();
    }
}

pub(super) fn span(start: u32, length: usize) -> Range<usize> {
    start as usize..start as usize + length
}

/// What a folder's visit says of the folder itself.
#[derive(Debug, Default)]
pub struct Own {
    /// What it looks like.
    pub look: Look,
    /// Modification time in whole seconds.
    pub seconds: i64,
    /// It hides what the layers below have.
    pub is_opaque: bool,
    /// Extended attributes of the image.
    pub xattrs: Vec<Xattr>,
}

pub(super) fn stamp_of(part: &Part, object: &Object) -> Stamp {
    if object.flags & FOLDER != 0 {
        return Stamp::default();
    }
    Stamp {
        dev: part.looks[object.look as usize].dev,
        ino: object.ino,
        size: object.size,
        mtime: object.mtime,
        ctime: object.ctime,
    }
}
