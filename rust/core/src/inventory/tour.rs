//! [`Tour`]: the objects of an inventory, one after the other, each with its paths.

use super::part::{FOLDER, OUT};
use super::{append_name, At, Inventory, Top};

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
    /// Begins with the walk of that number.
    pub(super) fn new(inventory: &'a Inventory, next_top: usize) -> Self {
        Self {
            inventory,
            next_top,
            open: Vec::new(),
            path: Vec::new(),
            prefix: 0,
            renamed: None,
        }
    }

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
