//! [`Learned`]: what is known of each file of a selection, in 33 bytes.

use std::collections::HashMap;

use crate::inventory::{At, Inventory};
use crate::memo::{Known, Stamp};

/// What is known of one file.
#[derive(Debug, Clone, Copy)]
pub struct Learnt {
    /// The state of the file that it holds for.
    pub state: Stamp,
    /// Its content.
    pub known: Known,
    /// A later change of the file would show in its state (see [`crate::memo::Clock::settled`]).
    pub settled: bool,
}

/// Something is known of the file.
const KNOWN: u8 = 1;
/// See [`Learnt::settled`].
pub(super) const SETTLED: u8 = 2;
/// It has extended attributes.
const XATTRS: u8 = 4;
/// Its state was another one when it was read than when the tree was walked.
const MOVED: u8 = 8;

/// What is known of each file of a selection, by slot.
#[derive(Debug, Default)]
pub struct Learned {
    digests: Vec<[u8; 32]>,
    notes: Vec<u8>,
    moved: HashMap<u32, Stamp>,
}

impl Learned {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            digests: vec![[0; 32]; slots],
            notes: vec![0; slots],
            moved: HashMap::new(),
        }
    }

    /// True where nothing was asked yet.
    pub(super) fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// Is anything known?
    pub(super) fn any(&self) -> bool {
        self.notes.iter().any(|notes| notes & KNOWN != 0)
    }

    /// Has any file extended attributes?
    pub(super) fn any_xattrs(&self) -> bool {
        self.notes.iter().any(|notes| notes & XATTRS != 0)
    }

    /// What is known of one object.
    pub fn of(&self, inventory: &Inventory, at: At) -> Option<Learnt> {
        let slot = inventory.slot(at);
        let notes = *self.notes.get(slot)?;
        if notes & KNOWN == 0 {
            return None;
        }
        let moved = (notes & MOVED != 0).then(|| self.moved.get(&(slot as u32)).copied());
        Some(Learnt {
            state: moved.flatten().unwrap_or_else(|| inventory.stamp(at)),
            known: Known {
                digest: self.digests[slot],
                has_xattrs: notes & XATTRS != 0,
            },
            settled: notes & SETTLED != 0,
        })
    }

    pub(super) fn digest(&self, slot: usize) -> Option<&[u8; 32]> {
        let notes = self.notes.get(slot).copied().unwrap_or_default();
        (notes & KNOWN != 0).then(|| &self.digests[slot])
    }

    pub(super) fn has_xattrs(&self, slot: usize) -> bool {
        self.notes
            .get(slot)
            .is_some_and(|notes| notes & XATTRS != 0)
    }

    pub(super) fn set(&mut self, slot: u32, known: Known, notes: u8) {
        let xattrs = if known.has_xattrs { XATTRS } else { 0 };
        self.digests[slot as usize] = known.digest;
        self.notes[slot as usize] = KNOWN | notes | xattrs;
    }

    /// Notes what was read of a file that the walk saw as `walked`.
    pub(super) fn set_read(&mut self, slot: u32, walked: &Stamp, read: &Reading, is_settled: bool) {
        let mut notes = if is_settled { SETTLED } else { 0 };
        if read.state != *walked {
            notes |= MOVED;
            self.moved.insert(slot, read.state);
        }
        self.set(slot, read.known, notes);
    }

    /// Takes over what is known elsewhere of files of which nothing is known here.
    pub(super) fn fill_from(&mut self, other: &Self) {
        for slot in 0..other.notes.len() as u32 {
            self.fill(slot, other.whole(slot));
        }
    }

    /// Takes over for one name of a file what is known of another.
    pub(super) fn set_same(&mut self, slot: u32, other: u32) {
        self.fill(slot, self.whole(other));
    }

    /// All that is kept of one object.
    fn whole(&self, slot: u32) -> ([u8; 32], u8, Option<Stamp>) {
        let place = slot as usize;
        let state = self.moved.get(&slot).copied();
        (self.digests[place], self.notes[place], state)
    }

    /// Takes that over, where something is known there and nothing here.
    fn fill(&mut self, slot: u32, (digest, notes, state): ([u8; 32], u8, Option<Stamp>)) {
        let place = slot as usize;
        if self.notes[place] & KNOWN == 0 && notes & KNOWN != 0 {
            self.digests[place] = digest;
            self.notes[place] = notes;
            self.moved.extend(state.map(|state| (slot, state)));
        }
    }
}

/// What was read of one file.
pub(super) struct Reading {
    pub(super) at: At,
    pub(super) state: Stamp,
    pub(super) known: Known,
}
