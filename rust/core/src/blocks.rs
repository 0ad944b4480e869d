//! [`Blocks`]: the compressed blocks of earlier blobs, found again by content.
//!
//! `compress` leaves an index beside each blob: which block stands where in it. A later blob asks
//! here before it compresses a block. A key is over all that decides a block's bytes (what the
//! encoder is, and the block with the window before it), so a block that is found is the one that
//! would have been made. Its bytes are compared with their BLAKE3 before they are given out: a
//! blob that rotted spoils no other. What is missing or broken here is never an error: the block is
//! compressed anew. Memory is bounded, whatever the store holds.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{IoContext, Result};

/// The beginning of an index, with its version.
const MAGIC: &[u8; 16] = b"img blocks 1\n\0\0\0";
/// Bytes of one block in it.
const RECORD: usize = 84;
/// The longest index that is read: 200 GB of tar.
const MAX_INDEX: u64 = 16 << 20;
/// Blocks that are remembered at once: some 64 GB of tar, and 10 MB of memory.
const MAX_BLOCKS: usize = 65_536;
/// What compression may add to a block that cannot be compressed.
const OVERHEAD: u64 = 64 << 10;

/// A BLAKE3.
pub type Sum = [u8; 32];

/// One block of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// What it is found by.
    pub key: Sum,
    /// Of its bytes in the blob.
    pub sum: Sum,
    /// Where those begin.
    pub offset: u64,
    /// How many they are.
    pub packed_length: u32,
    /// How many bytes of the tar.
    pub length: u32,
    /// CRC-32 of those (gzip's), or 0.
    pub crc: u32,
}

impl Block {
    /// A block of so many bytes of the tar, of which nothing else is known yet.
    pub fn of(length: u32) -> Self {
        Self {
            key: [0; 32],
            sum: [0; 32],
            offset: 0,
            packed_length: 0,
            length,
            crc: 0,
        }
    }

    fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.sum);
        out.extend_from_slice(&self.offset.to_le_bytes());
        for number in [self.packed_length, self.length, self.crc] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn read(record: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            key: record.get(..32)?.try_into().ok()?,
            sum: record.get(32..64)?.try_into().ok()?,
            offset: u64::from_le_bytes(record.get(64..72)?.try_into().ok()?),
            packed_length: number(72)?,
            length: number(76)?,
            crc: number(80)?,
        })
    }
}

/// Writes a blob's index; `form` says how the blob is compressed.
pub fn write_index(path: &Path, form: &Sum, blocks: &[Block]) -> Result<()> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + 64 + blocks.len() * RECORD);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(form);
    for block in blocks {
        block.append(&mut bytes);
    }
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    std::fs::write(path, bytes).at("write", path)
}

/// The blocks of an index; None where it is none, is broken, or is of another form.
fn read_index(path: &Path, form: &Sum) -> Option<Vec<Block>> {
    let mut file = File::open(path).ok()?;
    let mut head = [0; 48];
    file.read_exact(&mut head).ok()?;
    if &head[..16] != MAGIC || &head[16..] != form || file.metadata().ok()?.len() > MAX_INDEX {
        return None;
    }
    let mut rest = Vec::new();
    file.take(MAX_INDEX).read_to_end(&mut rest).ok()?;
    let records = rest.len().checked_sub(32)?;
    let mut sum = blake3::Hasher::new();
    sum.update(&head).update(&rest[..records]);
    if sum.finalize().as_bytes()[..] != rest[records..] || records % RECORD != 0 {
        return None;
    }
    rest[..records].chunks(RECORD).map(Block::read).collect()
}

/// An earlier blob, and the index beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The index.
    pub index: PathBuf,
    /// The blob.
    pub blob: PathBuf,
}

/// What is remembered. Safe for several threads.
#[derive(Debug, Default)]
pub struct Blocks {
    found: HashMap<Sum, (usize, Block)>,
    blobs: Vec<Blob>,
}

/// A blob that is opened when the first block of it is wanted; None where it cannot be.
#[derive(Debug)]
struct Blob {
    path: PathBuf,
    file: OnceLock<Option<File>>,
}

impl Blocks {
    /// Reads the indexes of earlier blobs, in this order, until there are enough.
    pub fn load(earlier: &[Earlier], form: &Sum) -> Self {
        let mut blocks = Self::default();
        for one in earlier {
            if blocks.found.len() >= MAX_BLOCKS {
                break;
            }
            let Some(listed) = read_index(&one.index, form) else {
                continue;
            };
            let room = MAX_BLOCKS - blocks.found.len();
            for block in listed.into_iter().take(room) {
                let place = (blocks.blobs.len(), block);
                blocks.found.entry(block.key).or_insert(place);
            }
            blocks.blobs.push(Blob {
                path: one.blob.clone(),
                file: OnceLock::new(),
            });
        }
        blocks
    }

