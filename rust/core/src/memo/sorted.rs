//! [`Sorted`]: digests of files in one file, in the order of their identities.
//!
//! Questions in that order read each part of it once, and the parts between not at all. Each part
//! is believed only with its sum: a broken one holds nothing. [`Writing`] makes such a file from
//! its beginning to its end.
//!
//! Format, version 2, little-endian: magic, generation `u32`, count `u32`, BLAKE3 of these and of
//! the index; blocks of [`BLOCK`] records of [`RECORD`] bytes, the last one shorter, each with its
//! BLAKE3 behind it; the index: of each block, device and inode of its first record.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{Known, Stamp, Value};

const MAGIC: &[u8; 8] = b"imgmemo2";
const SUM: usize = 32;
const HEAD: usize = MAGIC.len() + 8 + SUM;
const RECORD: usize = 5 * 8 + 32 + 8;
/// Records of one block: some 20 kB.
const BLOCK: usize = 256;
const BLOCK_BYTES: usize = BLOCK * RECORD + SUM;
const INDEX: usize = 16;

/// A file of records.
#[derive(Debug)]
pub struct Sorted {
    file: File,
    generation: u32,
    count: usize,
    /// Device and inode of each block's first record.
    index: Vec<(u64, u64)>,
    /// A bit for each record that was asked for.
    used: Vec<u64>,
}

impl Sorted {
    /// Opens a file; None where it is missing, broken, or none.
    pub fn open(path: &Path) -> Option<Self> {
        Self::read(File::open(path).ok()?)
    }

    fn read(file: File) -> Option<Self> {
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).ok()?;
        let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let (generation, count) = (number(MAGIC.len())?, number(MAGIC.len() + 4)? as usize);
        if !head.starts_with(MAGIC) {
            return None;
        }
        let blocks = count.div_ceil(BLOCK);
        let start = HEAD + count * RECORD + blocks * SUM;
        let length = usize::try_from(file.metadata().ok()?.len()).ok()?;
        if length != start + blocks * INDEX {
            return None;
        }
        let mut index = vec![0; blocks * INDEX];
        file.read_exact_at(&mut index, start as u64).ok()?;
        if sum_of(&head[..HEAD - SUM], &index)[..] != head[HEAD - SUM..] {
            return None;
        }
        let firsts = index.chunks_exact(INDEX).map(|first| {
            let (dev, ino) = first.split_at(8);
            Some((
                u64::from_le_bytes(dev.try_into().ok()?),
                u64::from_le_bytes(ino.try_into().ok()?),
            ))
        });
        Some(Self {
            generation,
            count,
            index: firsts.collect::<Option<_>>()?,
            used: vec![0; count.div_ceil(64)],
            file,
        })
    }

    /// A new file without a name, in the folder of `beside`.
    pub fn unnamed(beside: &Path) -> io::Result<File> {
        let folder = beside.parent().unwrap_or(Path::new("."));
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
            return Ok(file.into());
        }
        // Not every file system can: one whose name is taken away at once.
        let mut name = beside.as_os_str().to_owned();
        name.push(format!(".{}.run", std::process::id()));
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&name)?;
        std::fs::remove_file(&name)?;
        Ok(file)
    }

    /// How often what it comes from was saved.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Records in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Looks files up, see `DigestMemo::find`; gives the numbers that are not known here.
    pub fn find(
        &mut self,
        asked: &[u32],
        stamp: impl Fn(u32) -> Stamp,
        mut seen: impl FnMut(u32, Value),
    ) -> Vec<u32> {
        let mut left = Vec::new();
        let mut block = Block::default();
        for &number in asked {
            let stamp = stamp(number);
            match self.look_up(&stamp, &mut block) {
                Some((at, value)) => {
                    self.used[at / 64] |= 1 << (at % 64);
                    seen(number, value);
                }
                None => left.push(number),
            }
        }
        left
    }

    /// Finds one record; `block` is the one that was read last.
    fn look_up(&self, stamp: &Stamp, block: &mut Block) -> Option<(usize, Value)> {
        let key = (stamp.dev, stamp.ino);
        if !block.may_hold(key) {
            // The last block that begins no later; those before may end with records of this inode.
            let after = self.index.partition_point(|first| *first <= key);
            *block = self.block(after.checked_sub(1)?);
        }
        let mut number = block.number;
        loop {
            if let Some(found) = block.find(stamp) {
                return Some(found);
            }
            // Records of one inode, of other times: few, and hardly ever on both sides.
            if block.first() != Some(key) || number == 0 {
                return None;
            }
            number -= 1;
            *block = self.block(number);
        }
    }

    fn block(&self, number: usize) -> Block {
        let records = BLOCK.min(self.count - number * BLOCK);
        let mut bytes = vec![0; records * RECORD + SUM];
        let at = (HEAD + number * BLOCK_BYTES) as u64;
        let read = self.file.read_exact_at(&mut bytes, at);
        let body = records * RECORD;
        if read.is_err() || blake3::hash(&bytes[..body]).as_bytes()[..] != bytes[body..] {
            bytes.clear();
        }
        bytes.truncate(body);
        Block {
            number,
            is_read: true,
            hint: 0,
            next: self.index.get(number + 1).copied(),
            start: self.index[number],
            bytes,
        }
    }

    /// All records in their order; one that was asked for was used now.
    pub fn entries(&self, now: u32) -> impl Iterator<Item = (Stamp, Value)> + '_ {
        (0..self.index.len()).flat_map(move |number| {
            let block = self.block(number);
            (0..block.len()).map_while(move |place| {
                let (stamp, mut value) = block.record(place)?;
                let at = number * BLOCK + place;
                if self.used[at / 64] & (1 << (at % 64)) != 0 {
                    value.used = now;
                }
                Some((stamp, value))
            })
        })
    }
}

