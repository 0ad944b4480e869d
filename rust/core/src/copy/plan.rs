//! [`Plan`]: every object of the layer that a COPY or WORKDIR makes, in the tar's order.
//!
//! `planner` fills it. Where two sources give one name, the later one stands. An object is twelve
//! bytes, its source and its place there; its [`Entry`] is made when it is written and read.
//! Nothing is written here.

use std::collections::{HashMap, HashSet};

use rustix::fs::FileType;

use super::Request;
use crate::chmod::ModeChange;
use crate::entry::{Entry, Kind};
use crate::error::Result;
use crate::first_names::FirstNames;
use crate::inventory::At;
use crate::pack::settle_time;
use crate::pipeline::{self, Entries};
use crate::place::{order, refuse, Place};
use crate::select::Selection;

/// In the place of a source's number: the object comes from none.
const GIVEN: u32 = u32::MAX;

/// One object of the layer to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Number of its source, or [`GIVEN`].
    pub source: u32,
    /// Its place there; of one that is given, the folder is its number.
    pub at: At,
}

impl Item {
    /// Something that comes from no source, by its number.
    pub fn given(number: usize) -> Self {
        let folder = number as u32;
        Self {
            source: GIVEN,
            at: At { folder, place: 0 },
        }
    }
}

/// What the layer will hold.
pub struct Plan<'a> {
    /// Where it comes from.
    pub sources: &'a [&'a Selection],
    pub(super) request: &'a Request,
    pub(super) mode: Option<ModeChange>,
    pub(super) place: Place,
    pub(super) items: Vec<Item>,
    /// Folders that come from no source: they were there, or are made on the way.
    pub(super) given: Vec<Entry>,
    /// Where what is in a folder of an archive goes, where that is not the folder's own path.
    pub(super) moved: HashMap<(u32, At), Vec<u8>>,
    pub(super) links: FirstNames,
}

impl Plan<'_> {
    /// Sorts it; where two sources give one name, the later one stands.
    pub(super) fn sort(&mut self) -> Result<()> {
        let mut items = std::mem::take(&mut self.items);
        let (mut one, mut other) = (Vec::new(), Vec::new());
        items.sort_by(|&a, &b| {
            one.clear();
            other.clear();
            self.append_path(a, &mut one);
            self.append_path(b, &mut other);
            order(&one, &other)
        });
        let (mut path, mut last_path) = (one, other);
        last_path.clear();
        let mut sorted: Vec<Item> = Vec::with_capacity(items.len());
        for item in items {
            path.clear();
            self.append_path(item, &mut path);
            if let Some(last) = sorted.last_mut() {
                let reason = "one source has a file here and another a folder";
                let last_is_folder = self.is_folder(*last);
                if last_path == path {
                    if last_is_folder != self.is_folder(item) {
                        return Err(refuse(&path, reason));
                    }
                    *last = item;
                    continue;
                }
                if !last_is_folder && is_within(&path, &last_path) {
                    return Err(refuse(&last_path, reason));
                }
            }
            sorted.push(item);
            std::mem::swap(&mut path, &mut last_path);
        }
        self.items = sorted;
        Ok(())
    }

    /// Makes further names of one file links to its first one in the plan, as it stands after a
    /// later source may have taken some of them.
    pub(super) fn find_links(&mut self) {
        let mut linked = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            let source = self.sources.get(item.source as usize);
            if let Some(file) = source.and_then(|source| source.hard_link(item.at)) {
                linked.push(((item.source, file), index as u32));
            }
        }
        self.links = FirstNames::find(linked);
    }

    /// The indices of all that is no regular file: folders, links, devices.
    pub fn others(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let indices = 0..self.items.len();
        indices.filter(|&index| {
            let item = self.items[index];
            item.source == GIVEN || !self.look_is(item, FileType::RegularFile)
        })
    }

    /// The indices of further names of files.
    pub fn links(&self) -> impl Iterator<Item = usize> + '_ {
        self.links.further()
    }

    /// Paths of the files that have further names in the layer.
    pub fn linked(&self) -> HashSet<Vec<u8>> {
        let mut entries = pipeline::Plan::entries(self);
        let targets = self
            .links()
            .filter_map(|index| match &entries.entry(index).kind {
                Kind::Hardlink(target) => Some(target.clone()),
                _ => None,
            });
        targets.collect()
    }

    /// Number of the source and place in it; None for what comes from no source, or is one more
    /// name of a file.
    pub fn origin(&self, index: usize) -> Option<(usize, At)> {
        let item = self.items[index];
        let is_own = item.source != GIVEN && self.links.of(index).is_none();
        is_own.then_some((item.source as usize, item.at))
    }

    /// Is there an object of this path?
    pub(super) fn has(&self, wanted: &[u8]) -> bool {
        let mut path = Vec::new();
        self.items.iter().any(|&item| {
            path.clear();
            self.append_path(item, &mut path);
            path == wanted
        })
    }

    fn look_is(&self, item: Item, file_type: FileType) -> bool {
        let source = self.sources[item.source as usize];
        source.look(item.at).file_type() == file_type
    }

    fn is_folder(&self, item: Item) -> bool {
        item.source == GIVEN || self.look_is(item, FileType::Directory)
    }

    /// Appends an object's path in the layer.
    pub(super) fn append_path(&self, item: Item, path: &mut Vec<u8>) {
        if item.source == GIVEN {
            path.extend_from_slice(&self.given[item.at.folder as usize].path);
            return;
        }
        let inventory = self.sources[item.source as usize].inventory();
        if self.place.name.is_some() || self.moved.is_empty() {
            let mut dest = Vec::new();
            inventory.append_dest(item.at, &mut dest);
            self.place.put(&dest, path);
            return;
        }
        match inventory.up(item.at) {
            None => path.extend_from_slice(&self.place.folder),
            Some(up) => match self.moved.get(&(item.source, up)) {
                Some(real) => path.extend_from_slice(real),
                None => self.append_path(Item { at: up, ..item }, path),
            },
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(inventory.name(item.at));
    }

    /// Makes of an object what the image will have of it, but for its path.
    fn describe(&self, item: Item, entry: &mut Entry) {
        let source = self.sources[item.source as usize];
        let at = item.at;
        source.inventory().describe(at, entry);
        let look = source.look(at);
        if let Some(owner) = self.request.owner {
            (entry.uid, entry.gid) = owner;
        } else if !self.request.keep_owner {
            (entry.uid, entry.gid) = (0, 0);
        }
        let is_folder = entry.kind == Kind::Directory;
        entry.mode = match (&self.mode, &entry.kind) {
            (_, Kind::Symlink(_)) => 0o777,
            (Some(change), _) if !source.unpacked() => change.apply(look.mode, is_folder),
            _ => look.mode & 0o7777,
        };
        settle_time(entry, self.request.clamp_mtime);
        if is_folder && source.unpacked() && source.implied(&source.path(at)) {
            (entry.uid, entry.gid) = (0, 0);
        }
    }
}

