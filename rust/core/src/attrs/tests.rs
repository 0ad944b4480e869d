//! Tests of `attrs`.

#![allow(clippy::unwrap_used)]
use super::*;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn entry(kind: Kind, mode: u32) -> Entry {
    Entry {
        path: Vec::new(),
        kind,
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: 1_000,
        mtime_nanos: 5,
        size: 0,
        xattrs: Vec::new(),
    }
}

fn folder() -> (tempfile::TempDir, File) {
    let dir = tempfile::tempdir().unwrap();
    let open = File::open(dir.path()).unwrap();
    (dir, open)
}

fn read_back(dir: &File, name: &str) -> Attrs {
    read(dir.as_fd(), OsStr::new(name)).unwrap().unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_file_comes_back_as_it_was_written() {
    let (_keep, dir) = folder();
    let mut wanted = entry(Kind::File, 0o4751);
    wanted.xattrs = vec![(b"user.note".to_vec(), b"x".repeat(2_000))];
    if is_root() {
        (wanted.uid, wanted.gid) = (33, 44);
    }
    let name = OsStr::new("a");
    let file = create(dir.as_fd(), name, Writer::birth_mode(&wanted)).unwrap();
    Writer::new(Owners::Keep)
        .file(file.as_fd(), &wanted)
        .unwrap();
    let found = read_back(&dir, "a");
    assert_eq!(found.entry, wanted);
    assert_eq!(found.nlink, 1);
    let opened = read_open(file.as_fd()).unwrap().unwrap();
    assert_eq!(opened.entry, wanted);
}

#[test]
fn overlays_and_our_own_xattrs_are_not_the_images() {
    for name in [
        "user.overlay.redirect",
        "user.img.override",
        "trusted.overlay.opaque",
        "user.",
        "security.selinux",
        "trusted.x",
    ] {
        assert!(!belongs_to_image(name.as_bytes()), "{name}");
    }
    for name in ["user.a", "security.capability", "system.posix_acl_access"] {
        assert!(belongs_to_image(name.as_bytes()), "{name}");
    }
}

#[test]
fn an_archives_opaque_xattr_is_not_set() {
    let (_keep, dir) = folder();
    let mut wanted = entry(Kind::Directory, 0o755);
    wanted.xattrs = vec![(XATTR_OPAQUE.as_bytes().to_vec(), b"y".to_vec())];
    rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o700)).unwrap();
    Writer::new(Owners::Keep)
        .named(dir.as_fd(), OsStr::new("d"), &wanted)
        .unwrap();
    assert_eq!(read_back(&dir, "d").mark, Mark::Plain);
}

#[test]
fn where_devices_are_refused_a_marked_file_is_the_whiteout() {
    let folder = tempfile::tempdir().unwrap();
    let dir = File::open(folder.path()).unwrap();
    stand_in_whiteout(dir.as_fd(), OsStr::new("gone")).unwrap();
    stand_in_whiteout(dir.as_fd(), OsStr::new("also")).unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    for (name, mark) in [("gone", Mark::Whiteout), ("empty", Mark::Plain)] {
        let name = OsStr::new(name);
        assert_eq!(read(dir.as_fd(), name).unwrap().unwrap().mark, mark);
        let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let told = is_whiteout_at(dir.as_fd(), name, &stat).unwrap();
        assert_eq!(told, mark == Mark::Whiteout);
    }
}

#[test]
fn whiteouts_and_opaque_folders_are_told() {
    let (keep, dir) = folder();
    make_whiteout(dir.as_fd(), OsStr::new("gone")).unwrap();
    fs::create_dir(keep.path().join("d")).unwrap();
    make_opaque(File::open(keep.path().join("d")).unwrap().as_fd()).unwrap();
    assert_eq!(read_back(&dir, "gone").mark, Mark::Whiteout);
    assert_eq!(read_back(&dir, "d").mark, Mark::Opaque);
    assert!(read_back(&dir, "d").entry.xattrs.is_empty());
}

#[test]
fn a_device_0_0_of_an_archive_is_no_whiteout() {
    let (_keep, dir) = folder();
    let wanted = entry(Kind::CharDevice { major: 0, minor: 0 }, 0o600);
    Writer::new(Owners::Keep)
        .make_node(dir.as_fd(), OsStr::new("n"), &wanted)
        .unwrap();
    let found = read_back(&dir, "n");
    assert_eq!(found.mark, Mark::Plain);
    assert_eq!(found.entry, wanted);
}

#[test]
fn an_override_gives_owner_and_device_but_not_a_stale_mode() {
    let (keep, dir) = folder();
    let path = keep.path().join("f");
    fs::write(&path, b"x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let target = Target::named(dir.as_fd(), OsStr::new("f")).unwrap();
    target
        .set(XATTR_OVERRIDE.as_bytes(), b"7:8:100600:0:0")
        .unwrap();
    let found = read_back(&dir, "f").entry;
    assert_eq!((found.uid, found.gid, found.mode), (7, 8, 0o755));
    target
        .set(XATTR_OVERRIDE.as_bytes(), b"7:8:nonsense")
        .unwrap();
    assert_eq!(
        read_back(&dir, "f").entry.uid,
        fs::metadata(&path).unwrap().uid()
    );
}

#[test]
fn a_kept_capability_reads_as_the_real_one() {
    let (keep, dir) = folder();
    fs::write(keep.path().join("f"), b"x").unwrap();
    let target = Target::named(dir.as_fd(), OsStr::new("f")).unwrap();
    target.set(KEPT_CAPABILITY, b"caps").unwrap();
    let found = read_back(&dir, "f").entry.xattrs;
    assert_eq!(found, vec![(CAPABILITY.to_vec(), b"caps".to_vec())]);
}

#[test]
fn an_unmappable_owner_is_recorded() {
    let (_keep, dir) = folder();
    let mut wanted = entry(Kind::File, 0o400);
    (wanted.uid, wanted.gid) = (u32::MAX, 12);
    let name = OsStr::new("f");
    let file = create(dir.as_fd(), name, Writer::birth_mode(&wanted)).unwrap();
    Writer::new(Owners::Keep)
        .file(file.as_fd(), &wanted)
        .unwrap();
    assert_eq!(read_back(&dir, "f").entry, wanted);
}

#[test]
fn a_socket_is_no_entry() {
    let (keep, dir) = folder();
    let _socket = std::os::unix::net::UnixListener::bind(keep.path().join("s")).unwrap();
    assert_eq!(read(dir.as_fd(), OsStr::new("s")).unwrap(), None);
}

#[test]
fn a_symlink_is_read_itself() {
    let (keep, dir) = folder();
    std::os::unix::fs::symlink("/nowhere/at all", keep.path().join("l")).unwrap();
    let mut wanted = entry(Kind::Symlink(b"/nowhere/at all".to_vec()), 0o777);
    wanted.mtime = -3;
    Writer::new(Owners::Keep)
        .named(dir.as_fd(), OsStr::new("l"), &wanted)
        .unwrap();
    assert_eq!(read_back(&dir, "l").entry, wanted);
}
