//! Tests of `memo`.

#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The clock of a file system of this kernel's own, with the device of [`stamp`].
fn local() -> Clock {
    Clock {
        dev: 7,
        is_local: true,
    }
}

fn stamp(ino: u64) -> Stamp {
    Stamp {
        dev: 7,
        ino,
        size: ino * 10,
        mtime: -5,
        ctime: 1_000,
    }
}

fn known(byte: u8) -> Known {
    Known {
        digest: [byte; 32],
        has_xattrs: byte % 2 == 1,
    }
}

fn at_hand() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memo");
    (dir, path)
}

#[test]
fn what_was_recorded_is_known_after_a_save() {
    let (_dir, path) = at_hand();
    let memo = DigestMemo::open(&path);
    memo.record(
        now_nanos(),
        local(),
        (0..100).map(|n| (stamp(n), known(n as u8))),
    );
    memo.save().unwrap();
    let memo = DigestMemo::open(&path);
    let found = memo.find((0..101).map(stamp));
    for (n, answer) in found.iter().take(100).enumerate() {
        assert_eq!(*answer, Some(known(n as u8)));
    }
    assert_eq!(found[100], None);
    let mut moved = stamp(5);
    moved.ctime += 1;
    assert_eq!(memo.find([moved].into_iter()), [None]);
}

#[test]
fn a_file_changed_in_the_same_tick_is_not_recorded() {
    let (_dir, path) = at_hand();
    let memo = DigestMemo::open(&path);
    let began = now_nanos();
    let mut young = stamp(1);
    young.ctime = began - 1_000_000;
    memo.record(began, local(), [(young, known(1))].into_iter());
    assert!(memo.is_empty());
}

#[test]
fn a_broken_or_foreign_file_is_an_empty_memo() {
    let (_dir, path) = at_hand();
    let memo = DigestMemo::open(&path);
    memo.record(now_nanos(), local(), (0..10).map(|n| (stamp(n), known(0))));
    memo.save().unwrap();
    let good = std::fs::read(&path).unwrap();
    for at in [0, 9, 13, 40, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(DigestMemo::open(&path).is_empty());
    }
    for length in [0, 5, 31, 32, 48, good.len() - 80] {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(DigestMemo::open(&path).is_empty());
    }
}

#[test]
fn entries_not_asked_for_are_dropped_in_the_end() {
    let (_dir, path) = at_hand();
    let memo = DigestMemo::open(&path);
    memo.record(
        now_nanos(),
        local(),
        [(stamp(1), known(1)), (stamp(2), known(2))].into_iter(),
    );
    for n in 0..=KEPT_SAVES + 1 {
        memo.record(
            now_nanos(),
            local(),
            [(stamp(1000 + u64::from(n)), known(0))].into_iter(),
        );
        memo.find([stamp(1)].into_iter());
        memo.save().unwrap();
    }
    let memo = DigestMemo::open(&path);
    let found = memo.find([stamp(1), stamp(2)].into_iter());
    assert_eq!(found, [Some(known(1)), None]);
}

#[test]
fn saving_without_news_writes_nothing() {
    let (_dir, path) = at_hand();
    DigestMemo::open(&path).save().unwrap();
    assert!(!path.exists());
}

#[test]
fn what_can_change_within_its_tick_depends_on_the_file_system() {
    let began = 1_000_000 * SECOND_NANOS;
    let foreign = Clock {
        dev: 7,
        is_local: false,
    };
    let mounted_below = Clock {
        dev: 8,
        is_local: true,
    };
    let aged = |nanos: i64| Stamp {
        ctime: began - nanos,
        ..stamp(1)
    };
    let age = 30_000_001;
    assert!(local().settled(&aged(age), began));
    assert!(!local().settled(&aged(5_000_001), began));
    // Whole seconds: the file system may count in no less.
    assert!(!local().settled(&aged(2 * SECOND_NANOS), began));
    assert!(local().settled(&aged(5 * SECOND_NANOS), began));
    for clock in [foreign, mounted_below] {
        assert!(!clock.settled(&aged(5 * SECOND_NANOS + age), began));
        assert!(clock.settled(&aged(90 * SECOND_NANOS), began));
    }
}

#[test]
fn a_file_of_the_future_is_not_recorded_while_the_clock_is_behind_it() {
    let (_dir, path) = at_hand();
    let memo = DigestMemo::open(&path);
    let began = now_nanos();
    let mut late = stamp(1);
    late.ctime = began + 3600 * SECOND_NANOS;
    memo.record(began, local(), [(late, known(1))].into_iter());
    assert!(memo.is_empty());
    memo.record(
        late.ctime + SECOND_NANOS,
        local(),
        [(late, known(1))].into_iter(),
    );
    assert_eq!(memo.find([late].into_iter()), [Some(known(1))]);
}

#[test]
fn the_clock_of_a_folder_here_is_its_file_system_s() {
    let dir = tempfile::tempdir().unwrap();
    let folder = std::fs::File::open(dir.path()).unwrap();
    let clock = Clock::of(&folder).unwrap();
    let stat = rustix::fs::fstat(&folder).unwrap();
    assert_eq!(clock.dev, stat.st_dev);
}

fn any_stamp() -> impl Strategy<Value = Stamp> {
    // Few numbers, so that files share a device, an inode, or all but one time.
    (7_u64..9, 0_u64..6, 0_u64..2, 0_i64..2).prop_map(|(dev, ino, size, mtime)| Stamp {
        dev,
        ino,
        size,
        mtime,
        ctime: 1_000,
    })
}

proptest! {
    #[test]
    fn a_memo_answers_as_a_map_would_whatever_is_asked_in_whatever_order(
        rounds in vec((vec((any_stamp(), 0_u8..9), 0..12), vec(any_stamp(), 0..20), any::<bool>()), 1..6),
    ) {
        let (_dir, path) = at_hand();
        let mut memo = DigestMemo::open(&path);
        let mut map = std::collections::BTreeMap::new();
        for (learned, asked, again) in rounds {
            let clock = Clock { dev: 7, is_local: true };
            let files = learned.iter().map(|&(stamp, byte)| (stamp, known(byte)));
            memo.record(now_nanos(), clock, files.clone());
            map.extend(files);
            let expected: Vec<_> = asked.iter().map(|stamp| map.get(stamp).copied()).collect();
            prop_assert_eq!(memo.find(asked.iter().copied()), expected);
            prop_assert_eq!(memo.len(), map.len());
            if again {
                memo.save().unwrap();
                memo = DigestMemo::open(&path);
            }
        }
    }
}
