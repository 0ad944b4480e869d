//! [`Inventory`]: what walks found of a tree, packed: folders, and in each what it holds, by name.
//!
//! `select` and `pack` fill one, a [`Part`] a thread, and go over it in the order of a tar
//! ([`Inventory::tour`]) or by [`At`]. An object costs [`Object`]'s 48 bytes and its name, however
//! deep it lies: no path is kept, and nothing is allocated for one alone. What few objects have
//! (extended attributes, a time out of range) lies in tables beside. Nothing is read here.

mod describe;
mod inodes;
mod part;
mod prune;
mod tour;

use std::ops::Range;

use rustix::io::Errno;

use crate::entry::Xattr;
use crate::memo::Stamp;

pub use part::{Found, Look, Own, Part, HIDDEN, LINKED, WHITEOUT};
pub use prune::LeftOut;
pub use tour::Tour;

use part::{span, stamp_of, Object, FOLDER, RARE};

/// Where an object is: a folder, and the place among what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At {
    /// Number of its folder.
    pub folder: u32,
    /// Place in the folder, by name.
    pub place: u32,
}

/// In the place of a folder's number: what is above is no folder but one of the tops.
const TOP: u32 = u32::MAX;

/// One folder: what it is, and where its objects are.
#[derive(Debug)]
pub struct Folder {
    /// The folder as an object of the one above.
    up: At,
    part: u32,
    start: u32,
    count: u32,
    look: u32,
    seconds: i64,
    is_opaque: bool,
    #[allow(clippy::box_collection)] // nearly always absent, and a word is what that may cost
    xattrs: Option<Box<Vec<Xattr>>>,
}

/// Where a walk began.
#[derive(Debug)]
struct Top {
    folder: u32,
    /// Path of the folder from the root of the tree.
    source: Vec<u8>,
    /// Path of its one file, where that has another name than here.
    renamed: Option<Vec<u8>>,
    /// It is no walk, but objects that were named themselves.
    is_single: bool,
}

/// Folders and what is in them, from one walk or several.
#[derive(Debug, Default)]
pub struct Inventory {
    folders: Vec<Folder>,
    parts: Vec<Part>,
    tops: Vec<Top>,
    /// Objects of all parts.
    slots: u32,
    /// Objects that are not left out.
    count: usize,
}

impl Inventory {
    /// Takes over what a walk of the folder `source` found, its first folder first.
    pub fn adopt(
        &mut self,
        source: &[u8],
        folders: Vec<Folder>,
        parts: Vec<Part>,
    ) -> Result<(), Errno> {
        let (first, parts_before) = (self.folders.len(), self.parts.len() as u32);
        self.folders.reserve_exact(folders.len());
        for mut part in parts {
            part.base = self.slots;
            part.shrink();
            let count = u32::try_from(part.len()).map_err(|_| Errno::OVERFLOW)?;
            self.slots = self.slots.checked_add(count).ok_or(Errno::OVERFLOW)?;
            self.count += part.len();
            self.parts.push(part);
        }
        for mut folder in folders {
            folder.part += parts_before;
            self.folders.push(folder);
        }
        for number in first..self.folders.len() {
            let (part, range) = self.folders[number].objects();
            for (place, object) in self.parts[part].objects[range].iter_mut().enumerate() {
                if object.flags & FOLDER != 0 {
                    object.more += first as u32;
                    self.folders[object.more as usize].up = At {
                        folder: number as u32,
                        place: place as u32,
                    };
                }
            }
        }
        self.begin(Top {
            folder: first as u32,
            source: source.to_vec(),
            renamed: None,
            is_single: false,
        });
        Ok(())
    }

    /// Takes one object of the folder `source` that was named itself; `renamed` is its path where
    /// its name is another one. Those that follow one another in one folder share its record.
    pub fn add_single(
        &mut self,
        source: &[u8],
        renamed: Option<&[u8]>,
        found: Found<'_>,
    ) -> Result<(), Errno> {
        let last = self.tops.last().filter(|top| {
            let here = top.is_single && top.renamed.is_none() && top.source == source;
            here && renamed.is_none()
        });
        let folder = match last {
            Some(last) => last.folder,
            None => self.begin_single(source, renamed),
        };
        let folder = &mut self.folders[folder as usize];
        self.parts[folder.part as usize].add(found)?;
        folder.count += 1;
        self.slots = self.slots.checked_add(1).ok_or(Errno::OVERFLOW)?;
        self.count += 1;
        Ok(())
    }

