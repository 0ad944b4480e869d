//! Tests of `copy`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};

use rustix::fs::{FileType, Mode};

use super::*;
use crate::memo::DigestMemo;
use crate::pack;
use crate::select;
use crate::Error;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["context", "base"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_600_000_000_700);
        file.set_modified(time).unwrap();
    }

    fn folder(&self, path: &str, mode: u32) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.dir.path().join(path)).unwrap();
    }

    fn select(&self, patterns: &[&str]) -> Selection {
        let patterns: Vec<String> = patterns.iter().map(|&one| one.to_owned()).collect();
        let request = select::Request {
            patterns: &patterns,
            ..select::Request::default()
        };
        Selection::new(
            &self.dir.path().join("context"),
            &request,
            &Cancel::default(),
        )
        .unwrap()
    }

    fn try_copy(&self, patterns: &[&str], request: &Request) -> Result<Packed> {
        let upper = self.dir.path().join("upper");
        let _ = fs::remove_dir_all(&upper);
        fs::create_dir(&upper).unwrap();
        let selection = self.select(patterns);
        let parents = [self.dir.path().join("base")];
        copy_layer(&[&selection], &parents, &upper, request, &Cancel::default())
    }

    /// Copies, checks that packing the upper folder again gives the same layer, and lists it.
    fn copy_with(&self, patterns: &[&str], request: &Request) -> Vec<String> {
        let packed = self.try_copy(patterns, request).unwrap();
        let upper = self.dir.path().join("upper");
        let again = pack::pack_layer(&upper, &pack::Request::default(), &Cancel::default());
        assert_eq!(packed, again.unwrap());
        let mut found = Vec::new();
        list(&upper, &upper, &mut found);
        found
    }

    fn copy(&self, patterns: &[&str], dest: &str) -> Vec<String> {
        self.copy_with(patterns, &to(dest))
    }

    fn refusal(&self, patterns: &[&str], dest: &str) -> String {
        self.try_copy(patterns, &to(dest)).unwrap_err().to_string()
    }
}

fn to(dest: &str) -> Request {
    Request {
        dest: dest.to_owned(),
        ..Request::default()
    }
}

fn list(root: &Path, folder: &Path, found: &mut Vec<String>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        found.push(format!(
            "{name} {:o} {}:{}",
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid()
        ));
        if meta.is_dir() {
            list(root, &path, found);
        }
    }
}

fn sample() -> Fixture {
    let tree = Fixture::new();
    tree.file("context/a.txt", "alpha");
    tree.file("context/src/main.c", "int main;");
    tree.file("context/src/deep/x", "x");
    for (path, mode) in [
        ("a.txt", 0o640),
        ("src/main.c", 0o644),
        ("src/deep/x", 0o755),
    ] {
        let path = tree.dir.path().join("context").join(path);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    tree.folder("context/src/deep", 0o750);
    tree.folder("context/src", 0o711);
    tree
}

#[test]
fn one_file_is_renamed_or_goes_into_a_folder() {
    let tree = sample();
    assert_eq!(tree.copy(&["a.txt"], "/b.txt"), ["b.txt 640 0:0"]);
    assert_eq!(
        tree.copy(&["a.txt"], "/new/deep/"),
        ["new 755 0:0", "new/deep 755 0:0", "new/deep/a.txt 640 0:0"]
    );
    tree.folder("base/opt", 0o1777);
    assert_eq!(
        tree.copy(&["a.txt"], "/opt"),
        ["opt 1777 0:0", "opt/a.txt 640 0:0"]
    );
    assert_eq!(tree.copy(&["a.txt"], "/"), ["a.txt 640 0:0"]);
    let meta = fs::metadata(tree.dir.path().join("upper/a.txt")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_600_000_000, 0));
}