impl pipeline::Plan for Plan<'_> {
    fn count(&self) -> usize {
        self.items.len()
    }

    fn size(&self, index: usize) -> u64 {
        let Some((source, at)) = self.origin(index) else {
            return 0;
        };
        let inventory = self.sources[source].inventory();
        match inventory.look(at).file_type() {
            FileType::RegularFile => inventory.stamp(at).size,
            _ => 0,
        }
    }

    fn entries(&self) -> Box<dyn Entries + '_> {
        Box::new(Maker {
            plan: self,
            folder: None,
            stem: 0,
            entry: Entry::default(),
        })
    }
}

/// Makes the entries of a plan; files of one folder after one another share its path.
struct Maker<'a> {
    plan: &'a Plan<'a>,
    /// Source and folder of the entry made last, where its path is that folder's and its name.
    folder: Option<(u32, u32)>,
    /// Length of that path, with its slash.
    stem: usize,
    entry: Entry,
}

impl Maker<'_> {
    fn set_path(&mut self, item: Item) {
        let (plan, path) = (self.plan, &mut self.entry.path);
        let folder = (item.source, item.at.folder);
        if item.source != GIVEN && self.folder == Some(folder) {
            let inventory = plan.sources[item.source as usize].inventory();
            path.truncate(self.stem);
            path.extend_from_slice(inventory.name(item.at));
            return;
        }
        path.clear();
        plan.append_path(item, path);
        let keeps_names = item.source != GIVEN && plan.place.name.is_none();
        self.folder = keeps_names.then_some(folder);
        let slash = path.iter().rposition(|&byte| byte == b'/');
        self.stem = slash.map_or(0, |at| at + 1);
    }
}

impl Entries for Maker<'_> {
    fn entry(&mut self, index: usize) -> &Entry {
        let item = self.plan.items[index];
        if item.source == GIVEN {
            self.folder = None;
            self.entry
                .clone_from(&self.plan.given[item.at.folder as usize]);
            return &self.entry;
        }
        self.set_path(item);
        let Some(first) = self.plan.links.of(index) else {
            self.plan.describe(item, &mut self.entry);
            return &self.entry;
        };
        let first = self.plan.items[first];
        self.plan.describe(first, &mut self.entry);
        let mut target = Vec::new();
        self.plan.append_path(first, &mut target);
        self.entry.become_link(target);
        &self.entry
    }
}

/// Is `path` the folder itself, or below it?
pub fn is_within(path: &[u8], folder: &[u8]) -> bool {
    folder.is_empty()
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
