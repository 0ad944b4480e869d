//! [`Bits`]: appends numbers of bits to bytes, lowest bit first. Source: RFC 1951, 3.1.1.
//!
//! Room is made once for a whole block, whose exact length is known before; [`Sink`] then writes
//! into it eight bytes at a time.

/// Whole bytes in `out`, and up to seven bits more.
pub struct Bits<'a> {
    pub out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// Appends to `out`, from a byte on.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            held: 0,
            count: 0,
        }
    }

    /// Bits that do not fill a byte yet.
    pub fn loose(&self) -> u32 {
        self.count
    }

    /// Lets `write` append at most `bits` bits. It takes the sink and gives it back: a value of
    /// its own stays in registers.
    pub fn write(&mut self, bits: u64, write: impl FnOnce(Sink) -> Sink) {
        let start = self.out.len();
        let room = (bits + u64::from(self.count)).div_ceil(8) as usize + 8;
        self.out.resize(start + room, 0);
        let mut sink = write(Sink {
            room: &mut self.out[start..],
            at: 0,
            held: self.held,
            count: self.count,
        });
        sink.flush();
        let (at, held, count) = (sink.at, sink.held, sink.count);
        self.out.truncate(start + at);
        (self.held, self.count) = (held, count);
    }

    /// Fills the byte that was begun with zeros.
    pub fn align(&mut self) {
        if self.count > 0 {
            self.out.push(self.held as u8);
            (self.held, self.count) = (0, 0);
        }
    }
}

/// Where bits are written; never holds more than 63.
pub struct Sink<'a> {
    room: &'a mut [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl Sink<'_> {
    /// Holds bits more; with those that are held already, at most 63.
    #[inline(always)]
    pub fn put(&mut self, bits: u64, count: u32) {
        self.held |= bits << (self.count & 63);
        self.count += count;
    }

    /// Holds a [`Code`] more.
    #[inline(always)]
    pub fn put_code(&mut self, code: Code) {
        self.put(u64::from(code.0 >> 8), code.0 & 0xff);
    }

    /// Writes the whole bytes; at most seven bits stay held.
    #[inline(always)]
    pub fn flush(&mut self) {
        if let Some(place) = self.room[self.at..].first_chunk_mut::<8>() {
            *place = self.held.to_le_bytes();
        }
        self.at += (self.count >> 3) as usize;
        self.held >>= self.count & !7;
        self.count &= 7;
    }
}

/// At most 24 bits as they stand in the stream, and how many they are.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Code(u32);

impl Code {
    /// Bits, lowest first, and their number.
    pub const fn new(bits: u32, count: u32) -> Self {
        Self(bits << 8 | count)
    }

    /// These bits, and others after them.
    pub const fn then(self, bits: u32, count: u32) -> Self {
        let length = self.0 & 0xff;
        Self::new(self.0 >> 8 | bits << length, length + count)
    }
}