    /// Puts a block's compressed bytes into `out`, if they are known and are what they were.
    ///
    /// Args:
    ///     length: Bytes of the tar in it.
    /// Returns:
    ///     The block as it stands in the earlier blob; None where it has to be compressed.
    pub fn copy(&self, key: &Sum, length: usize, out: &mut Vec<u8>) -> Option<Block> {
        let (number, block) = self.found.get(key)?;
        let most = u64::from(block.length) + OVERHEAD;
        if block.length as usize != length || u64::from(block.packed_length) > most {
            return None;
        }
        let blob = &self.blobs[*number];
        let file = blob.file.get_or_init(|| File::open(&blob.path).ok());
        out.resize(block.packed_length as usize, 0);
        file.as_ref()?.read_exact_at(out, block.offset).ok()?;
        (blake3::hash(out).as_bytes() == &block.sum).then_some(*block)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const FORM: Sum = [7; 32];

    fn block(bytes: &[u8], offset: usize) -> Block {
        let part = &bytes[offset..offset + 100];
        Block {
            key: *blake3::hash(&part[..50]).as_bytes(),
            sum: *blake3::hash(part).as_bytes(),
            offset: offset as u64,
            packed_length: 100,
            length: 50,
            crc: 3,
        }
    }

    struct Case {
        _dir: tempfile::TempDir,
        earlier: [Earlier; 1],
        bytes: Vec<u8>,
        blocks: Vec<Block>,
    }

    fn case() -> Case {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..1000_u32).map(|n| (n * 7 % 251) as u8).collect();
        let blocks = vec![block(&bytes, 20), block(&bytes, 500)];
        let earlier = Earlier {
            index: dir.path().join("index"),
            blob: dir.path().join("blob"),
        };
        std::fs::write(&earlier.blob, &bytes).unwrap();
        write_index(&earlier.index, &FORM, &blocks).unwrap();
        Case {
            _dir: dir,
            earlier: [earlier],
            bytes,
            blocks,
        }
    }

    fn copied(case: &Case, form: &Sum, number: usize) -> Option<Vec<u8>> {
        let blocks = Blocks::load(&case.earlier, form);
        let mut out = vec![1, 2, 3];
        let found = blocks.copy(&case.blocks[number].key, 50, &mut out)?;
        assert_eq!(found, case.blocks[number]);
        Some(out)
    }

    #[test]
    fn a_block_is_found_again() {
        let case = case();
        assert_eq!(copied(&case, &FORM, 1).unwrap(), case.bytes[500..600]);
        assert!(copied(&case, &[8; 32], 1).is_none());
        let blocks = Blocks::load(&case.earlier, &FORM);
        let key = &case.blocks[0].key;
        assert!(blocks.copy(key, 49, &mut Vec::new()).is_none());
        assert!(blocks.copy(&[0; 32], 50, &mut Vec::new()).is_none());
    }

    #[test]
    fn a_rotten_blob_gives_nothing_and_its_sound_blocks_still_do() {
        let mut case = case();
        case.bytes[520] ^= 1;
        std::fs::write(&case.earlier[0].blob, &case.bytes).unwrap();
        assert!(copied(&case, &FORM, 1).is_none());
        assert!(copied(&case, &FORM, 0).is_some());
        std::fs::write(&case.earlier[0].blob, &case.bytes[..70]).unwrap();
        assert!(copied(&case, &FORM, 0).is_none());
        std::fs::remove_file(&case.earlier[0].blob).unwrap();
        assert!(copied(&case, &FORM, 0).is_none());
    }

    #[test]
    fn a_broken_index_is_no_index() {
        let case = case();
        let index = &case.earlier[0].index;
        let whole = std::fs::read(index).unwrap();
        for place in 0..whole.len() {
            let mut bad = whole.clone();
            bad[place] ^= 0x10;
            std::fs::write(index, &bad).unwrap();
            assert!(copied(&case, &FORM, 0).is_none(), "byte {place}");
            std::fs::write(index, &whole[..place]).unwrap();
            assert!(copied(&case, &FORM, 0).is_none(), "length {place}");
        }
        std::fs::remove_file(index).unwrap();
        assert!(copied(&case, &FORM, 0).is_none());
    }
}
