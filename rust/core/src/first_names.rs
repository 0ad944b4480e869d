//! [`FirstNames`]: which entries of a plan are further names of a file, and of which one.
//!
//! `pack` and `copy` each find out what the file is behind a name; eight bytes are kept of each
//! further name.

/// Further names: index, and that of the first name; by index.
#[derive(Debug, Default)]
pub struct FirstNames(Vec<(u32, u32)>);

impl FirstNames {
    /// Puts names together, each with what tells its file.
    pub fn find<F: Ord>(mut names: Vec<(F, u32)>) -> Self {
        names.sort_unstable();
        let mut found = Vec::new();
        for names in names.chunk_by(|one, other| one.0 == other.0) {
            let further = names[1..].iter().map(|&(_, index)| (index, names[0].1));
            found.extend(further);
        }
        found.sort_unstable();
        Self(found)
    }

    /// The index of a file's first name, by that of a further one; None for every other entry.
    pub fn of(&self, index: usize) -> Option<usize> {
        let found = self.0.binary_search_by_key(&(index as u32), |name| name.0);
        found.ok().map(|place| self.0[place].1 as usize)
    }

    /// The indices of the further names.
    pub fn further(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(|&(index, _)| index as usize)
    }
}
