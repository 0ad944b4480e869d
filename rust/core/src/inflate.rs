//! [`Codec`]: how a stream is compressed, told by its first bytes and never by its name.
//!
//! `blob` accepts what OCI layers may be (tar, gzip, zstd), `archive` what ADD may be given. Every
//! decoder works forward with a bounded window, so a stream that unpacks to a thousand times its
//! size costs time and disk, not memory.

use std::io::{self, BufRead, Cursor, Read};

/// Largest window of a zstd frame, as a power of two: the format's own recommended limit for
/// decoders is 8 MiB, what `zstd --ultra` writes by default needs 128. RFC 8878, section 3.1.1.1.2.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes that tell every codec apart.
const MAGIC: usize = 6;
/// Memory for an xz stream, which may ask for a dictionary of gigabytes.
const XZ_MEMORY: u64 = 256 << 20;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// None that is known here.
    Plain,
    /// One or more gzip members. RFC 1952.
    Gzip,
    /// One or more zstd frames. RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// One or more xz streams.
    Xz,
}

impl Codec {
    /// Tells the codec by a stream's first bytes.
    pub fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // The second is a skippable frame: legal, and some parallel compressors begin with one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }

    /// Gives a reader of the uncompressed bytes.
    pub fn reader<'a>(
        self,
        source: impl BufRead + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(source),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
            Self::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream))
            }
        })
    }
}

/// Reads a stream's first bytes and gives its codec, with the whole stream.
pub fn sniff<R: BufRead>(mut source: R) -> io::Result<(Codec, impl BufRead + use<R>)> {
    let mut magic = Vec::with_capacity(MAGIC);
    source.by_ref().take(MAGIC as u64).read_to_end(&mut magic)?;
    Ok((Codec::of(&magic), Cursor::new(magic).chain(source)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(stream: &[u8]) -> (Codec, Vec<u8>) {
        let (codec, source) = sniff(stream).unwrap();
        let mut content = Vec::new();
        codec
            .reader(source)
            .unwrap()
            .read_to_end(&mut content)
            .unwrap();
        (codec, content)
    }

    #[test]
    fn every_codec_is_told_and_read() {
        let content = b"some content ".repeat(1_000);
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&content).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&content).unwrap();
        let streams = [
            (Codec::Plain, content.clone()),
            (Codec::Gzip, gzip(&content)),
            (Codec::Zstd, zstd::encode_all(&content[..], 3).unwrap()),
            (Codec::Bzip2, bzip2.finish().unwrap()),
            (Codec::Xz, xz.finish().unwrap()),
        ];
        for (codec, stream) in streams {
            assert_eq!(unpack(&stream), (codec, content.clone()));
        }
    }

    #[test]
    fn members_and_frames_follow_one_another() {
        let both = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(unpack(&both), (Codec::Gzip, b"one two".to_vec()));
        let frame = |text: &[u8]| zstd::encode_all(text, 3).unwrap();
        let both = [frame(b"one "), frame(b"two")].concat();
        assert_eq!(unpack(&both), (Codec::Zstd, b"one two".to_vec()));
    }

    #[test]
    fn short_streams_are_plain() {
        assert_eq!(unpack(b""), (Codec::Plain, Vec::new()));
        assert_eq!(unpack(b"BZ"), (Codec::Plain, b"BZ".to_vec()));
    }
}
