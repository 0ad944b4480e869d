//! [`Archive`]: a tar stream read forward, once, entry by entry.
//!
//! `apply` and `archive` drive it: [`Archive::next_entry`], then the entry's bytes through
//! `BufRead`, and so on; what of a body was not read is skipped. It understands ustar, PAX, GNU's
//! long names, binary numbers and all four forms of sparse files. It touches no disk and judges
//! no path beyond cleaning it (`root` decides where entries may land). Every length in a header
//! is a claim by a stranger: nothing is allocated for it, and what must be held is bounded.
//! Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header"; GNU tar manual,
//! "Basic Tar Format" and "Storing Sparse Files"; OCI image-spec v1.1, layer.md.

use std::io::{self, BufRead, Read};

use crate::attrs::belongs_to_image;
use crate::entry::{Entry, Kind};
use crate::error::{Error, IoContext, Result};
use crate::root::clean;

const BLOCK: usize = 512;
/// What a header of headers (PAX records, a GNU long name, a sparse map) may hold.
const MAX_EXTENSION: u64 = 1 << 20;
/// How many such headers may stand before one entry; writers need four at most.
const MAX_EXTENSIONS: usize = 32;
/// Pieces of a sparse file; each costs 16 bytes.
const MAX_SEGMENTS: usize = 1 << 17;
/// `PATH_MAX` less its NUL: a longer path can be given to no system call.
const MAX_PATH: usize = 4095;

/// A run of bytes of a sparse file, in the order in which the archive stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it belongs.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// A tar stream. As a `BufRead` it gives the stored bytes of the current entry.
#[derive(Debug)]
pub struct Archive<R> {
    source: R,
    /// Bytes taken from `source`, for messages.
    offset: u64,
    /// Stored bytes of the current entry not read yet.
    body: u64,
    /// Padding that follows them.
    padding: u64,
    global: Records,
    segments: Option<Vec<Segment>>,
    ended: bool,
}

/// What one `ustar` block says, before extensions are laid over it.
struct Header {
    block: [u8; BLOCK],
    name: Vec<u8>,
    link: Vec<u8>,
    type_flag: u8,
    size: u64,
}

/// Extensions that stood before an entry.
#[derive(Default)]
struct Extensions {
    records: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// PAX records, raw, in the order of the archive.
#[derive(Debug, Clone, Default)]
struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl<R: BufRead> Archive<R> {
    /// Starts at the beginning of a tar stream. Reads nothing yet.
    pub fn new(source: R) -> Self {
        Self {
            source,
            offset: 0,
            body: 0,
            padding: 0,
            global: Records::default(),
            segments: None,
            ended: false,
        }
    }

    /// Gives the next entry, or None at the archive's end.
    ///
    /// Extended attributes that do not belong to an image are left out. A sparse file's `size` is
    /// its whole length and [`Archive::segments`] says where its stored bytes belong.
    ///
    /// Raises:
    ///     `Error::Layer` for what is no tar, is truncated or claims too much; whatever error the
    ///     source wrapped in its `io::Error`.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        for _ in 0..MAX_EXTENSIONS {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            match header.type_flag {
                b'x' | b'X' => extensions.records = self.records(&header)?,
                b'g' => {
                    let records = self.records(&header)?;
                    self.global.update(records);
                }
                b'L' => extensions.long_name = Some(self.long(&header)?),
                b'K' => extensions.long_link = Some(self.long(&header)?),
                b'V' => self.set_body(header.size),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        Err(self.broken("too many extension headers in a row"))
    }

    /// Where the stored bytes of the current entry belong; None where it is not sparse.
    pub fn segments(&self) -> Option<&[Segment]> {
        self.segments.as_deref()
    }

    /// Stored bytes of the current entry that were not read yet.
    pub fn remaining(&self) -> u64 {
        self.body
    }

    /// Gives the source back, to be read to its end.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// Reads the next header block, having skipped the last entry's rest; None at the end.
    fn header(&mut self) -> Result<Option<Header>> {
        self.skip_body()?;
        self.segments = None;
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? {
            self.ended = true;
            return Ok(None);
        }
        if block == [0; BLOCK] {
            self.ended = true;
            // The end is two empty blocks; one alone at the very end is met in the wild.
            if self.block(&mut block)? && block != [0; BLOCK] {
                return Err(self.broken("data after an empty block"));
            }
            return Ok(None);
        }
        self.parse(&block).map(Some)
    }