#[test]
fn a_folder_means_its_contents_and_a_new_one_is_like_any_other() {
    let tree = sample();
    let below = |path: &str| {
        [
            format!("{path} 755 0:0"),
            format!("{path}/deep 750 0:0"),
            format!("{path}/deep/x 755 0:0"),
            format!("{path}/main.c 644 0:0"),
        ]
    };
    assert_eq!(tree.copy(&["src"], "/app"), below("app"));
    tree.folder("base/app/deep", 0o700);
    tree.folder("base/app", 0o700);
    let found = tree.copy(&["src"], "/app/");
    assert_eq!(found[0], "app 700 0:0");
    assert_eq!(found[1], "app/deep 750 0:0");
}

#[test]
fn symlinks_among_the_parents_are_followed_inside_the_image() {
    let tree = sample();
    tree.folder("base/usr/lib", 0o755);
    tree.folder("base/usr", 0o755);
    tree.link("base/lib", "/usr/lib");
    tree.link("base/out", "../../../../etc");
    let found = tree.copy(&["a.txt"], "/lib/x/");
    assert_eq!(found.last().unwrap(), "usr/lib/x/a.txt 640 0:0");
    let found = tree.copy(&["a.txt"], "/out/a");
    assert_eq!(found, ["etc 755 0:0", "etc/a 640 0:0"]);
    assert_eq!(tree.copy(&["src"], "/lib").len(), 5);
}

#[test]
fn a_symlink_at_the_end_is_followed() {
    let tree = sample();
    tree.file("base/real", "old");
    tree.link("base/alias", "real");
    tree.link("base/dangling", "nowhere");
    assert_eq!(tree.copy(&["a.txt"], "/alias"), ["real 640 0:0"]);
    assert_eq!(tree.copy(&["a.txt"], "/dangling"), ["nowhere 640 0:0"]);
}

#[test]
fn files_and_folders_do_not_replace_one_another() {
    let tree = sample();
    tree.file("base/file", "");
    tree.file("base/app/deep", "");
    tree.folder("base/dir/a.txt", 0o755);
    assert!(tree.refusal(&["src"], "/file").contains("must be a folder"));
    assert!(tree
        .refusal(&["a.txt", "src"], "/file")
        .contains("a folder onto a file"));
    assert!(tree
        .refusal(&["a.txt"], "/file/")
        .contains("must be a folder"));
    assert!(tree
        .refusal(&["a.txt"], "/file/x")
        .contains("where a folder must be"));
    assert!(tree
        .refusal(&["src"], "/app")
        .contains("a folder onto a file"));
    assert!(tree
        .refusal(&["a.txt"], "/dir/")
        .contains("a file onto a folder"));
}

#[test]
fn what_comes_first_makes_the_destination_a_file_or_a_folder() {
    let tree = sample();
    tree.file("context/b.txt", "b");
    for patterns in [&["a.txt", "b.txt"][..], &["*.txt"]] {
        assert_eq!(tree.copy(patterns, "/new").len(), 1);
        let content = fs::read(tree.dir.path().join("upper/new"));
        assert_eq!(content.unwrap(), b"b");
    }
    assert_eq!(tree.copy(&["*.txt"], "/new/").len(), 3);
    assert_eq!(tree.copy(&["src", "a.txt"], "/new").len(), 5);
    let refusal = tree.refusal(&["a.txt", "src"], "/new");
    assert!(refusal.contains("a folder onto a file"), "{refusal}");
    tree.folder("base/opt", 0o755);
    assert_eq!(tree.copy(&["a.txt", "src"], "/opt").len(), 5);
}

#[test]
fn wildcards_that_match_nothing_make_nothing() {
    let tree = sample();
    assert!(tree.copy(&["*.none"], "/new/").is_empty());
    assert_eq!(tree.copy(&["*.none", "a.txt"], "/new").len(), 1);
}

#[test]
fn folders_that_are_missing_take_an_octal_mode_but_no_changes() {
    let tree = sample();
    let mode = |mode: &str| Request {
        mode: Some(mode.to_owned()),
        ..to("/new/a")
    };
    let found = tree.copy_with(&["a.txt"], &mode("04710"));
    assert_eq!(found, ["new 710 0:0", "new/a 4710 0:0"]);
    let found = tree.copy_with(&["a.txt"], &mode("u=rwx,go="));
    assert_eq!(found, ["new 755 0:0", "new/a 700 0:0"]);
}