/// One block, verified; without records where it is broken.
#[derive(Debug, Default)]
struct Block {
    number: usize,
    is_read: bool,
    /// Behind the record that was found last: the next one asked for, as a rule.
    hint: usize,
    start: (u64, u64),
    next: Option<(u64, u64)>,
    bytes: Vec<u8>,
}

impl Block {
    /// Is this the last block that may hold a device's inode?
    fn may_hold(&self, key: (u64, u64)) -> bool {
        self.is_read && self.start <= key && self.next.is_none_or(|next| key < next)
    }

    fn len(&self) -> usize {
        self.bytes.len() / RECORD
    }

    fn first(&self) -> Option<(u64, u64)> {
        self.is_read.then_some(self.start)
    }

    fn find(&mut self, stamp: &Stamp) -> Option<(usize, Value)> {
        let (mut low, mut high) = (0, self.len());
        let mut middle = self.hint.min(high.saturating_sub(1));
        while low < high {
            let (found, value) = self.record(middle)?;
            match found.cmp(stamp) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => {
                    self.hint = middle + 1;
                    return Some((self.number * BLOCK + middle, value));
                }
            }
            middle = low.midpoint(high);
        }
        None
    }

    fn record(&self, place: usize) -> Option<(Stamp, Value)> {
        let record = self.bytes.get(place * RECORD..(place + 1) * RECORD)?;
        let long = |index: usize| {
            let bytes = record.get(index * 8..index * 8 + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let last = long(9)?;
        Some((
            Stamp {
                dev: long(0)?,
                ino: long(1)?,
                size: long(2)?,
                mtime: long(3)? as i64,
                ctime: long(4)? as i64,
            },
            Value {
                known: Known {
                    digest: record.get(40..72)?.try_into().ok()?,
                    has_xattrs: last >> 32 != 0,
                },
                used: last as u32,
            },
        ))
    }
}

/// Writes a [`Sorted`] file.
#[derive(Debug)]
pub struct Writing {
    out: BufWriter<File>,
    block: Vec<u8>,
    index: Vec<u8>,
    count: usize,
}

impl Writing {
    /// Begins in an empty file.
    pub fn new(file: File) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(4 * BLOCK_BYTES, file);
        out.write_all(&[0; HEAD])?;
        Ok(Self {
            out,
            block: Vec::with_capacity(BLOCK_BYTES),
            index: Vec::new(),
            count: 0,
        })
    }

    /// Adds a record, greater than the one before.
    pub fn add(&mut self, stamp: &Stamp, value: &Value) -> io::Result<()> {
        if self.block.is_empty() {
            self.index.extend_from_slice(&stamp.dev.to_le_bytes());
            self.index.extend_from_slice(&stamp.ino.to_le_bytes());
        }
        let times = [stamp.mtime as u64, stamp.ctime as u64];
        for number in [stamp.dev, stamp.ino, stamp.size].into_iter().chain(times) {
            self.block.extend_from_slice(&number.to_le_bytes());
        }
        self.block.extend_from_slice(&value.known.digest);
        self.block.extend_from_slice(&value.used.to_le_bytes());
        let has_xattrs = u32::from(value.known.has_xattrs);
        self.block.extend_from_slice(&has_xattrs.to_le_bytes());
        self.count += 1;
        if self.block.len() == BLOCK * RECORD {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        self.out.write_all(&self.block)?;
        self.out.write_all(blake3::hash(&self.block).as_bytes())?;
        self.block.clear();
        Ok(())
    }

    /// Ends the file, and opens it.
    pub fn finish(mut self, generation: u32) -> io::Result<Sorted> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&generation.to_le_bytes());
        head.extend_from_slice(&(self.count as u32).to_le_bytes());
        let sum = sum_of(&head, &self.index);
        head.extend_from_slice(&sum);
        self.out.write_all(&self.index)?;
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&head)?;
        let file = self
            .out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Sorted::read(file).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn sum_of(head: &[u8], index: &[u8]) -> [u8; SUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head);
    hasher.update(index);
    *hasher.finalize().as_bytes()
}