    fn parse(&self, block: &[u8; BLOCK]) -> Result<Header> {
        check_sum(block).map_err(|reason| self.broken(reason))?;
        let mut name = text(&block[0..100]).to_vec();
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            let prefix = text(&block[345..500]);
            name = [prefix, b"/", &name].concat();
        }
        let size = number(&block[124..136]).and_then(|size| u64::try_from(size).ok());
        Ok(Header {
            link: text(&block[157..257]).to_vec(),
            type_flag: block[156],
            size: size.ok_or_else(|| self.broken("bad size field"))?,
            name,
            block: *block,
        })
    }

    /// Reads a block; false at a clean end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(self.broken("truncated header")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.source_error(error)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(true)
    }

    fn set_body(&mut self, size: u64) {
        self.body = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_body(&mut self) -> Result<()> {
        self.discard()?;
        self.body = std::mem::take(&mut self.padding);
        self.discard()
    }

    fn discard(&mut self) -> Result<()> {
        while self.body > 0 {
            let length = self.fill()?.len();
            self.consume(length);
        }
        Ok(())
    }

    /// The next stored bytes of the current entry; empty at its end.
    fn fill(&mut self) -> Result<&[u8]> {
        if self.body == 0 {
            return Ok(&[]);
        }
        // Asked for twice, since a borrow that is returned on one path only is held on both.
        loop {
            match self.source.fill_buf() {
                Ok([]) => return Err(self.broken("truncated entry")),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.source_error(error)),
            }
        }
        let most = usize::try_from(self.body).unwrap_or(usize::MAX);
        let chunk = self.source.fill_buf().at("read", "the archive")?;
        Ok(&chunk[..chunk.len().min(most)])
    }

    /// Reads a whole extension body, bounded.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(self.broken("extension header larger than 1 MiB"));
        }
        self.set_body(size);
        let mut content = Vec::new();
        while self.body > 0 {
            let chunk = self.fill()?;
            content.extend_from_slice(chunk);
            let length = chunk.len();
            self.consume(length);
        }
        Ok(content)
    }

    fn records(&mut self, header: &Header) -> Result<Records> {
        let content = self.extension(header.size)?;
        Records::parse(&content).map_err(|reason| self.broken(reason))
    }

    fn long(&mut self, header: &Header) -> Result<Vec<u8>> {
        let content = self.extension(header.size)?;
        Ok(text(&content).to_vec())
    }

    /// Lays the extensions over a header.
    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry> {
        let mut records = self.global.clone();
        records.update(extensions.records);
        let raw_name = [
            records.get(b"GNU.sparse.name"),
            records.get(b"path"),
            extensions.long_name.as_deref(),
        ];
        let raw_name = raw_name.into_iter().flatten().next();
        let raw_name = raw_name.unwrap_or(&header.name).to_vec();
        let bad = |reason: &str| layer_error(&raw_name, reason);
        let raw_link = records.get(b"linkpath").or(extensions.long_link.as_deref());
        let raw_link = raw_link.unwrap_or(&header.link);
        if raw_name.len() > MAX_PATH || raw_link.len() > MAX_PATH {
            return Err(bad("path longer than 4095 bytes"));
        }
        if raw_name.contains(&0) || raw_link.contains(&0) {
            return Err(bad("NUL in a path"));
        }
        let kind = kind(header, &raw_name, raw_link).map_err(bad)?;
        let path = clean(&raw_name).map_err(bad)?;
        let (mtime, mtime_nanos) = time(header, &records).ok_or_else(|| bad("bad mtime"))?;
        let is_file = kind == Kind::File;
        let stored = match (is_file, records.get(b"size")) {
            (false, _) => 0,
            (true, None) => header.size,
            (true, Some(size)) => decimal(size).ok_or_else(|| bad("bad size record"))?,
        };
        self.set_body(stored);
        let mut entry = Entry {
            path,
            kind,
            mode: field(&header.block[100..108]).map_err(bad)? & 0o7777,
            uid: id(&header.block[108..116], records.get(b"uid")).map_err(bad)?,
            gid: id(&header.block[116..124], records.get(b"gid")).map_err(bad)?,
            mtime,
            mtime_nanos,
            size: stored,
            xattrs: records.xattrs(),
        };
        if is_file {
            if let Some(size) = self.sparse(header, &records, &raw_name)? {
                entry.size = size;
            }
        }
        Ok(entry)
    }

    /// Reads the map of a sparse file, whichever form it has; gives the file's whole length.
    fn sparse(&mut self, header: &Header, records: &Records, name: &[u8]) -> Result<Option<u64>> {
        let number_of = |key: &[u8]| records.get(key).and_then(decimal);
        let (segments, size) = if header.type_flag == b'S' {
            self.old_sparse_map(&header.block)?
        } else if records.get(b"GNU.sparse.major") == Some(b"1") {
            let size = number_of(b"GNU.sparse.realsize");
            (self.sparse_map_in_body()?, size)
        } else if let Some(map) = records.get(b"GNU.sparse.map") {
            let numbers = map.split(|byte| *byte == b',').map(decimal).collect();
            (pairs(numbers), number_of(b"GNU.sparse.size"))
        } else if records.get(b"GNU.sparse.numblocks").is_some() {
            (records.sparse_pairs(), number_of(b"GNU.sparse.size"))
        } else {
            return Ok(None);
        };
        let bad = |reason: &str| layer_error(name, reason);
        let segments = segments.ok_or_else(|| bad("bad sparse map"))?;
        let size = size.ok_or_else(|| bad("sparse file without a size"))?;
        check_segments(&segments, size, self.body).map_err(bad)?;
        self.segments = Some(segments);
        Ok(Some(size))
    }

    /// GNU's old form: four pieces in the header, then blocks of 21 while a flag says so.
    fn old_sparse_map(
        &mut self,
        head: &[u8; BLOCK],
    ) -> Result<(Option<Vec<Segment>>, Option<u64>)> {
        let size = number(&head[483..495]).and_then(|size| u64::try_from(size).ok());
        let mut numbers = Vec::new();
        sparse_numbers(&head[386..482], &mut numbers);
        let mut more = head[482] != 0;
        let mut block = [0; BLOCK];
        while more {
            if numbers.len() > 2 * MAX_SEGMENTS {
                return Ok((None, None));
            }
            if !self.block(&mut block)? {
                return Err(self.broken("truncated sparse map"));
            }
            sparse_numbers(&block[..504], &mut numbers);
            more = block[504] != 0;
        }
        Ok((pairs(numbers), size))
    }

    /// PAX form 1.0: the map stands before the content, decimal lines padded to a block.
    fn sparse_map_in_body(&mut self) -> Result<Option<Vec<Segment>>> {
        let mut lines = 0;
        let mut wanted = 1;
        let mut numbers = Vec::new();
        let mut line = Vec::new();
        let mut read = 0_u64;
        while lines < wanted || read % BLOCK as u64 != 0 {
            let [byte] = self.body_bytes::<1>()?;
            read += 1;
            if lines == wanted {
                continue; // padding
            }
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Ok(None);
                }
                continue;
            }
            let value = decimal(&line);
            line.clear();
            if lines == 0 {
                let Some(count) = value.filter(|count| *count <= MAX_SEGMENTS as u64) else {
                    return Ok(None);
                };
                wanted += 2 * count as usize;
            } else {
                numbers.push(value);
            }
            lines += 1;
        }
        Ok(pairs(numbers))
    }

    fn body_bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        match self.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(self.source_error(error)),
        }
    }

    fn broken(&self, reason: &str) -> Error {
        Error::Layer {
            entry: format!("byte {}", self.offset),
            reason: reason.to_owned(),
        }
    }

    /// An error of the source: one of ours that came wrapped, or a failed decompression.
    fn source_error(&self, error: io::Error) -> Error {
        unwrap_error(error, &format!("byte {}", self.offset))
    }
}