    /// Begins a record, and a part of its own, for objects that are named themselves.
    fn begin_single(&mut self, source: &[u8], renamed: Option<&[u8]>) -> u32 {
        let mut part = Part::default();
        part.base = self.slots;
        let number = self.folders.len() as u32;
        self.folders
            .push(part.close(self.parts.len(), 0, Own::default()));
        self.parts.push(part);
        self.begin(Top {
            folder: number,
            source: source.to_vec(),
            renamed: renamed.map(<[u8]>::to_vec),
            is_single: true,
        });
        number
    }

    fn begin(&mut self, top: Top) {
        self.folders[top.folder as usize].up = At {
            folder: TOP,
            place: self.tops.len() as u32,
        };
        self.tops.push(top);
    }

    /// Objects, but for those that are left out.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Folders of all walks.
    pub fn folders(&self) -> usize {
        self.folders.len()
    }

    /// Bytes that it holds in memory.
    pub fn held_bytes(&self) -> usize {
        let parts = self.parts.iter().map(|part| {
            part.objects.capacity() * size_of::<Object>()
                + part.names.capacity()
                + part.looks.capacity() * size_of::<Look>()
        });
        parts.sum::<usize>() + self.folders.capacity() * size_of::<Folder>()
    }

    /// Numbers for objects that are below this, each object's its own ([`Inventory::slot`]).
    pub fn slots(&self) -> usize {
        self.slots as usize
    }

    /// The number of an object among all.
    pub fn slot(&self, at: At) -> usize {
        let folder = &self.folders[at.folder as usize];
        (self.parts[folder.part as usize].base + folder.start + at.place) as usize
    }

    fn object(&self, at: At) -> (&Part, &Object) {
        let folder = &self.folders[at.folder as usize];
        let part = &self.parts[folder.part as usize];
        (part, &part.objects[(folder.start + at.place) as usize])
    }

    fn below(&self, object: &Object) -> Option<&Folder> {
        (object.flags & FOLDER != 0).then(|| &self.folders[object.more as usize])
    }

    /// What an object looks like.
    pub fn look(&self, at: At) -> &Look {
        let (part, object) = self.object(at);
        self.look_of(part, object)
    }

    fn look_of<'a>(&'a self, part: &'a Part, object: &Object) -> &'a Look {
        match self.below(object) {
            Some(folder) => &self.parts[folder.part as usize].looks[folder.look as usize],
            None => &part.looks[object.look as usize],
        }
    }

    /// Its identity; that of a folder is not kept.
    pub fn stamp(&self, at: At) -> Stamp {
        let (part, object) = self.object(at);
        stamp_of(part, object)
    }

    /// Modification time in whole seconds, rounded down.
    pub fn seconds(&self, at: At) -> i64 {
        let (part, object) = self.object(at);
        if let Some(folder) = self.below(object) {
            return folder.seconds;
        }
        let rare = (object.flags & RARE != 0).then(|| part.rare.get(&object.name));
        let rare = rare.flatten().and_then(|rare| rare.seconds);
        rare.unwrap_or_else(|| object.mtime.div_euclid(1_000_000_000))
    }

    /// Extended attributes, where the walk read them.
    pub fn xattrs(&self, at: At) -> &[Xattr] {
        let (part, object) = self.object(at);
        if let Some(folder) = self.below(object) {
            return folder.xattrs.as_deref().map_or(&[], Vec::as_slice);
        }
        let rare = (object.flags & RARE != 0).then(|| part.rare.get(&object.name));
        rare.flatten().map_or(&[], |rare| rare.xattrs.as_slice())
    }

    /// Its name.
    pub fn name(&self, at: At) -> &[u8] {
        let (part, object) = self.object(at);
        part.name(object)
    }

    /// A symlink's target; empty for what is none.
    pub fn target(&self, at: At) -> &[u8] {
        let (part, object) = self.object(at);
        if object.flags & FOLDER != 0 {
            return &[];
        }
        &part.names[span(object.name + u32::from(object.length), object.more as usize)]
    }

