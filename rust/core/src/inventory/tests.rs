//! Tests of `inventory`.

#![allow(clippy::unwrap_used)]

use rustix::fs::FileType;

use super::*;

fn found(name: &str) -> Found<'_> {
    Found {
        name: name.as_bytes(),
        look: Look {
            mode: FileType::RegularFile.as_raw_mode() | 0o644,
            ..Look::default()
        },
        stamp: Stamp {
            ino: name.len() as u64,
            mtime: 7_000_000_009,
            ..Stamp::default()
        },
        seconds: 7,
        ..Found::default()
    }
}

fn folder_look() -> Own {
    Own {
        look: Look {
            mode: FileType::Directory.as_raw_mode() | 0o755,
            ..Look::default()
        },
        ..Own::default()
    }
}

/// `src` with `a`, `b/c` and `b/d/` (hidden, with what `deep` says) and `z`, from two threads.
fn walked(deep: &[&str]) -> (Vec<Folder>, Vec<Part>) {
    let (mut one, mut other) = (Part::default(), Part::default());
    one.add(found("z")).unwrap();
    one.add_folder(b"b", 1, 0).unwrap();
    one.add(found("a")).unwrap();
    let top = one.close(0, 0, folder_look());
    other.add_folder(b"d", 2, HIDDEN).unwrap();
    other.add(found("c")).unwrap();
    let below = other.close(1, 0, folder_look());
    let start = one.len();
    for name in deep {
        one.add(found(name)).unwrap();
    }
    let deepest = one.close(0, start, folder_look());
    (vec![top, below, deepest], vec![one, other])
}

fn inventory(deep: &[&str]) -> Inventory {
    let mut inventory = Inventory::default();
    let (folders, parts) = walked(deep);
    inventory.adopt(b"src", folders, parts).unwrap();
    inventory.prune(None);
    inventory
}

fn shown(inventory: &Inventory) -> Vec<String> {
    let (mut lines, mut tour) = (Vec::new(), inventory.tour());
    while let Some(at) = tour.next() {
        let (mut path, mut dest) = (Vec::new(), Vec::new());
        inventory.append_path(at, &mut path);
        inventory.append_dest(at, &mut dest);
        assert_eq!((tour.path(), tour.dest()), (&path[..], &dest[..]));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        lines.push(format!("{}={}", text(path), text(dest)));
    }
    assert_eq!(lines.len(), inventory.count());
    lines
}

#[test]
fn a_tour_is_in_the_order_of_a_tar_whoever_found_what() {
    let lines = [
        "src/a=a",
        "src/b=b",
        "src/b/c=b/c",
        "src/b/d=b/d",
        "src/b/d/e=b/d/e",
        "src/z=z",
    ];
    assert_eq!(shown(&inventory(&["e"])), lines);
}

#[test]
fn a_hidden_folder_is_there_for_what_is_in_it_alone() {
    assert_eq!(
        shown(&inventory(&[])),
        ["src/a=a", "src/b=b", "src/b/c=b/c", "src/z=z"]
    );
}

#[test]
fn walks_and_single_names_stand_one_after_the_other() {
    let mut inventory = inventory(&["e"]);
    inventory.add_single(b"src/b", None, found("c")).unwrap();
    inventory.add_single(b"src/b", None, found("x")).unwrap();
    inventory
        .add_single(b"src/b", Some(b"src/b/c"), found("alias"))
        .unwrap();
    let (folders, parts) = walked(&["e"]);
    inventory.adopt(b"", folders, parts).unwrap();
    let lines = shown(&inventory);
    let singles = ["src/b/c=c", "src/b/x=x", "src/b/c=alias"];
    assert_eq!(lines[6..9], singles);
    assert_eq!(lines[9..12], ["a=a", "b=b", "b/c=b/c"]);
    assert_eq!(inventory.tops(), 4);
    assert!(!inventory.is_in_order());
}

#[test]
fn every_object_has_a_slot_of_its_own_and_files_come_by_inode() {
    let inventory = inventory(&["long name", "mid"]);
    let mut slots = Vec::new();
    let mut tour = inventory.tour();
    while let Some(at) = tour.next() {
        let slot = inventory.slot(at);
        assert_eq!(inventory.stamp_in(slot as u32), inventory.stamp(at));
        slots.push(slot);
    }
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), inventory.count());
    let inodes: Vec<u64> = inventory
        .files_by_inode()
        .into_iter()
        .map(|slot| inventory.stamp_in(slot).ino)
        .collect();
    assert_eq!(inodes, [1, 1, 1, 3, 9]);
}

#[test]
fn what_is_rare_is_kept_beside_and_a_time_out_of_range_too() {
    let mut part = Part::default();
    let far = i64::from(u32::MAX) * 1000;
    part.add(Found {
        xattrs: vec![(b"user.note".to_vec(), b"1".to_vec())],
        seconds: far,
        stamp: Stamp {
            mtime: i64::MAX,
            ..Stamp::default()
        },
        ..found("far")
    })
    .unwrap();
    part.add(Found {
        seconds: -1,
        stamp: Stamp {
            mtime: -500_000_000,
            ..Stamp::default()
        },
        target: b"to"[..].into(),
        ..found("before")
    })
    .unwrap();
    let folder = part.close(0, 0, folder_look());
    let mut inventory = Inventory::default();
    inventory.adopt(b"", vec![folder], vec![part]).unwrap();
    let at = |place| At { folder: 0, place };
    assert_eq!(inventory.name(at(1)), b"far");
    assert_eq!(
        (inventory.seconds(at(1)), inventory.xattrs(at(1)).len()),
        (far, 1)
    );
    assert_eq!(
        (inventory.seconds(at(0)), inventory.xattrs(at(0)).len()),
        (-1, 0)
    );
    assert_eq!(
        (inventory.target(at(0)), inventory.target(at(1))),
        (&b"to"[..], &b""[..])
    );
}

#[test]
fn a_file_costs_as_much_in_a_deep_tree_as_in_a_flat_one() {
    let (folders, files) = (1_000, 100);
    let names: Vec<String> = (0..files)
        .map(|number| format!("file-{number:04}"))
        .collect();
    let held = |parent: &dyn Fn(usize) -> usize| {
        let mut part = Part::default();
        let mut all = Vec::new();
        for number in 0..folders {
            let start = part.len();
            for below in (number + 1..folders).filter(|&below| parent(below) == number) {
                part.add_folder(format!("folder-{below:04}").as_bytes(), below, 0)
                    .unwrap();
            }
            for name in &names {
                part.add(found(name)).unwrap();
            }
            all.push(part.close(0, start, folder_look()));
        }
        let mut inventory = Inventory::default();
        inventory.adopt(b"", all, vec![part]).unwrap();
        assert_eq!(inventory.count(), folders * (files + 1) - 1);
        inventory.held_bytes()
    };
    let flat = held(&|_| 0);
    let deep = held(&|below| below - 1);
    assert_eq!(flat, deep);
    let file = size_of::<Object>() + names[0].len();
    assert!(flat <= folders * (files * file + 150), "{flat}");
}
