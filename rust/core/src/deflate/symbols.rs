//! The alphabets of deflate: which symbol a length or a distance has, and its extra bits.
//!
//! All tables are made by the compiler. Source: RFC 1951, 3.2.5 and 3.2.6.

/// Shortest and longest match.
pub const MIN_LENGTH: usize = 3;
pub const MAX_LENGTH: usize = 258;
/// Deflate looks back so far.
pub const WINDOW: usize = 32 << 10;
/// Symbols of literals, the end of a block, and lengths; two of the last are never used.
pub const LITLENS: usize = 288;
/// Symbols of distances; two are never used.
pub const DISTANCES: usize = 32;
/// Ends a block.
pub const END: usize = 256;
/// Symbol of the shortest match.
pub const FIRST_LENGTH: usize = 257;

/// Extra bits of each length symbol, from 257.
pub const LENGTH_EXTRA: [u8; 29] = length_extra();
/// First length of each length symbol, less three.
pub const LENGTH_BASE: [u16; 29] = length_base();
/// Symbol of each length less three, less 257.
pub const LENGTH_SYMBOL: [u8; 256] = length_symbol();
/// Extra bits of each distance symbol.
pub const DISTANCE_EXTRA: [u8; DISTANCES] = distance_extra();
/// First distance of each distance symbol, less one.
pub const DISTANCE_BASE: [u16; DISTANCES] = distance_base();
/// Symbols of distances less one: of those below 256, then of the others by their 128s.
static DISTANCE_SYMBOL: [u8; 512] = distance_symbols();

/// Symbol of a distance less one.
#[inline(always)]
pub fn distance_symbol(less_one: u16) -> usize {
    let near = less_one as usize;
    let place = if near < 256 { near } else { 256 + (near >> 7) };
    DISTANCE_SYMBOL[place & 511] as usize & (DISTANCES - 1)
}

const fn length_extra() -> [u8; 29] {
    let mut extra = [0; 29];
    let mut symbol = 8;
    while symbol < 28 {
        extra[symbol] = (symbol / 4 - 1) as u8;
        symbol += 1;
    }
    extra
}

const fn length_base() -> [u16; 29] {
    let mut base = [0; 29];
    let mut symbol = 1;
    while symbol < 28 {
        base[symbol] = base[symbol - 1] + (1 << LENGTH_EXTRA[symbol - 1]);
        symbol += 1;
    }
    base[28] = 255; // 258 has a symbol of its own
    base
}

const fn length_symbol() -> [u8; 256] {
    let mut symbols = [0; 256];
    let mut symbol = 0;
    while symbol < 28 {
        let mut length = LENGTH_BASE[symbol] as usize;
        while length < 256 {
            symbols[length] = symbol as u8;
            length += 1;
        }
        symbol += 1;
    }
    symbols[255] = 28;
    symbols
}

const fn distance_extra() -> [u8; DISTANCES] {
    let mut extra = [0; DISTANCES];
    let mut symbol = 4;
    while symbol < 30 {
        extra[symbol] = (symbol / 2 - 1) as u8;
        symbol += 1;
    }
    extra
}

const fn distance_base() -> [u16; DISTANCES] {
    let mut base = [0; DISTANCES];
    let mut symbol = 1;
    while symbol < 30 {
        base[symbol] = base[symbol - 1] + (1 << DISTANCE_EXTRA[symbol - 1]);
        symbol += 1;
    }
    base
}

const fn distance_symbols() -> [u8; 512] {
    let mut symbols = [0; 512];
    let mut symbol = 0;
    while symbol < 30 {
        let base = DISTANCE_BASE[symbol] as usize;
        let mut place = if base < 256 { base } else { 256 + (base >> 7) };
        while place < 512 {
            // What lies behind is overwritten by the symbols to come.
            if base < 256 || place >= 256 {
                symbols[place] = symbol as u8;
            }
            place += 1;
        }
        symbol += 1;
    }
    symbols
}