/// Unwraps one of our errors that travelled as an `io::Error`; what is none is a decoder's.
pub fn unwrap_error(error: io::Error, place: &str) -> Error {
    if error.raw_os_error().is_some() {
        return Error::Io {
            op: "read",
            path: "the archive".into(),
            source: error,
        };
    }
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::Layer {
            entry: place.to_owned(),
            reason: error.to_string(),
        },
    }
}

/// Wraps one of our errors so that it can pass through `Read`.
pub fn wrap_error(error: Error) -> io::Error {
    io::Error::other(error)
}

impl<R: BufRead> BufRead for Archive<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill().map_err(wrap_error)
    }

    fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.body -= count as u64;
        self.offset += count as u64;
    }
}

impl<R: BufRead> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl Records {
    /// Parses `<length> <key>=<value>\n` records. The length counts the whole record.
    fn parse(mut content: &[u8]) -> Result<Self, &'static str> {
        let mut records = Vec::new();
        while !content.is_empty() {
            let space = content.iter().take(20).position(|byte| *byte == b' ');
            let space = space.ok_or("PAX record without a length")?;
            let length = decimal(&content[..space]).ok_or("bad length of a PAX record")?;
            let length = usize::try_from(length).map_err(|_| "bad length of a PAX record")?;
            if length <= space + 1 || length > content.len() || content[length - 1] != b'\n' {
                return Err("bad length of a PAX record");
            }
            let record = &content[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(equals.ok_or("PAX record without a key")?);
            records.push((key.to_vec(), value[1..].to_vec()));
            content = &content[length..];
        }
        Ok(Self(records))
    }

