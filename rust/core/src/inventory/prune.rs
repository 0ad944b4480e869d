//! [`Inventory::prune`]: folders that a walk entered for what might be below them, and in vain.

use super::part::{FOLDER, HIDDEN, OUT};
use super::{append_name, Inventory};

impl Inventory {
    /// Leaves out the folders of the last walk that are there for something below them only, where
    /// nothing below them is wanted.
    ///
    /// `left_out` has each folder's paths that the walk itself left out, by the folder's number
    /// from that of the walk's first on, and gets those of the whole walk: of a folder that is out
    /// as a whole its own alone.
    pub fn prune(&mut self, left_out: Option<&mut LeftOut>) {
        let Some(top) = self.tops.last() else {
            return;
        };
        let (folder, mut path) = (top.folder, top.source.clone());
        self.prune_below(folder, &mut path, left_out);
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
