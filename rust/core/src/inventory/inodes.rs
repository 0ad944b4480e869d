//! The files of an inventory in the order of their inodes: that in which the memo is asked.

use super::part::{stamp_of, Look, FOLDER, OUT};
use super::Inventory;
use crate::memo::Stamp;

impl Inventory {
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
