//! Tests of `apply`.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::attrs::{read, Attrs, Mark};
use crate::tar_read::build::{entry, file, folder, header, link, pax, seal, tar};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("layer")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        Self { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("layer").join(path)
    }

    fn run(&self, form: Form, entries: &[Vec<u8>]) -> Result<Counts> {
        let stream = tar(entries);
        let stop = AtomicBool::new(false);
        extract(&stream[..], &self.at(""), form, &stop).map(|(counts, _)| counts)
    }

    fn layer(&self, entries: &[Vec<u8>]) -> Counts {
        self.run(Form::Layer, entries).unwrap()
    }

    fn refused(&self, entries: &[Vec<u8>]) -> String {
        match self.run(Form::Layer, entries) {
            Err(error @ Error::Layer { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn attrs(&self, path: &str) -> Attrs {
        let path = self.at(path);
        let parent = File::open(path.parent().unwrap()).unwrap();
        read(parent.as_fd(), path.file_name().unwrap())
            .unwrap()
            .unwrap()
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn pending(&self) -> Pending {
        Pending::load(&self.at("")).unwrap().unwrap_or_default()
    }

    fn outside_is_untouched(&self) -> bool {
        fs::read_dir(self.dir.path().join("outside"))
            .unwrap()
            .count()
            == 0
    }
}

/// A fresh layer of these entries.
fn layer(entries: &[Vec<u8>]) -> Fixture {
    let fixture = Fixture::new();
    fixture.layer(entries);
    fixture
}

#[test]
fn a_plain_layer_is_extracted() {
    let large = "0123456789".repeat(100_000);
    let tree = Fixture::new();
    let counts = tree.layer(&[
        folder("d/"),
        file("d/small", "hello"),
        file("d/empty", ""),
        file("d/large", &large),
        link("d/soft", b'2', "small"),
        link("hard", b'1', "d/small"),
    ]);
    assert_eq!(tree.text("d/small"), "hello");
    assert_eq!(tree.text("d/empty"), "");
    assert_eq!(tree.text("d/large"), large);
    assert_eq!(
        fs::read_link(tree.at("d/soft")).unwrap(),
        Path::new("small")
    );
    assert_eq!(tree.attrs("hard").ino, tree.attrs("d/small").ino);
    assert_eq!(
        (counts.entries, counts.whiteouts, counts.pending),
        (6, 0, false)
    );
    assert_eq!(counts.bytes_written, 5 + large.len() as u64);
    for path in ["d", "d/small", "d/large", "d/soft"] {
        assert_eq!(tree.attrs(path).entry.mtime, 1_000, "{path}");
    }
    assert_eq!(tree.attrs("d").entry.mode, 0o755);
    assert_eq!(fs::metadata(tree.at("")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn many_small_files_all_arrive() {
    let mut entries = vec![folder("a"), folder("b")];
    for number in 0..1_000 {
        let parent = if number % 3 == 0 { "a" } else { "b" };
        entries.push(file(
            &format!("{parent}/{number}"),
            &format!("content {number}"),
        ));
    }
    let tree = layer(&entries);
    for number in 0..1_000 {
        let parent = if number % 3 == 0 { "a" } else { "b" };
        assert_eq!(
            tree.text(&format!("{parent}/{number}")),
            format!("content {number}")
        );
    }
}

#[test]
fn owners_modes_xattrs_and_nanoseconds_are_kept() {
    let mut head = header(b"f", b'0', 0, b"");
    head[100..108].copy_from_slice(b"0006755\0");
    head[108..116].copy_from_slice(b"0000041\0");
    seal(&mut head);
    let records = [
        ("mtime", &b"7.000000009"[..]),
        ("SCHILY.xattr.user.k", b"v"),
    ];
    let tree = layer(&[pax(&records), head.to_vec()]);
    let found = tree.attrs("f").entry;
    assert_eq!((found.uid, found.mode), (0o41, 0o6755));
    assert_eq!((found.mtime, found.mtime_nanos), (7, 9));
    assert_eq!(found.xattrs, vec![(b"user.k".to_vec(), b"v".to_vec())]);
}

#[test]
fn absolute_names_land_inside() {
    let tree = layer(&[file("/etc/x", "in")]);
    assert_eq!(tree.text("etc/x"), "in");
}

#[test]
fn dotdot_is_refused() {
    assert!(Fixture::new()
        .refused(&[file("../outside/x", "")])
        .contains("out of the layer"));
}

#[test]
fn a_symlinked_parent_outside_is_walked_inside() {
    let tree = Fixture::new();
    let outside = tree.dir.path().join("outside");
    tree.layer(&[
        link("abs", b'2', outside.to_str().unwrap()),
        link("rel", b'2', "../outside"),
        file("abs/x", "x"),
        file("rel/y", "y"),
    ]);
    assert!(tree.outside_is_untouched());
    assert_eq!(tree.text("outside/y"), "y");
}

#[test]
fn a_file_through_a_final_symlink_replaces_the_link() {
    let tree = Fixture::new();
    let target = tree.dir.path().join("outside/x");
    tree.layer(&[
        link("l", b'2', target.to_str().unwrap()),
        file("l", "inside"),
    ]);
    assert!(tree.outside_is_untouched());
    assert_eq!(tree.text("l"), "inside");
}

#[test]
fn a_hard_link_through_a_symlink_stays_inside() {
    let tree = Fixture::new();
    fs::write(tree.dir.path().join("secret"), "secret").unwrap();
    let entries = [link("up", b'2', "../.."), link("x", b'1', "up/secret")];
    assert!(tree.layer(&entries).pending);
    assert!(!tree.at("x").exists());
}

#[test]
fn a_symlinked_parent_of_the_same_layer_is_followed() {
    let tree = layer(&[
        folder("usr/lib"),
        link("lib", b'2', "usr/lib"),
        file("lib/x", "x"),
    ]);
    assert_eq!(tree.text("usr/lib/x"), "x");
    assert!(tree.at("lib").is_symlink());
}

#[test]
fn a_hard_link_to_something_missing_waits_for_the_parents() {
    let tree = Fixture::new();
    let counts = tree.layer(&[link("x", b'1', "bin/y")]);
    assert!(counts.pending);
    assert_eq!(tree.pending().links[&b"x"[..]], b"bin/y");
    let archive = Fixture::new().run(Form::Archive, &[link("x", b'1', "y")]);
    assert!(matches!(archive, Err(Error::Layer { .. })));
}

#[test]
fn hard_links_to_folders_and_to_themselves_are_refused() {
    let entries = [folder("d"), link("x", b'1', "d")];
    assert!(Fixture::new().refused(&entries).contains("folder"));
    let entries = [file("x", ""), link("x", b'1', "x")];
    assert!(Fixture::new().refused(&entries).contains("itself"));
}

#[test]
fn a_parent_that_is_a_file_is_refused() {
    let entries = [file("f", ""), file("f/x", "")];
    assert!(Fixture::new().refused(&entries).contains("not a folder"));
}

#[test]
fn implied_folders_are_made_and_announced() {
    let tree = Fixture::new();
    let counts = tree.layer(&[file("a/b/c", ""), folder("a")]);
    assert!(counts.pending);
    let announced: Vec<_> = tree.pending().folders.into_iter().collect();
    assert_eq!(announced, [b"a/b".to_vec()]);
    assert_eq!(tree.attrs("a/b").entry.mode, 0o755);
}

#[test]
fn later_duplicates_replace_earlier_ones_of_any_type() {
    let tree = layer(&[
        file("x", "first"),
        file("x", "second"),
        folder("d"),
        file("d/in", ""),
        file("d", "now a file"),
        link("d2", b'2', "nowhere"),
        folder("d2"),
        file("d2/in", "in"),
        folder("d3"),
        file("d3/in", "kept"),
        folder("d3"),
        folder("d4/sub"),
        link("d4", b'2', "x"),
    ]);
    assert_eq!(tree.text("x"), "second");
    assert_eq!(tree.text("d"), "now a file");
    assert_eq!(tree.text("d2/in"), "in");
    assert_eq!(tree.text("d3/in"), "kept");
    assert_eq!(tree.text("d4"), "second");
}

#[test]
fn a_duplicate_through_a_symlink_is_seen() {
    let entries = [
        folder("real"),
        link("alias", b'2', "real"),
        file("real/x", "1"),
        file("alias/x", "2"),
    ];
    assert_eq!(layer(&entries).text("real/x"), "2");
}

#[test]
fn whiteouts_become_overlays() {
    let tree = Fixture::new();
    let counts = tree.layer(&[
        folder("d"),
        file("d/.wh.gone", ""),
        file(".wh.never-was", ""),
    ]);
    assert_eq!((counts.entries, counts.whiteouts), (1, 2));
    assert_eq!(tree.attrs("d/gone").mark, Mark::Whiteout);
    assert_eq!(tree.attrs("never-was").mark, Mark::Whiteout);
    assert!(!tree.at("d/.wh.gone").exists());
}

#[test]
fn opaque_markers_become_overlays() {
    let tree = layer(&[folder("d"), file("d/.wh..wh..opq", ""), file("d/new", "x")]);
    assert_eq!(tree.attrs("d").mark, Mark::Opaque);
    assert_eq!(tree.text("d/new"), "x");
}

#[test]
fn a_whiteout_does_not_hide_its_own_layers_entries() {
    for before in [true, false] {
        let whiteouts = [file(".wh.f", ""), file(".wh.d", "")];
        let own = [file("f", "own"), folder("d"), file("d/x", "own")];
        let entries = if before {
            [&whiteouts[..], &own[..]].concat()
        } else {
            [&own[..], &whiteouts[..]].concat()
        };
        let tree = layer(&entries);
        assert_eq!(tree.text("f"), "own");
        assert_eq!(tree.text("d/x"), "own");
        assert_eq!(tree.attrs("d").mark, Mark::Opaque);
    }
}

#[test]
fn whiteouts_of_no_name_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        assert!(
            Fixture::new()
                .refused(&[file(name, "")])
                .contains("no name"),
            "{name}"
        );
    }
    assert_eq!(
        fs::read_dir(layer(&[file(".wh..wh.plnk", "")]).at(""))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn whiteout_names_are_ordinary_in_an_archive() {
    let tree = Fixture::new();
    tree.run(Form::Archive, &[file(".wh.x", "kept")]).unwrap();
    assert_eq!(tree.text(".wh.x"), "kept");
}

#[test]
fn devices_and_pipes_are_made_or_recorded() {
    let mut null = header(b"null", b'3', 0, b"");
    null[329..337].copy_from_slice(b"0000001\0");
    null[337..345].copy_from_slice(b"0000003\0");
    seal(&mut null);
    let tree = layer(&[
        null.to_vec(),
        entry("pipe", b'6', b""),
        entry("zero", b'3', b""),
    ]);
    assert_eq!(
        tree.attrs("null").entry.kind,
        Kind::CharDevice { major: 1, minor: 3 }
    );
    assert!(fs::symlink_metadata(tree.at("pipe"))
        .unwrap()
        .file_type()
        .is_fifo());
    assert_eq!(tree.attrs("zero").mark, Mark::Plain);
    assert_eq!(
        tree.attrs("zero").entry.kind,
        Kind::CharDevice { major: 0, minor: 0 }
    );
}

#[test]
fn a_sparse_file_keeps_its_holes() {
    let records = [
        ("GNU.sparse.size", &b"50000000"[..]),
        ("GNU.sparse.map", b"10000000,3,20000000,3,50000000,0"),
    ];
    let tree = layer(&[pax(&records), file("s", "abcdef")]);
    let content = fs::read(tree.at("s")).unwrap();
    assert_eq!(content.len(), 50_000_000);
    assert_eq!(&content[10_000_000..10_000_003], b"abc");
    assert_eq!(&content[20_000_000..20_000_003], b"def");
    assert!(tree.attrs("s").entry.size == 50_000_000);
    assert!(fs::metadata(tree.at("s")).unwrap().blocks() < 100);
}

#[test]
fn the_roots_own_entry_gives_it_attributes() {
    let mut head = header(b"./", b'5', 0, b"");
    head[100..108].copy_from_slice(b"0000555\0");
    seal(&mut head);
    let tree = layer(&[head.to_vec(), file("x", "")]);
    let found = fs::metadata(tree.at("")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.mtime()), (0o555, 1_000));
    assert!(Fixture::new().refused(&[file(".", "x")]).contains("root"));
}

#[test]
fn a_set_group_id_folder_passes_nothing_on() {
    let mut head = header(b"d", b'5', 0, b"");
    head[100..108].copy_from_slice(b"0002775\0");
    head[116..124].copy_from_slice(b"0000062\0");
    seal(&mut head);
    let tree = layer(&[head.to_vec(), file("d/x", ""), folder("d/y")]);
    let own = rustix::process::getegid().as_raw();
    assert_eq!(tree.attrs("d").entry.gid, 0o62);
    assert_eq!(tree.attrs("d/x").entry.gid, own);
    assert_eq!(tree.attrs("d/y").entry.mode, 0o755);
}

#[test]
fn an_archive_may_go_over_what_is_there() {
    let tree = Fixture::new();
    fs::write(tree.at("x"), "old").unwrap();
    fs::create_dir(tree.at("d")).unwrap();
    fs::write(tree.at("d/kept"), "old").unwrap();
    let before = fs::metadata(tree.at("")).unwrap().mode();
    tree.run(Form::Archive, &[file("x", "new"), file("d/x", "new")])
        .unwrap();
    assert_eq!(
        (tree.text("x"), tree.text("d/x")),
        ("new".into(), "new".into())
    );
    assert_eq!(tree.text("d/kept"), "old");
    assert_eq!(fs::metadata(tree.at("")).unwrap().mode(), before);
}

#[test]
fn an_extraction_can_be_stopped() {
    let tree = Fixture::new();
    let stream = tar(&[file("x", "")]);
    let stop = AtomicBool::new(true);
    let stopped = extract(&stream[..], &tree.at(""), Form::Layer, &stop);
    assert!(matches!(stopped, Err(Error::Interrupted)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_order_of_hostile_entries_stays_inside(
        picks in proptest::collection::vec((0_usize..7, 0_usize..6, 0_usize..6), 1..24),
    ) {
        let names = ["a", "a/b", "b", "b/../c", "a/b/c", "c/d"];
        let targets = ["../..", "/outside", "b", "a/b", "../outside", "."];
        let entries: Vec<_> = picks.into_iter().map(|(what, name, target)| match what {
            0 => file(names[name], "x"),
            1 => folder(names[name]),
            2 => link(names[name], b'2', targets[target]),
            3 => link(names[name], b'1', names[target]),
            4 => file(&format!("{}/.wh.x", names[name]), ""),
            5 => file(&format!("{}/.wh..wh..opq", names[name]), ""),
            _ => entry(names[name], b'6', b""),
        }).collect();
        let tree = Fixture::new();
        let done = tree.run(Form::Layer, &entries);
        prop_assert!(matches!(done, Ok(_) | Err(Error::Layer { .. })), "{done:?}");
        prop_assert!(tree.outside_is_untouched());
    }
}
