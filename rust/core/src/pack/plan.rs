//! [`Plan`]: the entries of a layer directory in the tar's order, each made when its turn comes.

use super::settle_time;
use crate::entry::{Entry, Kind, WHITEOUT_OPAQUE, WHITEOUT_PREFIX};
use crate::first_names::FirstNames;
use crate::inventory::{self, At, Inventory};
use crate::pipeline::{self, Entries};

/// The entries of the layer.
pub struct Plan {
    inventory: Inventory,
    items: Vec<Item>,
    links: FirstNames,
    clamp_mtime: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    at: At,
    what: What,
}

/// What an entry says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// That it is there.
    Object,
    /// That its name is gone.
    Whiteout,
    /// That the folder hides what is below it.
    Opaque,
}

impl Plan {
    /// Puts what a walk found in order.
    pub fn new(inventory: Inventory, clamp_mtime: Option<i64>) -> Self {
        let mut items = Vec::with_capacity(inventory.count());
        let mut linked = Vec::new();
        let mut tour = inventory.tour();
        while let Some(at) = tour.next() {
            let is_whiteout = inventory.has(at, inventory::WHITEOUT);
            let what = if is_whiteout {
                What::Whiteout
            } else {
                What::Object
            };
            if inventory.has(at, inventory::LINKED) && !is_whiteout {
                let file = (inventory.look(at).dev, inventory.stamp(at).ino);
                linked.push((file, items.len() as u32));
            }
            items.push(Item { at, what });
            if inventory.is_opaque(at) {
                let what = What::Opaque;
                items.push(Item { at, what });
            }
        }
        Self {
            inventory,
            items,
            links: FirstNames::find(linked),
            clamp_mtime,
        }
    }
}

impl pipeline::Plan for Plan {
    fn count(&self) -> usize {
        self.items.len()
    }

    fn size(&self, index: usize) -> u64 {
        let Item { at, what } = self.items[index];
        if what != What::Object || self.links.of(index).is_some() {
            return 0;
        }
        self.inventory.stamp(at).size
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

/// Makes the entries of a plan; those of one folder after one another share its path.
struct Maker<'a> {
    plan: &'a Plan,
    /// Folder of the entry made last.
    folder: Option<u32>,
    /// Length of its path, with its slash.
    stem: usize,
    entry: Entry,
}

impl Maker<'_> {
    fn set_path(&mut self, Item { at, what }: Item) {
        let (inventory, path) = (&self.plan.inventory, &mut self.entry.path);
        if self.folder != Some(at.folder) {
            path.clear();
            if let Some(up) = inventory.up(at) {
                inventory.append_path(up, path);
                path.push(b'/');
            }
            self.folder = Some(at.folder);
            self.stem = path.len();
        }
        path.truncate(self.stem);
        if what == What::Whiteout {
            path.extend_from_slice(WHITEOUT_PREFIX);
        }
        path.extend_from_slice(inventory.name(at));
        if what == What::Opaque {
            path.push(b'/');
            path.extend_from_slice(WHITEOUT_OPAQUE);
        }
    }
}

impl Entries for Maker<'_> {
    fn entry(&mut self, index: usize) -> &Entry {
        let item = self.plan.items[index];
        self.set_path(item);
        if item.what != What::Object {
            self.entry = whiteout(std::mem::take(&mut self.entry.path));
            return &self.entry;
        }
        self.plan.inventory.describe(item.at, &mut self.entry);
        settle_time(&mut self.entry, self.plan.clamp_mtime);
        if let Some(first) = self.plan.links.of(index) {
            let mut target = Vec::new();
            let first = self.plan.items[first].at;
            self.plan.inventory.append_path(first, &mut target);
            self.entry.become_link(target);
        }
        &self.entry
    }
}

fn whiteout(path: Vec<u8>) -> Entry {
    Entry {
        path,
        kind: Kind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nanos: 0,
        size: 0,
        xattrs: Vec::new(),
    }
}
