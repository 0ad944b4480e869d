//! [`Plan`]: the entries of a layer directory in the tar's order, each made when its turn comes.

use rustix::fs::FileType;

use super::settle_time;
use crate::entry::{Entry, Kind, WHITEOUT_OPAQUE, WHITEOUT_PREFIX};
use crate::inventory::{self, At, Inventory};
use crate::pipeline::{self, Entries};

/// The entries of the layer.
pub struct Plan {
    inventory: Inventory,
    items: Vec<Item>,
    /// Further names of files: index, and that of the first name; by index.
    links: Vec<(u32, u32)>,
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
                linked.push((inventory.stamp(at).ino, items.len() as u32));
            }
            items.push(Item { at, what });
            if inventory.is_opaque(at) {
                let what = What::Opaque;
                items.push(Item { at, what });
            }
        }
        let links = links(&inventory, &items, linked);
        Self {
            inventory,
            items,
            links,
            clamp_mtime,
        }
    }

    fn first_name(&self, index: usize) -> Option<usize> {
        if self.links.is_empty() {
            return None;
        }
        let index = index as u32;
        let found = self.links.binary_search_by_key(&index, |&(index, _)| index);
        found.ok().map(|place| self.links[place].1 as usize)
    }
}

/// The further names among `linked`, inodes and indices of what has several names.
fn links(inventory: &Inventory, items: &[Item], mut linked: Vec<(u64, u32)>) -> Vec<(u32, u32)> {
    let dev = |index: u32| inventory.look(items[index as usize].at).dev;
    linked.sort_unstable();
    let mut links = Vec::new();
    for names in linked.chunk_by(|a, b| a.0 == b.0) {
        for (place, &(_, index)) in names.iter().enumerate().skip(1) {
            let first = names[..place].iter().find(|one| dev(one.1) == dev(index));
            links.extend(first.map(|&(_, first)| (index, first)));
        }
    }
    links.sort_unstable();
    links
}

impl pipeline::Plan for Plan {
    fn count(&self) -> usize {
        self.items.len()
    }

    fn size(&self, index: usize) -> u64 {
        let Item { at, what } = self.items[index];
        if what != What::Object || self.first_name(index).is_some() {
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

    /// Makes of an object what the layer has of it, but for its path.
    fn describe(&mut self, at: At) {
        let (inventory, entry) = (&self.plan.inventory, &mut self.entry);
        let look = inventory.look(at);
        let (major, minor) = look.device;
        entry.kind = match look.file_type() {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink(inventory.target(at).to_vec()),
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            _ => Kind::File,
        };
        (entry.mode, entry.uid, entry.gid) = (look.mode & 0o7777, look.uid, look.gid);
        entry.size = inventory.stamp(at).size;
        entry.mtime = inventory.seconds(at);
        entry.xattrs.clear();
        entry.xattrs.extend_from_slice(inventory.xattrs(at));
        settle_time(entry, self.plan.clamp_mtime);
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
        self.describe(item.at);
        if let Some(first) = self.plan.first_name(index) {
            let mut target = Vec::new();
            let first = self.plan.items[first].at;
            self.plan.inventory.append_path(first, &mut target);
            self.entry.kind = Kind::Hardlink(target);
            self.entry.size = 0;
            self.entry.xattrs.clear();
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