    /// Lays later records over these. GNU's sparse 0.0 repeats keys, so all are kept in order.
    fn update(&mut self, later: Self) {
        let repeats = |key: &[u8]| key.starts_with(b"GNU.sparse.");
        self.0
            .retain(|(key, _)| repeats(key) || !later.0.iter().any(|(other, _)| other == key));
        self.0.extend(later.0);
    }

    /// The last value of a key; an empty one takes the record back (POSIX, "pax Header").
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(other, _)| other == key);
        found
            .map(|(_, value)| &value[..])
            .filter(|value| !value.is_empty())
    }

    /// `SCHILY.xattr.<name>` records that belong to an image, sorted, the last of a name winning.
    fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = std::collections::BTreeMap::new();
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                if belongs_to_image(name) && !name.contains(&0) {
                    found.insert(name.to_vec(), value.clone());
                }
            }
        }
        found.into_iter().collect()
    }

    /// The map of sparse form 0.0: `GNU.sparse.offset` and `.numbytes`, repeated in turn.
    fn sparse_pairs(&self) -> Option<Vec<Segment>> {
        let keys: [&[u8]; 2] = [b"GNU.sparse.offset", b"GNU.sparse.numbytes"];
        let mut numbers = Vec::new();
        for (key, value) in &self.0 {
            if keys.contains(&&key[..]) {
                if key != keys[numbers.len() % 2] {
                    return None;
                }
                numbers.push(decimal(value));
            }
        }
        pairs(numbers)
    }
}

/// What the type flag means, with the link's target where it is one.
fn kind(header: &Header, name: &[u8], link: &[u8]) -> Result<Kind, &'static str> {
    let device = || -> Result<(u32, u32), &'static str> {
        Ok((
            field(&header.block[329..337])?,
            field(&header.block[337..345])?,
        ))
    };
    Ok(match header.type_flag {
        // Before POSIX a folder was a file whose name ends in a slash.
        b'0' | 0 if name.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::Hardlink(clean(link).map_err(|_| "hard link out of the layer")?),
        b'2' if link.is_empty() => return Err("symlink without a target"),
        b'2' => Kind::Symlink(link.to_vec()),
        b'3' => {
            let (major, minor) = device()?;
            Kind::CharDevice { major, minor }
        }
        b'4' => {
            let (major, minor) = device()?;
            Kind::BlockDevice { major, minor }
        }
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return Err("entry of an unknown type"),
    })
}

fn time(header: &Header, records: &Records) -> Option<(i64, u32)> {
    match records.get(b"mtime") {
        Some(text) => pax_time(text),
        None => Some((number(&header.block[136..148])?, 0)),
    }
}

/// Parses `[-]seconds[.fraction]` into whole seconds, rounded down, and nanoseconds.
fn pax_time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    let mut nanos = 0;
    for place in 0..fraction.len().max(9) {
        let digit = match fraction.get(place) {
            Some(digit) if digit.is_ascii_digit() => u32::from(digit - b'0'),
            Some(_) => return None,
            None => 0,
        };
        if place < 9 {
            nanos = nanos * 10 + digit;
        }
    }
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// A number of 32 bits; an empty field is 0.
fn field(bytes: &[u8]) -> Result<u32, &'static str> {
    let value = number(bytes).and_then(|value| u32::try_from(value).ok());
    value.ok_or("bad number in the header")
}

fn id(bytes: &[u8], record: Option<&[u8]>) -> Result<u32, &'static str> {
    match record {
        None => field(bytes),
        Some(text) => decimal(text)
            .and_then(|value| u32::try_from(value).ok())
            .ok_or("bad owner"),
    }
}

