//! Tests of `chunks`.

#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::tar_read::build::{file, folder, link, tar};

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["source", "spool", "dest", "outside"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.at("source").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn chunks(&self, known: &Known, threads: usize) -> Chunked {
        let stop = AtomicBool::new(false);
        let (source, spool) = (self.at("source"), self.at("spool"));
        chunk_folder(&source, &spool, known, Some(threads), &stop).unwrap()
    }

    fn all(&self) -> Chunked {
        self.chunks(&Known::new(), 2)
    }

    fn paths(&self, chunked: &Chunked) -> Vec<PathBuf> {
        let names = chunked.chunks.iter().map(|chunk| &chunk.digest[7..]);
        names.map(|name| self.at("spool").join(name)).collect()
    }

    fn unpack(&self, chunked: &Chunked) -> Result<Vec<String>> {
        let stop = AtomicBool::new(false);
        let paths = self.paths(chunked);
        unpack_chunks(&paths, &self.at("dest"), chunked.total_bytes, &stop)
    }

    /// Has a stream that somebody else made, in one chunk.
    fn foreign(&self, tar: &[u8]) -> Result<Vec<String>> {
        let frame = zstd::encode_all(tar, 1).unwrap();
        let stop = AtomicBool::new(false);
        let path = self.at("spool/foreign");
        fs::write(&path, frame).unwrap();
        unpack_chunks(&[path], &self.at("dest"), tar.len() as u64, &stop)
    }
}

/// Bytes that neither repeat nor compress.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A tree as text: what of it travels.
fn listed(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let what = if stat.is_dir() {
                waiting.push(path.clone());
                String::new()
            } else if stat.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else {
                blake3::hash(&fs::read(&path).unwrap()).to_string()
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let times = (stat.mtime(), stat.mtime_nsec());
            let links = if stat.is_dir() { 0 } else { stat.nlink() };
            let owner = (stat.uid(), stat.gid());
            let facts = format!("{:o} {owner:?} {times:?} {links} {what}", stat.mode());
            found.insert(name, facts);
        }
    }
    found
}

