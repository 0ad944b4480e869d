//! [`Inventory`]: what walks found of a tree, packed: folders, and in each what it holds, by name.
//!
//! `select` and `pack` fill one, a [`Part`] a thread, and go over it in the order of a tar
//! ([`Inventory::tour`]) or by [`At`]. An object costs [`Object`]'s 48 bytes and its name, however
//! deep it lies: no path is kept, and nothing is allocated for one alone. What few objects have
//! (extended attributes, a time out of range) lies in tables beside. Nothing is read here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::entry::Xattr;
use crate::memo::Stamp;

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
const FOLDER: u8 = 2;
/// It is left out, and counts for nothing.
const OUT: u8 = 4;
/// A folder that is wanted only for something below it.
pub const HIDDEN: u8 = 8;
/// Overlay's whiteout.
pub const WHITEOUT: u8 = 16;
/// Something of it lies in the tables beside.
const RARE: u8 = 32;

/// One object of a folder.
#[derive(Debug, Clone, Copy, Default)]
struct Object {
    /// Where its name begins; a symlink's target follows it.
    name: u32,
    /// Number of its [`Look`].
    look: u32,
    /// Of a folder its number; of a symlink the length of its target.
    more: u32,
    length: u8,
    flags: u8,
    size: u64,
    ino: u64,
    /// Nanoseconds since the epoch, as in [`Stamp`].
    mtime: i64,
    ctime: i64,
}

/// What few objects have.
#[derive(Debug, Default)]
struct Rare {
    xattrs: Vec<Xattr>,
    /// The time in seconds, where it does not fit into nanoseconds.
    seconds: Option<i64>,
}

/// What one thread found.
#[derive(Debug, Default)]
pub struct Part {
    objects: Vec<Object>,
    names: Vec<u8>,
    looks: Vec<Look>,
    /// Numbers of the looks.
    numbers: HashMap<Look, u32>,
    last: u32,
    /// By where an object's name begins.
    rare: HashMap<u32, Rare>,
    /// Slots of the parts before.
    base: u32,
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

    fn number(&mut self, look: Look) -> u32 {
        if self.looks.get(self.last as usize) != Some(&look) {
            let next = self.looks.len() as u32;
            self.last = *self.numbers.entry(look).or_insert(next);
            if self.last == next {
                self.looks.push(look);
            }
        }
        self.last
    }

    fn name(&self, object: &Object) -> &[u8] {
        &self.names[span(object.name, usize::from(object.length))]
    }

    fn shrink(&mut self) {
        self.numbers = HashMap::new();
        self.objects.shrink_to_fit();
        self.names.shrink_to_fit();
    }
}

fn span(start: u32, length: usize) -> Range<usize> {
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
        let mut part = Part {
            base: self.slots,
            ..Part::default()
        };
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
        Tour {
            inventory: self,
            next_top: 0,
            open: Vec::new(),
            path: Vec::new(),
            prefix: 0,
            renamed: None,
        }
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
        Tour {
            next_top: tops,
            ..self.tour()
        }
    }

    /// Leaves out the folders of the last walk that are there for something below them only, where
    /// nothing below them is wanted.
    ///
    /// `left_out` has each folder's paths that the walk itself left out, by the folder's number
    /// from that of the walk's first on, and gets those of the whole walk: of a folder that is out
    /// as a whole its own alone.
    pub fn prune(&mut self, mut left_out: Option<&mut LeftOut>) {
        let Some(top) = self.tops.last() else {
            return;
        };
        let (folder, mut path) = (top.folder, top.source.clone());
        self.prune_below(folder, &mut path, left_out.as_deref_mut());
    }

    /// Tells whether something of a folder is wanted.
    fn prune_below(
        &mut self,
        number: u32,
        path: &mut Vec<u8>,
        mut left_out: Option<&mut LeftOut>,
    ) -> bool {
        if let Some(left_out) = left_out.as_deref_mut() {
            left_out.enter(number);
        }
        let (part, range) = self.folders[number as usize].objects();
        let mut wanted = false;
        for index in range {
            let object = self.parts[part].objects[index];
            if object.flags & FOLDER == 0 {
                wanted = true;
                continue;
            }
            let (stem, known) = (path.len(), left_out.as_ref().map(|one| one.all.len()));
            append_name(self.parts[part].name(&object), path);
            let has_some = self.prune_below(object.more, path, left_out.as_deref_mut());
            if object.flags & HIDDEN != 0 && !has_some {
                self.parts[part].objects[index].flags |= OUT;
                self.count -= 1;
                if let (Some(left_out), Some(known)) = (left_out.as_deref_mut(), known) {
                    left_out.all.truncate(known);
                    left_out.all.push(path.clone());
                }
            } else {
                wanted = true;
            }
            path.truncate(stem);
        }
        wanted
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

    /// The slots of the regular files, in the order of their devices and inodes.
    pub fn files_by_inode(&self) -> Vec<u32> {
        let mut devices: Vec<u64> = Vec::new();
        for part in &self.parts {
            devices.extend(part.looks.iter().map(|look| look.dev));
        }
        devices.sort_unstable();
        devices.dedup();
        let mut slots = Vec::new();
        for dev in devices {
            let mut files = Vec::new();
            for part in &self.parts {
                let is_wanted = |look: &Look| look.dev == dev && look.file_type().is_file();
                let wanted: Vec<bool> = part.looks.iter().map(is_wanted).collect();
                let objects = part.objects.iter().zip(part.base..);
                let objects = objects.filter(|(object, _)| {
                    object.flags & (FOLDER | OUT) == 0 && wanted[object.look as usize]
                });
                files.extend(objects.map(|(object, slot)| (object.ino, slot)));
            }
            files.sort_unstable();
            slots.extend(files.into_iter().map(|(_, slot)| slot));
        }
        slots
    }

    /// The identity of the object of a slot.
    pub fn stamp_in(&self, slot: u32) -> Stamp {
        let part = self.parts.partition_point(|part| part.base <= slot);
        // Parts without an object share their base with the next one: the last of them has it.
        let part = &self.parts[part.saturating_sub(1)];
        stamp_of(part, &part.objects[(slot - part.base) as usize])
    }
}

