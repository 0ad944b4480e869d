//! The parts of the hot path, each alone: `cargo bench -p img-core`, `-- walk` for some of them.
//!
//! Whole commands are timed elsewhere (`benches/` of the repository); this says which part of one became
//! slower. Inputs are the same bytes every time, made once per process in a temporary folder and warm in
//! the page cache. Each part is asked through the function that the extension module calls.

#![allow(clippy::unwrap_used)] // an input that cannot be made is a bench that cannot run

use std::fs::{create_dir, create_dir_all, read, write, File};
use std::hint::black_box;
use std::io::{copy, sink, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::OnceLock;

use divan::counter::{BytesCount, ItemsCount};
use divan::Bencher;
use img_core::blob::apply;
use img_core::cancel::Cancel;
use img_core::compress::{Compression, Options};
use img_core::copy::{copy_layer, Request as CopyRequest};
use img_core::cut::Cutter;
use img_core::ignore::Ignore;
use img_core::inflate::sniff;
use img_core::memo::DigestMemo;
use img_core::pack::{pack_layer, Request as PackRequest};
use img_core::remove::remove_tree;
use img_core::select::{Request as Selecting, Selection};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Files of the tree of small ones, and in each of its folders.
const FILES: usize = 10_000;
const IN_A_FOLDER: usize = 12;
/// Bytes of the one large file.
const LARGE: usize = 64 << 20;
const NAMES: [&str; 2] = ["gzip", "zstd"];

/// Made where the first bench asks for it, and removed at the end of `main`.
static INPUTS: OnceLock<Inputs> = OnceLock::new();

fn inputs() -> &'static Inputs {
    INPUTS.get_or_init(Inputs::make)
}

struct Inputs {
    folder: PathBuf,
    small_bytes: usize,
}

impl Inputs {
    fn make() -> Self {
        let folder = TempDir::new().unwrap().keep();
        create_dir(folder.join("small")).unwrap();
        create_dir(folder.join("large")).unwrap();
        let noise = Self::noise(LARGE);
        write(folder.join("large/file"), &noise).unwrap();
        let mut small_bytes = 0;
        for number in 0..FILES {
            let parent = folder.join(format!(
                "small/d{}/e{}",
                number / IN_A_FOLDER % 30,
                number / IN_A_FOLDER
            ));
            create_dir_all(&parent).unwrap();
            let size = number * 7919 % 8000;
            let start = number * 104_729 % (LARGE - 8000);
            write(parent.join(format!("f{number}.c")), &noise[start..][..size]).unwrap();
            small_bytes += size;
        }
        Self {
            folder,
            small_bytes,
        }
    }

    /// Bytes of which more than half is noise, so that they compress as files do.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes()[..5]);
            bytes.extend_from_slice(b"the");
        }
        bytes.truncate(length);
        bytes
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn bytes_of(&self, name: &str) -> usize {
        if name == "large" {
            LARGE
        } else {
            self.small_bytes
        }
    }
}

fn select(folder: &Path, ignore: &[Vec<u8>]) -> Selection {
    let patterns = [".".to_owned()];
    let request = Selecting {
        patterns: &patterns,
        ignore,
        ..Selecting::default()
    };
    Selection::new(folder, &request, &Cancel::default()).unwrap()
}

fn pack(folder: &Path, blob: Option<(PathBuf, Compression)>) {
    let request = PackRequest {
        blob: blob.map(|(path, compression)| {
            let options = Options {
                compression,
                ..Options::default()
            };
            (path, options)
        }),
        ..PackRequest::default()
    };
    black_box(pack_layer(folder, &request, &Cancel::default()).unwrap());
}

/// A folder for one run's output, beside the inputs.
fn scratch() -> TempDir {
    TempDir::new_in(&inputs().folder).unwrap()
}

/// A blob of a tree, made once for each call.
fn blob(tree: &str, compression: &str) -> (TempDir, PathBuf) {
    let place = scratch();
    let path = place.path().join("blob");
    let how = Compression::parse(compression, None).unwrap();
    pack(&inputs().path(tree), Some((path.clone(), how)));
    (place, path)
}

/// Lines of an ignore file as projects have them.
fn ignore_lines() -> Vec<Vec<u8>> {
    let fixed = [
        "**/.git",
        "**/node_modules",
        "**/*.pyc",
        "*.md",
        "!README.md",
        "docs/**",
        "target/",
        "**/tmp?",
        "secrets/**/*.pem",
        "!packages/core/lib/*.map",
    ];
    let many = (0..40).map(|number| format!("packages/p{number}/*.log"));
    let all = fixed.iter().map(|line| (*line).to_owned()).chain(many);
    all.map(String::into_bytes).collect()
}

/// The walk of a context, with as many lines in its ignore file.
#[divan::bench(args = [0, 50])]
fn walk(bencher: Bencher, lines: usize) {
    let ignore = ignore_lines();
    let folder = inputs().path("small");
    bencher
        .counter(ItemsCount::new(FILES))
        .bench(|| select(&folder, &ignore[..lines]));
}

/// The ignore file's patterns against paths, without a walk.
#[divan::bench]
fn ignore(bencher: Bencher) {
    let matcher = Ignore::new(ignore_lines()).unwrap();
    let paths: Vec<String> = (0..1000)
        .map(|number| format!("packages/p{}/lib/deep/er/f{number}.map", number % 60))
        .collect();
    bencher.counter(ItemsCount::new(paths.len())).bench(|| {
        let out = |path: &&String| matcher.excludes(path.as_bytes());
        paths.iter().filter(out).count()
    });
}