/// A header's number: octal digits between blanks, or GNU's big-endian two's complement.
fn number(bytes: &[u8]) -> Option<i64> {
    if bytes.first()? & 0x80 != 0 {
        let negative = bytes[0] & 0x40 != 0;
        let first = if negative { bytes[0] } else { bytes[0] & 0x7f };
        let mut value = i128::from(if negative { -1 } else { 0 });
        for byte in std::iter::once(first).chain(bytes[1..].iter().copied()) {
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let text = text(bytes).trim_ascii();
    text.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// A field's bytes up to the first NUL.
fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

/// The sum over the header, its own field counted as blanks; old writers summed signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let stated = number(&block[148..156]).ok_or("bad checksum: this is no tar header")?;
    let others = || block[..148].iter().chain(&block[156..]);
    let unsigned = others().map(|byte| i64::from(*byte)).sum::<i64>() + 8 * 32;
    let signed = others().map(|byte| i64::from(*byte as i8)).sum::<i64>() + 8 * 32;
    if stated == unsigned || stated == signed {
        Ok(())
    } else {
        Err("bad checksum: this is no tar header")
    }
}

/// Tells whether a block could be a tar's first header.
pub fn looks_like_tar(block: &[u8; BLOCK]) -> bool {
    block[0] != 0 && check_sum(block).is_ok()
}

/// Takes pairs of 12-byte numbers; an empty first field ends them.
fn sparse_numbers(bytes: &[u8], numbers: &mut Vec<Option<u64>>) {
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 {
            return;
        }
        for bytes in pair.chunks_exact(12) {
            numbers.push(number(bytes).and_then(|value| u64::try_from(value).ok()));
        }
    }
}

/// Makes segments of numbers; None where one is missing or there are too many.
fn pairs(numbers: Vec<Option<u64>>) -> Option<Vec<Segment>> {
    if numbers.len() % 2 != 0 || numbers.len() > 2 * MAX_SEGMENTS {
        return None;
    }
    let numbers = numbers.into_iter().collect::<Option<Vec<_>>>()?;
    let segment = |pair: &[u64]| Segment {
        offset: pair[0],
        length: pair[1],
    };
    Some(numbers.chunks_exact(2).map(segment).collect())
}

/// A map must ascend, stay inside the file and account for every stored byte.
fn check_segments(segments: &[Segment], size: u64, stored: u64) -> Result<(), &'static str> {
    let mut end = 0_u64;
    let mut total = 0_u64;
    for segment in segments {
        if segment.offset < end {
            return Err("sparse map runs backwards");
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .ok_or("sparse map overflows")?;
        total += segment.length;
    }
    if end > size || size > i64::MAX as u64 {
        return Err("sparse map past the file's end");
    }
    if total != stored {
        return Err("sparse map does not account for the stored bytes");
    }
    Ok(())
}

fn layer_error(name: &[u8], reason: &str) -> Error {
    Error::Layer {
        entry: String::from_utf8_lossy(name).into_owned(),
        reason: reason.to_owned(),
    }
}

/// Builds tar streams for the tests of this module and of those that extract.
#[cfg(test)]
pub mod build {
    /// A header block with the given fields and a right checksum.
    pub fn header(name: &[u8], type_flag: u8, size: u64, link: &[u8]) -> [u8; 512] {
        let mut block = [0; 512];
        block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        let mode = if type_flag == b'5' {
            b"0000755\0"
        } else {
            b"0000644\0"
        };
        block[100..108].copy_from_slice(mode);
        // The caller's own ids, so that the tests also run as an ordinary user.
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        block[108..116].copy_from_slice(format!("{uid:07o}\0").as_bytes());
        block[116..124].copy_from_slice(format!("{gid:07o}\0").as_bytes());
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[136..148].copy_from_slice(b"00000001750\0");
        block[156] = type_flag;
        block[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        block[257..265].copy_from_slice(b"ustar\x0000");
        seal(&mut block);
        block
    }

    /// Sets the checksum.
    pub fn seal(block: &mut [u8; 512]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    /// A body padded to blocks.
    pub fn body(content: &[u8]) -> Vec<u8> {
        let mut body = content.to_vec();
        body.resize(content.len().div_ceil(512) * 512, 0);
        body
    }

    /// A whole entry.
    pub fn entry(name: &str, type_flag: u8, content: &[u8]) -> Vec<u8> {
        let head = header(name.as_bytes(), type_flag, content.len() as u64, b"");
        [head.to_vec(), body(content)].concat()
    }

    /// A regular file.
    pub fn file(name: &str, content: &str) -> Vec<u8> {
        entry(name, b'0', content.as_bytes())
    }

    /// A folder.
    pub fn folder(name: &str) -> Vec<u8> {
        entry(name, b'5', b"")
    }

    /// A symbolic (`b'2'`) or hard (`b'1'`) link.
    pub fn link(name: &str, type_flag: u8, target: &str) -> Vec<u8> {
        header(name.as_bytes(), type_flag, 0, target.as_bytes()).to_vec()
    }

    /// A PAX header with its records.
    pub fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        entry("pax", b'x', &content)
    }

    /// A stream of entries, ended as it should be.
    pub fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
        [entries.concat(), vec![0; 1024]].concat()
    }
}

#[cfg(test)]
mod tests;