#[test]
fn what_comes_out_of_an_archive_replaces_and_keeps_its_mode() {
    let tree = sample();
    tree.file("base/app/deep", "");
    tree.folder("base/app/main.c", 0o755);
    tree.folder("base/app", 0o700);
    let patterns = [".".to_owned()];
    let request = select::Request {
        patterns: &patterns,
        unpacked: Some(&[]),
        ..select::Request::default()
    };
    let folder = tree.dir.path().join("context/src");
    let archive = Selection::new(&folder, &request, &Cancel::default()).unwrap();
    let upper = tree.dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let request = Request {
        mode: Some("0600".to_owned()),
        owner: Some((3, 4)),
        ..to("/app")
    };
    let parents = [tree.dir.path().join("base")];
    copy_layer(&[&archive], &parents, &upper, &request, &Cancel::default()).unwrap();
    let mut found = Vec::new();
    list(&upper, &upper, &mut found);
    let wanted = [
        "app 700 0:0",
        "app/deep 750 3:4",
        "app/deep/x 755 3:4",
        "app/main.c 644 3:4",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn owner_and_mode_apply_to_everything_copied() {
    let tree = sample();
    tree.link("context/src/link", "main.c");
    let request = Request {
        owner: Some((1000, 33)),
        mode: Some("u=rwX,go=rX".to_owned()),
        ..to("/srv/app")
    };
    let found = tree.copy_with(&["src"], &request);
    let wanted = [
        "srv 755 1000:33",
        "srv/app 755 1000:33",
        "srv/app/deep 755 1000:33",
        "srv/app/deep/x 755 1000:33",
        "srv/app/link 777 1000:33",
        "srv/app/main.c 644 1000:33",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn set_id_bits_xattrs_and_special_files_are_kept() {
    let tree = sample();
    let path = tree.dir.path().join("context/src/main.c");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&path, "user.note", b"kept", flags).unwrap();
    let fifo = tree.dir.path().join("context/src/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket =
        std::os::unix::net::UnixListener::bind(tree.dir.path().join("context/src/socket"));
    let found = tree.copy(&["src"], "/app");
    assert_eq!(found[3..], ["app/main.c 4755 0:0", "app/pipe 400 0:0"]);
    let mut value = [0; 8];
    let copy = tree.dir.path().join("upper/app/main.c");
    let length = rustix::fs::getxattr(copy, "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"kept");
}

#[test]
fn a_name_that_looks_like_a_whiteout_is_refused() {
    let tree = sample();
    tree.file("context/src/.wh.etc", "");
    assert!(tree.refusal(&["src"], "/app").contains(".wh."));
}

#[test]
fn the_later_of_two_sources_stands() {
    let tree = sample();
    tree.file("context/other/main.c", "the later one");
    let upper = tree.dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let (first, second) = (tree.select(&["src"]), tree.select(&["other"]));
    let sources = [&first, &second];
    copy_layer(&sources, &[], &upper, &to("/app"), &Cancel::default()).unwrap();
    let content = fs::read_to_string(upper.join("app/main.c")).unwrap();
    assert_eq!(content, "the later one");
    let mode = fs::metadata(upper.join("app")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn known_digests_are_taken_only_for_the_same_state_of_a_file() {
    let tree = sample();
    let upper = tree.dir.path().join("upper");
    let selection = tree.select(&["src"]);
    selection.content_digest(None, &Cancel::default()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    tree.file("context/src/main.c", "INT MAIN;");
    fs::create_dir(&upper).unwrap();
    let packed = copy_layer(&[&selection], &[], &upper, &to("/app"), &Cancel::default());
    let again = pack::pack_layer(&upper, &pack::Request::default(), &Cancel::default());
    assert_eq!(
        packed.unwrap().content_digest,
        again.unwrap().content_digest
    );
}

#[test]
fn directories_are_made_where_the_layers_lack_them() {
    let tree = Fixture::new();
    tree.folder("base/srv", 0o711);
    tree.file("base/file", "");
    let make = |dest: &str| {
        let upper = tree.dir.path().join("upper");
        let _ = fs::remove_dir_all(&upper);
        fs::create_dir(&upper).unwrap();
        let parents = [tree.dir.path().join("base")];
        let made = make_directory(&parents, &upper, dest, (5, 6), 0o755, &Cancel::default())?;
        let mut found = Vec::new();
        list(&upper, &upper, &mut found);
        Ok::<_, Error>((made.entries, found))
    };
    let (entries, found) = make("/srv/app/data").unwrap();
    assert_eq!(entries, 3);
    assert_eq!(
        found,
        ["srv 711 0:0", "srv/app 755 5:6", "srv/app/data 755 5:6"]
    );
    assert_eq!(make("/srv").unwrap(), (0, vec![]));
    assert_eq!(make("/").unwrap(), (0, vec![]));
    assert!(make("/file").is_err());
}

/// The names of `upper`, each with the first one of the same file.
fn inodes(tree: &Fixture, names: &[&str]) -> Vec<usize> {
    let upper = tree.dir.path().join("upper");
    let inode = |name: &&str| fs::symlink_metadata(upper.join(name)).unwrap().ino();
    let all: Vec<u64> = names.iter().map(inode).collect();
    all.iter()
        .map(|one| all.iter().position(|other| other == one).unwrap())
        .collect()
}

fn linked() -> Fixture {
    let tree = Fixture::new();
    tree.file("context/s/d/a", "same");
    tree.file("context/s/e/other", "same");
    for name in ["d/b", "e/c", "z"] {
        let context = tree.dir.path().join("context/s");
        fs::hard_link(context.join("d/a"), context.join(name)).unwrap();
    }
    tree
}

#[test]
fn names_of_one_file_in_one_folder_stay_that() {
    let tree = linked();
    let names = ["o/d/a", "o/d/b", "o/e/c", "o/e/other", "o/z"];
    for mode in [None, Some("640"), Some("u+x,g-r")] {
        let request = Request {
            mode: mode.map(str::to_owned),
            threads: Some(1),
            ..to("/o/")
        };
        tree.copy_with(&["s"], &request);
        assert_eq!(inodes(&tree, &names), [0, 0, 0, 3, 0]);
        let one = tree.try_copy(&["s"], &request).unwrap();
        let request = Request {
            threads: Some(6),
            ..request
        };
        assert_eq!(tree.try_copy(&["s"], &request).unwrap(), one);
    }
}

#[test]
fn names_in_two_sources_and_names_that_are_named_are_files_of_their_own() {
    let tree = linked();
    tree.copy(&["s/d", "s/e"], "/o/");
    assert_eq!(inodes(&tree, &["o/a", "o/b", "o/c"]), [0, 0, 2]);
    tree.copy(&["s/d/a", "s/d/b"], "/o/");
    assert_eq!(inodes(&tree, &["o/a", "o/b"]), [0, 1]);
}

#[test]
fn a_first_name_that_a_later_source_takes_is_no_target() {
    let tree = linked();
    tree.file("context/t/d/a", "later");
    tree.copy(&["s", "t"], "/o/");
    let names = ["o/d/a", "o/d/b", "o/e/c", "o/z"];
    assert_eq!(inodes(&tree, &names), [0, 1, 1, 1]);
    let upper = tree.dir.path().join("upper/o/d");
    assert_eq!(fs::read_to_string(upper.join("a")).unwrap(), "later");
    assert_eq!(fs::read_to_string(upper.join("b")).unwrap(), "same");
}

#[test]
fn a_file_that_changed_after_its_digest_is_told_and_digested_anew() {
    let fixture = Fixture::new();
    fixture.file("context/a", "one");
    fixture.file("context/b", "two");
    let selection = fixture.select(&["."]);
    let cancel = Cancel::default();
    selection.content_digest(None, &cancel).unwrap();
    // Of the same length, and as soon as a program can: perhaps within the tick of the first write.
    fixture.file("context/a", "six");
    let copied = |selection: &Selection| {
        let upper = tempfile::tempdir_in(fixture.dir.path()).unwrap();
        copy_layer(&[selection], &[], upper.path(), &to("/d/"), &cancel).unwrap()
    };
    let stale = copied(&selection);
    assert_eq!(stale.drifted.as_deref(), Some("a"));
    let selection = fixture.select(&["."]);
    selection.content_digest(None, &cancel).unwrap();
    let fresh = copied(&selection);
    assert_eq!(fresh.drifted, None);
    assert_eq!(stale.content_digest, fresh.content_digest);
    assert_eq!(stale.diff_id, fresh.diff_id);
}

#[test]
fn what_a_copy_notes_is_what_reading_it_before_would_have_told() {
    let fixture = Fixture::new();
    for name in ["a", "d/b", "d/empty"] {
        fixture.file(
            &format!("context/{name}"),
            name.strip_suffix("d/empty").unwrap_or(name),
        );
    }
    fs::hard_link(
        fixture.dir.path().join("context/a"),
        fixture.dir.path().join("context/d/c"),
    )
    .unwrap();
    let cancel = Cancel::default();
    let copied = |selection: &Selection| {
        let upper = tempfile::tempdir_in(fixture.dir.path()).unwrap();
        copy_layer(&[selection], &[], upper.path(), &to("/d/"), &cancel).unwrap()
    };
    let (before, after) = (fixture.select(&["."]), fixture.select(&["."]));
    let digest = before.content_digest(None, &cancel).unwrap();
    let packed = copied(&before);
    after.recall(None).unwrap();
    assert_eq!(copied(&after), packed);
    // What was copied is not read again: nothing of it is there any more.
    fs::rename(
        fixture.dir.path().join("context"),
        fixture.dir.path().join("gone"),
    )
    .unwrap();
    assert_eq!(after.content_digest(None, &cancel).unwrap(), digest);
}

#[test]
fn a_file_that_a_later_source_covers_is_read_for_the_digest_all_the_same() {
    let fixture = Fixture::new();
    fixture.file("context/s/a", "covered");
    fixture.file("context/t/a", "stands");
    let cancel = Cancel::default();
    let digests = |recalled: bool| {
        let sources = [fixture.select(&["s"]), fixture.select(&["t"])];
        if recalled {
            let upper = tempfile::tempdir_in(fixture.dir.path()).unwrap();
            for source in &sources {
                source.recall(None).unwrap();
            }
            let sources = [&sources[0], &sources[1]];
            copy_layer(&sources, &[], upper.path(), &to("/d/"), &cancel).unwrap();
        }
        sources.map(|source| source.content_digest(None, &cancel).unwrap())
    };
    assert_eq!(digests(true), digests(false));
}

#[test]
fn a_file_that_changes_before_it_is_copied_has_the_digest_of_what_was_copied() {
    let fixture = Fixture::new();
    fixture.file("context/a", "one");
    let memo = DigestMemo::open(&fixture.dir.path().join("memo"));
    let cancel = Cancel::default();
    fixture
        .select(&["."])
        .content_digest(Some(&memo), &cancel)
        .unwrap();
    let selection = fixture.select(&["."]);
    selection.recall(Some(&memo)).unwrap();
    fixture.file("context/a", "another");
    let upper = tempfile::tempdir_in(fixture.dir.path()).unwrap();
    let packed = copy_layer(&[&selection], &[], upper.path(), &to("/d/"), &cancel).unwrap();
    assert_eq!(packed.drifted, None);
    let now = fixture
        .select(&["."])
        .content_digest(None, &cancel)
        .unwrap();
    assert_eq!(selection.content_digest(Some(&memo), &cancel).unwrap(), now);
}