/// What the tar's digest costs, whatever else is done with it.
#[divan::bench]
fn hash_sha256(bencher: Bencher) {
    let bytes = read(inputs().path("large/file")).unwrap();
    bencher
        .counter(BytesCount::new(LARGE))
        .bench(|| Sha256::digest(&bytes));
}

/// What the content's digest costs.
#[divan::bench]
fn hash_blake3(bencher: Bencher) {
    let bytes = read(inputs().path("large/file")).unwrap();
    bencher
        .counter(BytesCount::new(LARGE))
        .bench(|| blake3::hash(&bytes));
}

/// Where a tar ends its blocks.
#[divan::bench]
fn cut(bencher: Bencher) {
    let bytes = read(inputs().path("large/file")).unwrap();
    bencher.counter(BytesCount::new(LARGE)).bench(|| {
        let (mut cutter, mut rest, mut cuts) = (Cutter::default(), &bytes[..], 0);
        while let Some(end) = cutter.take(rest) {
            rest = &rest[end..];
            cuts += 1;
        }
        cuts
    });
}

/// A folder's content digest with nothing remembered: what a first build asks of a context.
#[divan::bench(args = ["small", "large"])]
fn digest_selection(bencher: Bencher, tree: &str) {
    let selection = select(&inputs().path(tree), &[]);
    bencher
        .counter(BytesCount::new(inputs().bytes_of(tree)))
        .bench(|| selection.content_digest(None, &Cancel::default()).unwrap());
}

/// COPY: read once, written, and digested as a tar.
#[divan::bench(args = ["small", "large"], sample_size = 1, sample_count = 10)]
fn copy_selection(bencher: Bencher, tree: &str) {
    let selection = select(&inputs().path(tree), &[]);
    let request = CopyRequest {
        dest: "/".to_owned(),
        ..CopyRequest::default()
    };
    bencher
        .counter(BytesCount::new(inputs().bytes_of(tree)))
        .with_inputs(scratch)
        .bench_values(|place| {
            copy_layer(
                &[&selection],
                &[],
                place.path(),
                &request,
                &Cancel::default(),
            )
            .unwrap();
            place
        });
}

/// A layer's folder as a tar that is digested and goes nowhere.
#[divan::bench(args = ["small", "large"])]
fn pack_digest(bencher: Bencher, tree: &str) {
    let folder = inputs().path(tree);
    bencher
        .counter(BytesCount::new(inputs().bytes_of(tree)))
        .bench(|| pack(&folder, None));
}

/// The same, compressed into a blob: what compression adds is the difference.
#[divan::bench(args = NAMES, sample_size = 1, sample_count = 10)]
fn pack_compress(bencher: Bencher, compression: &str) {
    let folder = inputs().path("large");
    let how = Compression::parse(compression, None).unwrap();
    bencher
        .counter(BytesCount::new(LARGE))
        .with_inputs(scratch)
        .bench_values(|place| {
            pack(&folder, Some((place.path().join("blob"), how)));
            place
        });
}

/// A blob's bytes on one thread, digested and written nowhere.
#[divan::bench(args = NAMES, sample_size = 1, sample_count = 20)]
fn inflate(bencher: Bencher, compression: &str) {
    let (_place, path) = blob("large", compression);
    bencher.counter(BytesCount::new(LARGE)).bench(|| {
        let file = BufReader::with_capacity(256 << 10, File::open(&path).unwrap());
        let (codec, stream) = sniff(file).unwrap();
        let mut plain = codec.reader(stream).unwrap();
        copy(&mut plain.by_ref(), &mut sink()).unwrap()
    });
}

/// A blob becomes a folder: inflated, digested, parsed and written at once.
#[divan::bench(args = ["small", "large"], sample_size = 1, sample_count = 10)]
fn apply_blob(bencher: Bencher, tree: &str) {
    let (_place, path) = blob(tree, "gzip");
    bencher
        .counter(BytesCount::new(inputs().bytes_of(tree)))
        .with_inputs(scratch)
        .bench_values(|place| {
            let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
            apply(&path, place.path(), None, &stop, &count).unwrap();
            place
        });
}

/// The removal of a layer.
#[divan::bench(sample_size = 1, sample_count = 10)]
fn remove(bencher: Bencher) {
    let (_place, path) = blob("small", "zstd");
    bencher
        .counter(ItemsCount::new(FILES))
        .with_inputs(|| {
            let place = scratch();
            let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
            apply(&path, place.path(), None, &stop, &count).unwrap();
            place
        })
        .bench_values(|place| {
            remove_tree(place.path(), &AtomicBool::new(false)).unwrap();
            place
        });
}

/// What is remembered of a context's files, read back: the start of each later build.
#[divan::bench]
fn memo_load(bencher: Bencher) {
    let place = scratch();
    let path = place.path().join("memo");
    let memo = DigestMemo::open(&path);
    let selection = select(&inputs().path("small"), &[]);
    selection
        .content_digest(Some(&memo), &Cancel::default())
        .unwrap();
    memo.save().unwrap();
    bencher
        .counter(ItemsCount::new(FILES))
        .bench(|| DigestMemo::open(&path).len());
}

fn main() {
    divan::main();
    if let Some(made) = INPUTS.get() {
        remove_tree(&made.folder, &AtomicBool::new(false)).unwrap();
    }
}