fn stamp_of(part: &Part, object: &Object) -> Stamp {
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

/// What walks left out, see [`Inventory::prune`].
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Of each folder of the walk that is being pruned.
    pub found: Vec<Vec<Vec<u8>>>,
    /// Number of that walk's first folder.
    pub first: u32,
    /// All, each path from the root of the tree.
    pub all: Vec<Vec<u8>>,
}

impl LeftOut {
    fn enter(&mut self, folder: u32) {
        if let Some(found) = self.found.get_mut((folder - self.first) as usize) {
            self.all.append(found);
        }
    }
}

/// Goes over an inventory, see [`Inventory::tour`].
#[derive(Debug)]
pub struct Tour<'a> {
    inventory: &'a Inventory,
    next_top: usize,
    open: Vec<Level>,
    path: Vec<u8>,
    prefix: usize,
    renamed: Option<&'a [u8]>,
}

#[derive(Debug)]
struct Level {
    folder: u32,
    next: u32,
    stem: usize,
}

impl<'a> Tour<'a> {
    /// The next object.
    #[allow(clippy::should_implement_trait)] // what it shows of it is borrowed until the next one
    pub fn next(&mut self) -> Option<At> {
        loop {
            let Some(level) = self.open.last_mut() else {
                self.begin()?;
                continue;
            };
            let folder = &self.inventory.folders[level.folder as usize];
            if level.next == folder.count {
                self.open.pop();
                continue;
            }
            let at = At {
                folder: level.folder,
                place: level.next,
            };
            level.next += 1;
            let (part, object) = self.inventory.object(at);
            if object.flags & OUT != 0 {
                continue;
            }
            self.path.truncate(level.stem);
            append_name(part.name(object), &mut self.path);
            if object.flags & FOLDER != 0 {
                self.enter(object.more);
            }
            return Some(at);
        }
    }

    fn begin(&mut self) -> Option<()> {
        let top: &'a Top = self.inventory.tops.get(self.next_top)?;
        self.next_top += 1;
        self.path.clear();
        self.path.extend_from_slice(&top.source);
        self.prefix = self.path.len() + usize::from(!self.path.is_empty());
        self.renamed = top.renamed.as_deref();
        self.enter(top.folder);
        Some(())
    }

    fn enter(&mut self, folder: u32) {
        self.open.push(Level {
            folder,
            next: 0,
            stem: self.path.len(),
        });
    }

    /// Its path from the root of the tree.
    pub fn path(&self) -> &[u8] {
        self.renamed.unwrap_or(&self.path)
    }

    /// Its path below the folder that the walk began in.
    pub fn dest(&self) -> &[u8] {
        &self.path[self.prefix..]
    }
}

#[cfg(test)]
mod tests;