#[test]
fn a_folder_comes_back_as_it_was() {
    let tree = Fixture::new();
    tree.write("a/deep/er/file", b"text");
    tree.write(".wh.name", b"no whiteout here");
    tree.write(".wh..wh..opq", b"");
    tree.write("big", &noise(3, 11 << 20));
    tree.write("program", b"#!");
    let source = tree.at("source");
    fs::set_permissions(source.join("program"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(source.join("big"), source.join("a/same")).unwrap();
    symlink("../../etc/passwd", source.join("a/link")).unwrap();
    fs::create_dir(source.join("empty")).unwrap();
    fs::set_permissions(source.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    let early = SystemTime::UNIX_EPOCH - Duration::new(1_000, 750_000_000);
    let late = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    for (name, time) in [("program", early), ("a/deep", late), ("empty", early)] {
        fs::File::open(source.join(name))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    let before = listed(&source);
    // What no archive can say stays behind.
    let _socket = UnixListener::bind(source.join("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        source.join("fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let chunked = tree.all();
    let sums = tree.unpack(&chunked).unwrap();
    assert_eq!(listed(&tree.at("dest")), before);
    let contents: Vec<_> = chunked
        .chunks
        .iter()
        .map(|chunk| chunk.content.clone())
        .collect();
    assert_eq!(sums, contents);
    assert_eq!((chunked.left_out.len(), chunked.entries), (0, 11));
}

#[test]
fn chunks_one_behind_the_other_are_an_archive_that_others_read() {
    let tree = Fixture::new();
    tree.write("d/file", b"text");
    tree.write("big", &noise(4, 5 << 20));
    let chunked = tree.all();
    let archive = tree.at("archive.tar.zst");
    let output = fs::File::create(&archive).unwrap();
    let streamed = stream_folder(&tree.at("source"), &output, &AtomicBool::new(false)).unwrap();
    assert_eq!(streamed, chunked);
    let joined: Vec<_> = tree
        .paths(&chunked)
        .iter()
        .flat_map(|path| fs::read(path).unwrap())
        .collect();
    assert_eq!(fs::read(&archive).unwrap(), joined);
    let plain = tree.at("archive.tar");
    fs::write(&plain, zstd::decode_all(&joined[..]).unwrap()).unwrap();
    assert_eq!(fs::metadata(&plain).unwrap().len(), chunked.total_bytes);
    let listed = Command::new("tar").arg("-tf").arg(&plain).output().unwrap();
    assert!(listed.status.success());
    assert_eq!(
        String::from_utf8(listed.stdout).unwrap(),
        "big\nd/\nd/file\n"
    );
}

#[test]
fn an_empty_folder_is_a_folder() {
    let tree = Fixture::new();
    let chunked = tree.all();
    assert_eq!((chunked.chunks.len(), chunked.total_bytes), (1, 1024));
    tree.unpack(&chunked).unwrap();
    assert!(listed(&tree.at("dest")).is_empty());
}

#[test]
fn the_number_of_threads_changes_no_chunk() {
    let tree = Fixture::new();
    for number in 0..40 {
        tree.write(
            &format!("d{}/f{number}", number % 7),
            &noise(number, 150_000 * usize::from(number)),
        );
    }
    let one = tree.chunks(&Known::new(), 1);
    assert!(one.chunks.len() > 60);
    for threads in [2, 8] {
        assert_eq!(tree.chunks(&Known::new(), threads), one);
    }
}

/// Chunks of the second that are not in the first.
fn new_chunks(before: &Chunked, after: &Chunked) -> (usize, u64) {
    let old: HashSet<_> = before.chunks.iter().map(|chunk| &chunk.digest).collect();
    let new: Vec<_> = after
        .chunks
        .iter()
        .filter(|chunk| !old.contains(&chunk.digest))
        .collect();
    (new.len(), new.iter().map(|chunk| chunk.size).sum())
}

#[test]
fn a_small_change_changes_few_chunks() {
    let tree = Fixture::new();
    for number in 0..100 {
        tree.write(&format!("d/{number:03}"), &noise(number, 400_000));
    }
    tree.write("z/big", &noise(200, 20 << 20));
    let before = tree.all();
    let total: u64 = before.chunks.iter().map(|chunk| chunk.size).sum();
    assert!(before.chunks.len() > 40);
    // A file more at the front moves everything behind it.
    tree.write("a", &noise(201, 100_000));
    tree.write("d/050", b"changed");
    let after = tree.all();
    let (count, bytes) = new_chunks(&before, &after);
    assert!(
        count <= 8 && bytes < total / 6,
        "{count} chunks, {bytes} of {total} bytes"
    );
    // Other bytes within a big file and some more at its end; it is called otherwise from now on.
    let mut big = noise(200, 20 << 20);
    big[9_000_000..9_000_009].copy_from_slice(b"otherwise");
    big.extend_from_slice(b"some more");
    tree.write("q/big", &big);
    fs::remove_dir_all(tree.at("source/z")).unwrap();
    let (count, bytes) = new_chunks(&after, &tree.all());
    assert!(
        count <= 5 && bytes < total / 6,
        "{count} chunks, {bytes} of {total} bytes"
    );
}

#[test]
fn what_is_known_is_not_compressed_again() {
    let tree = Fixture::new();
    tree.write("big", &noise(5, 9 << 20));
    let first = tree.all();
    let known = first
        .chunks
        .iter()
        .map(|chunk| (chunk.content.clone(), (chunk.digest.clone(), chunk.size)));
    let known: Known = known.collect();
    fs::remove_dir_all(tree.at("spool")).unwrap();
    fs::create_dir(tree.at("spool")).unwrap();
    let second = tree.chunks(&known, 2);
    assert!(second.chunks.iter().all(|chunk| chunk.known));
    assert_eq!(fs::read_dir(tree.at("spool")).unwrap().count(), 0);
    assert_eq!(new_chunks(&first, &second).0, 0);
}

#[test]
fn files_that_change_and_vanish_meanwhile_break_no_archive() {
    let tree = Fixture::new();
    for number in 0..60 {
        tree.write(
            &format!("d{}/small{number}", number % 3),
            &noise(number, 60_000),
        );
    }
    tree.write("big", &noise(1, 8 << 20));
    tree.write("e/big", &noise(2, 8 << 20));
    let stop = AtomicBool::new(false);
    let source = tree.at("source");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let name = format!("d{}/small{}", round % 3, round % 60);
                let _ = fs::write(source.join(&name), noise(round as u8, 1000 * (round % 90)));
                let _ = fs::remove_file(source.join(format!("d1/small{}", (round + 31) % 60)));
                let big = fs::OpenOptions::new()
                    .write(true)
                    .open(source.join("e/big"));
                let _ = big.map(|file| file.set_len(((round % 9) << 20) as u64));
            }
        });
        for round in 0..10 {
            let chunked = tree.all();
            let dest = tree.at(&format!("dest{round}"));
            fs::create_dir(&dest).unwrap();
            let done = unpack_chunks(
                &tree.paths(&chunked),
                &dest,
                chunked.total_bytes,
                &AtomicBool::new(false),
            );
            done.unwrap();
            assert_eq!(fs::read(dest.join("big")).unwrap(), noise(1, 8 << 20));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_link_that_leads_out_is_not_followed() {
    let tree = Fixture::new();
    fs::write(tree.at("outside/secret"), "secret").unwrap();
    symlink(tree.at("outside"), tree.at("source/folder")).unwrap();
    symlink(tree.at("outside/secret"), tree.at("source/file")).unwrap();
    let chunked = tree.all();
    assert_eq!(chunked.entries, 2);
    tree.unpack(&chunked).unwrap();
    assert!(fs::symlink_metadata(tree.at("dest/folder"))
        .unwrap()
        .is_symlink());
}

#[test]
fn hostile_archives_stay_inside() {
    for entries in [
        vec![file("../outside/x", "x")],
        vec![file("/../../outside/x", "x")],
        vec![link("l", b'2', "../outside"), file("l/x", "x")],
        vec![
            folder("a"),
            link("a/l", b'2', "../../outside"),
            link("b", b'1', "a/l/secret"),
        ],
        vec![link("h", b'1', "../outside/secret"), file("h", "x")],
    ] {
        let tree = Fixture::new();
        fs::write(tree.at("outside/secret"), "secret").unwrap();
        let done = tree.foreign(&tar(&entries));
        assert!(matches!(done, Ok(_) | Err(Error::Layer { .. })), "{done:?}");
        let names: Vec<_> = fs::read_dir(tree.at("outside")).unwrap().collect();
        assert_eq!(names.len(), 1, "something landed outside");
        assert_eq!(fs::metadata(tree.at("outside/secret")).unwrap().nlink(), 1);
    }
}

#[test]
fn chunks_that_are_none_are_refused() {
    let unpack = |frame: &[u8], total: u64| {
        let tree = Fixture::new();
        let path = tree.at("spool/chunk");
        fs::write(&path, frame).unwrap();
        unpack_chunks(&[path], &tree.at("dest"), total, &AtomicBool::new(false))
    };
    let bomb = zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap();
    assert!(bomb.len() < 10_000);
    let short = tar(&[file("a", "x")]);
    let frame = zstd::encode_all(&short[..], 3).unwrap();
    for broken in [
        &b"no zstd"[..],
        &bomb,
        &frame[..frame.len() - 5],
        &vec![0; 5 << 20],
    ] {
        assert!(matches!(unpack(broken, 1024), Err(Error::Layer { .. })));
    }
    assert!(matches!(
        unpack(&frame, 1),
        Err(Error::Size { expected: 1, .. })
    ));
    assert!(matches!(
        unpack(b"", 1024),
        Err(Error::Size { actual: 0, .. })
    ));
    assert!(unpack(&frame, short.len() as u64).is_ok());
}

#[test]
fn it_can_be_stopped_and_says_what_failed() {
    let tree = Fixture::new();
    tree.write("big", &noise(6, 6 << 20));
    let (source, spool) = (tree.at("source"), tree.at("spool"));
    let known = Known::new();
    let stopped = chunk_folder(&source, &spool, &known, None, &AtomicBool::new(true));
    assert!(matches!(stopped, Err(Error::Interrupted)));
    let failed = chunk_folder(
        &source,
        &tree.at("no"),
        &known,
        None,
        &AtomicBool::new(false),
    );
    assert!(
        matches!(failed, Err(Error::Io { op: "create", .. })),
        "{failed:?}"
    );
    let failed = chunk_folder(
        &tree.at("no"),
        &spool,
        &known,
        None,
        &AtomicBool::new(false),
    );
    assert!(matches!(failed, Err(Error::Io { op: "open", .. })));
    let chunked = tree.all();
    let stop = AtomicBool::new(true);
    let stopped = unpack_chunks(
        &tree.paths(&chunked),
        &tree.at("dest"),
        chunked.total_bytes,
        &stop,
    );
    assert!(matches!(stopped, Err(Error::Interrupted)));
}

#[derive(Debug, Clone)]
enum Thing {
    File(Vec<u8>, u32),
    Folder(u32),
    Symlink(String),
    Hardlink(usize),
}

fn thing() -> impl Strategy<Value = Thing> {
    let mode = 0_u32..0o1000;
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..2_000),
        (any::<u8>(), 0_usize..3_000_000).prop_map(|(seed, length)| noise(seed, length)),
    ];
    prop_oneof![
        4 => (content, mode).prop_map(|(content, mode)| Thing::File(content, mode | 0o400)),
        2 => (0_u32..0o1000).prop_map(|mode| Thing::Folder(mode | 0o700)),
        1 => "[a-z./]{1,120}".prop_map(Thing::Symlink),
        1 => (0_usize..20).prop_map(Thing::Hardlink),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_tree_comes_back_and_is_cut_alike(
        things in proptest::collection::vec(("[a-zé.]{1,60}", any::<usize>(), thing()), 0..14),
        threads in 1_usize..5,
    ) {
        let tree = Fixture::new();
        let mut folders = vec![tree.at("source")];
        let mut files: Vec<PathBuf> = Vec::new();
        let mut modes = Vec::new();
        for (name, place, thing) in things {
            let path = folders[place % folders.len()].join(name);
            if path.symlink_metadata().is_ok() || path.ends_with("..") || path.ends_with(".") {
                continue;
            }
            match thing {
                Thing::File(content, mode) => {
                    fs::write(&path, content).unwrap();
                    modes.push((path.clone(), mode));
                    files.push(path);
                }
                Thing::Folder(mode) => {
                    fs::create_dir(&path).unwrap();
                    modes.push((path.clone(), mode));
                    folders.push(path);
                }
                Thing::Symlink(target) => symlink(target, &path).unwrap(),
                Thing::Hardlink(place) if !files.is_empty() => {
                    fs::hard_link(&files[place % files.len()], &path).unwrap();
                }
                Thing::Hardlink(_) => {}
            }
        }
        for (path, mode) in modes {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let chunked = tree.chunks(&Known::new(), threads);
        tree.unpack(&chunked).unwrap();
        prop_assert_eq!(listed(&tree.at("dest")), listed(&tree.at("source")));
        // The copy is cut alike: what was imported on another machine is not uploaded again.
        let again = chunk_folder(&tree.at("dest"), &tree.at("outside"), &Known::new(), None, &AtomicBool::new(false));
        prop_assert_eq!(again.unwrap(), chunked);
    }
}
