//! [`Planner`]: goes over the sources of a COPY, and refuses what cannot be copied.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::FileType;

use super::plan::{is_within, Item, Plan};
use super::Request;
use crate::chmod::ModeChange;
use crate::entry::Entry;
use crate::error::Result;
use crate::first_names::FirstNames;
use crate::pack::{is_whiteout_name, settle_time};
use crate::place::{refuse, Place};
use crate::select::Selection;
use crate::stack::Stack;

/// Makes a [`Plan`].
pub struct Planner<'a> {
    /// `--chmod`.
    pub mode: Option<ModeChange>,
    stack: &'a Stack,
    plan: Plan<'a>,
}

impl<'a> Planner<'a> {
    /// Begins one for a place, with nothing in it.
    pub fn new(
        stack: &'a Stack,
        request: &'a Request,
        sources: &'a [&'a Selection],
        place: Place,
    ) -> Self {
        Self {
            mode: None,
            stack,
            plan: Plan {
                sources,
                request,
                mode: None,
                place,
                items: Vec::new(),
                given: Vec::new(),
                moved: HashMap::new(),
                links: FirstNames::default(),
            },
        }
    }

    /// Adds the folders that lead to the place.
    pub fn add_parents(&mut self, folders: Vec<Entry>) {
        for entry in folders {
            let item = self.given(entry);
            self.plan.items.push(item);
        }
    }

    /// A folder that comes from no source.
    fn given(&mut self, mut entry: Entry) -> Item {
        settle_time(&mut entry, self.plan.request.clamp_mtime);
        self.plan.given.push(entry);
        Item::given(self.plan.given.len() - 1)
    }

    /// Adds one source's objects. `missing`: the destination folder is not there yet.
    pub fn add_source(&mut self, number: u32, missing: bool) -> Result<()> {
        let source = self.plan.sources[number as usize];
        self.plan.items.reserve_exact(source.count());
        // Folders of the layers below that this source copies into; a name is looked up below
        // only where its folder is one of them.
        let mut merged: Vec<Vec<u8>> = Vec::new();
        if !missing {
            merged.push(self.plan.place.folder.clone());
        }
        let mut tour = source.tour();
        let mut path = Vec::new();
        while let Some(at) = tour.next() {
            self.plan.place.put(tour.dest(), &mut path);
            check_name(&path)?;
            let parent = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            while merged
                .last()
                .is_some_and(|folder| !is_within(&path[..parent], folder))
            {
                merged.pop();
            }
            if merged
                .last()
                .is_some_and(|folder| folder[..] == path[..parent])
            {
                let file_type = source.look(at).file_type();
                self.check_over(&path, file_type, &mut merged)?;
            }
            self.plan.items.push(Item { source: number, at });
        }
        Ok(())
    }

    /// Adds what an archive holds, as if it were extracted over the layers below with the
    /// destination as its root. Each entry, a folder's too, replaces what is no folder; a folder
    /// without an entry is looked for, through symlinks, and keeps what it is if it is there.
    pub fn add_unpacked(&mut self, number: u32) -> Result<()> {
        let source = self.plan.sources[number as usize];
        let mut standing: Vec<Item> = Vec::new();
        let mut tour = source.tour();
        let mut path = Vec::new();
        while let Some(at) = tour.next() {
            let item = Item { source: number, at };
            path.clear();
            self.plan.append_path(item, &mut path);
            check_name(&path)?;
            if source.implied(tour.path()) {
                if let Some((real, folders)) = self.standing(&path)? {
                    let folders = folders.into_iter().map(|entry| self.given(entry));
                    standing.extend(folders);
                    if real != path {
                        self.plan.moved.insert((number, at), real);
                    }
                    continue;
                }
            }
            self.plan.items.push(item);
        }
        // First, so that an entry for one of them stands.
        self.plan.items.splice(0..0, standing);
        Ok(())
    }

    /// Where a folder is that an archive takes for granted, and the folders that lead there; None
    /// where it has to be made.
    fn standing(&self, path: &[u8]) -> Result<Option<(Vec<u8>, Vec<Entry>)>> {
        let as_path = |path| Path::new(OsStr::from_bytes(path));
        let Some(found) = self.stack.lookup(as_path(path))? else {
            return Ok(None);
        };
        let mut real = path.to_vec();
        if found.is_symlink() {
            // An earlier archive of this ADD may have put a folder in its place.
            if self.plan.has(path) {
                return Ok(Some((real, Vec::new())));
            }
            let below = as_path(&self.plan.place.folder);
            let led = self.stack.resolve_below(below, as_path(path))?;
            real = led.into_os_string().into_vec();
        }
        let there = Place {
            folder: real.clone(),
            name: None,
        };
        let (folders, _) = there.folders(self.stack, (0, 0), 0o755, 0)?;
        Ok(Some((real, folders)))
    }

    /// Refuses a folder onto a file and a file onto a folder of the layers below.
    fn check_over(
        &self,
        path: &[u8],
        file_type: FileType,
        merged: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let Some(found) = self.stack.lookup(Path::new(OsStr::from_bytes(path)))? else {
            return Ok(());
        };
        match (file_type == FileType::Directory, found.is_dir()) {
            (true, true) => merged.push(path.to_vec()),
            (true, false) => return Err(refuse(path, "cannot copy a folder onto a file")),
            (false, true) => return Err(refuse(path, "cannot copy a file onto a folder")),
            (false, false) => {}
        }
        Ok(())
    }

    /// Puts the plan in order.
    pub fn finish(self) -> Result<Plan<'a>> {
        let mut plan = self.plan;
        plan.mode = self.mode;
        let one_walk = match plan.sources {
            [] => true,
            [source] => source.inventory().is_in_order() && !source.unpacked(),
            _ => false,
        };
        if !one_walk {
            plan.sort()?;
        }
        plan.find_links();
        Ok(plan)
    }
}

fn check_name(path: &[u8]) -> Result<()> {
    if is_whiteout_name(path) {
        let reason = "a name that begins with .wh. means a deletion in a layer";
        return Err(refuse(path, reason));
    }
    Ok(())
}
