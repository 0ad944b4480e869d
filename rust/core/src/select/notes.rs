//! [`Notes`]: what a copy reads of files that nobody had digested before it.
//!
//! Where no cache could know a COPY, its files are copied first, and the key is made of what was
//! read on the way: [`Selection::recall`] before the copy, [`Noting::note`] for each file,
//! [`Selection::content_digest`] after it.

use std::sync::{Arc, Mutex, PoisonError};

use super::learned::{Learned, Reading, SETTLED};
use super::Selection;
use crate::error::Result;
use crate::inventory::At;
use crate::memo::{now_nanos, Clock, DigestMemo, Known, Stamp};

/// Files that the memo is told of at once.
const BATCH: usize = 1024;

/// What was read since [`Selection::recall`].
#[derive(Debug)]
pub(super) struct Notes {
    began: i64,
    clock: Clock,
    /// Empty until the first file was read.
    read: Mutex<Learned>,
}

impl Selection {
    /// Takes what the memo knows of the files, and reads none: a copy will, and notes it.
    pub fn recall(&self, memo: Option<&DigestMemo>) -> Result<()> {
        let notes = Notes {
            began: now_nanos(),
            clock: self.root.clock()?,
            read: Mutex::default(),
        };
        if let Some(memo) = memo {
            let remembered = self.remembered(memo);
            // Of a tree that it has never seen, nothing is kept beside what will be read.
            if remembered.any() {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                *known = Arc::new(remembered);
            }
        }
        *self.notes.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(notes));
        Ok(())
    }

    /// What takes the files that a copy reads; None where they were digested before it.
    pub fn notes(&self) -> Option<Noting<'_>> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = notes.as_ref().map(Arc::clone)?;
        Some(Noting {
            selection: self,
            notes,
        })
    }

    /// Ends the notes: tells the memo of them, and gives what is known with them.
    pub(super) fn noted(&self, memo: Option<&DigestMemo>) -> Option<Learned> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = notes.take()?;
        let mut read = notes.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = std::mem::take(&mut *read);
        if let Some(memo) = memo {
            let mut batch = Vec::with_capacity(BATCH);
            self.each_file(|at, _| {
                let learnt = known.of(&self.inventory, at);
                batch.extend(learnt.map(|learnt| (learnt.state, learnt.known)));
                if batch.len() == BATCH {
                    memo.record(notes.began, notes.clock, batch.drain(..));
                }
            });
            memo.record(notes.began, notes.clock, batch.drain(..));
        }
        let before = self.known();
        if known.is_empty() {
            known = Learned::new(self.inventory.slots());
        }
        known.fill_from(&before);
        Some(known)
    }

    /// What the memo knows of the files.
    pub(super) fn remembered(&self, memo: &DigestMemo) -> Learned {
        let inventory = &self.inventory;
        let mut known = Learned::new(inventory.slots());
        let asked = inventory.files_by_inode();
        let stamp = |slot| inventory.stamp_in(slot);
        memo.find(&asked, stamp, |slot, found| known.set(slot, found, SETTLED));
        known
    }
}

/// Takes what a copy reads; see [`Selection::notes`].
#[derive(Debug)]
pub struct Noting<'a> {
    selection: &'a Selection,
    notes: Arc<Notes>,
}

impl Noting<'_> {
    /// Notes a file that was read whole, in the state that it had when it was opened.
    pub fn note(&self, at: At, state: Stamp, known: Known) {
        let (selection, notes) = (self.selection, &self.notes);
        let mut read = notes.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.is_empty() {
            *read = Learned::new(selection.inventory.slots());
        }
        let reading = Reading { at, state, known };
        selection.take_over(&reading, &mut read, notes.clock, notes.began);
    }
}