    /// Is one of these flags set?
    pub fn has(&self, at: At, flags: u8) -> bool {
        self.object(at).1.flags & flags != 0
    }

    /// True for a folder that hides what the layers below have.
    pub fn is_opaque(&self, at: At) -> bool {
        let (_, object) = self.object(at);
        self.below(object).is_some_and(|folder| folder.is_opaque)
    }

    /// Where the folder itself is that an object lies in; None below a top.
    pub fn up(&self, at: At) -> Option<At> {
        let up = self.folders[at.folder as usize].up;
        (up.folder != TOP).then_some(up)
    }

    /// How many objects its folder holds.
    pub fn siblings(&self, at: At) -> usize {
        self.folders[at.folder as usize].count as usize
    }

    /// The path from the root of the tree of the folder that it lies in; None where the object has
    /// another name there.
    pub fn folder_path(&self, at: At) -> Option<Vec<u8>> {
        let up = self.folders[at.folder as usize].up;
        let mut path = Vec::new();
        if up.folder != TOP {
            self.append_path(up, &mut path);
            return Some(path);
        }
        let top = &self.tops[up.place as usize];
        top.renamed.is_none().then(|| top.source.clone())
    }

    /// Appends its path from the root of the tree.
    pub fn append_path(&self, at: At, path: &mut Vec<u8>) {
        let up = self.folders[at.folder as usize].up;
        if up.folder == TOP {
            let top = &self.tops[up.place as usize];
            if let Some(renamed) = &top.renamed {
                path.extend_from_slice(renamed);
                return;
            }
            path.extend_from_slice(&top.source);
        } else {
            self.append_path(up, path);
        }
        append_name(self.name(at), path);
    }

    /// Appends its path below the folder that the walk began in.
    pub fn append_dest(&self, at: At, path: &mut Vec<u8>) {
        if let Some(up) = self.up(at) {
            self.append_dest(up, path);
        }
        append_name(self.name(at), path);
    }

    /// All objects but those left out, a folder before what is in it, each folder's by name.
    pub fn tour(&self) -> Tour<'_> {
        self.tour_from(0)
    }

    /// The number of walks and runs of single names that it was made of.
    pub fn tops(&self) -> usize {
        self.tops.len()
    }

    /// Is a tour's order that of a tar? Not where walks may have brought one folder's objects both.
    pub fn is_in_order(&self) -> bool {
        match &self.tops[..] {
            [] => true,
            [top] => !top.is_single || self.count < 2,
            _ => false,
        }
    }

    /// The same, over what came after `tops` were there.
    pub fn tour_from(&self, tops: usize) -> Tour<'_> {
        Tour::new(self, tops)
    }

    /// Gives each object of the last walk the mode that `mode` says, given its path and its mode
    /// on disk; tells whether one got another.
    pub fn change_modes(&mut self, tops: usize, mode: impl Fn(&[u8], u32) -> u32) -> bool {
        let mut changes = Vec::new();
        let mut tour = self.tour_from(tops);
        while let Some(at) = tour.next() {
            let look = *self.look(at);
            let wanted = mode(tour.path(), look.mode);
            if wanted != look.mode {
                changes.push((at, wanted));
            }
        }
        for &(at, mode) in &changes {
            self.change_mode(at, mode);
        }
        !changes.is_empty()
    }

    fn change_mode(&mut self, at: At, mode: u32) {
        let look = Look {
            mode,
            ..*self.look(at)
        };
        let (_, &object) = self.object(at);
        if object.flags & FOLDER != 0 {
            let folder = &mut self.folders[object.more as usize];
            folder.look = self.parts[folder.part as usize].number(look);
        } else {
            let folder = &self.folders[at.folder as usize];
            let (part, index) = (folder.part as usize, (folder.start + at.place) as usize);
            let number = self.parts[part].number(look);
            self.parts[part].objects[index].look = number;
        }
    }
}

fn append_name(name: &[u8], path: &mut Vec<u8>) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

impl Folder {
    fn objects(&self) -> (usize, Range<usize>) {
        (self.part as usize, span(self.start, self.count as usize))
    }
}

#[cfg(test)]
mod tests;
