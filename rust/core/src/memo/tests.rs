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

/// What is known of some files, in the order of the questions.
fn find(memo: &DigestMemo, stamps: &[Stamp]) -> Vec<Option<Known>> {
    let mut asked: Vec<u32> = (0..stamps.len() as u32).collect();
    let stamp = |number: u32| stamps[number as usize];
    asked.sort_by_key(|&number| (stamp(number).dev, stamp(number).ino));
    let mut found = vec![None; stamps.len()];
    memo.find(&asked, stamp, |number, known| {
        found[number as usize] = Some(known);
    });
    found
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
    let found = find(&memo, &(0..101).map(stamp).collect::<Vec<_>>());
    for (n, answer) in found.iter().take(100).enumerate() {
        assert_eq!(*answer, Some(known(n as u8)));
    }
    assert_eq!(found[100], None);
    let mut moved = stamp(5);
    moved.ctime += 1;
    assert_eq!(find(&memo, &[moved]), [None]);
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
fn a_broken_part_holds_nothing_and_the_others_what_they_held() {
    let (_dir, path) = at_hand();
    let memo = DigestMemo::open(&path);
    let stamps: Vec<Stamp> = (0..1000).map(stamp).collect();
    let files = stamps.iter().map(|&stamp| (stamp, known(stamp.ino as u8)));
    memo.record(now_nanos(), local(), files);
    memo.save().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let memo = DigestMemo::open(&path);
    let found = find(&memo, &stamps);
    let missing: Vec<usize> = (0..1000).filter(|&at| found[at].is_none()).collect();
    assert_eq!(missing, (256..512).collect::<Vec<_>>());
    assert!((0..1000).all(|at| found[at].is_none() || found[at] == Some(known(at as u8))));
}

#[test]
fn what_is_learned_is_written_down_before_it_is_much_and_known_all_the_same() {
    let (_dir, path) = at_hand();
    let memo = DigestMemo::open(&path);
    let count = 3 * RUN as u64 + 100;
    let stamps: Vec<Stamp> = (0..count).map(stamp).collect();
    for batch in stamps.chunks(64).rev() {
        let stamps = batch.iter().copied();
        memo.record(
            now_nanos(),
            local(),
            stamps.map(|one| (one, known(one.ino as u8))),
        );
        assert!(memo.lock().learned.len() <= RUN);
    }
    assert!(memo.lock().runs.len() >= 3);
    for _ in 0..2 {
        let found = find(&memo, &stamps);
        assert!((0..count).all(|at| found[at as usize] == Some(known(at as u8))));
        memo.save().unwrap();
        assert_eq!(memo.len() as u64, count);
    }
    let names = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(names, 1);
}

#[test]
fn the_oldest_make_room_where_there_is_none() {
    let (_dir, path) = at_hand();
    let value = |used| Value {
        known: known(0),
        used,
    };
    let inner = |ages: &[(u32, usize)]| {
        let mut learned = Vec::new();
        for &(age, count) in ages {
            let files = learned.len()..learned.len() + count;
            learned.extend(files.map(|ino| (stamp(ino as u64), value(50 - age))));
        }
        Inner {
            learned,
            generation: 50,
            ..Inner::default()
        }
    };
    assert_eq!(
        inner(&[(0, 600_000), (1, 300_000), (3, 300_000)]).oldest_kept(),
        2
    );
    assert_eq!(inner(&[(0, 600_000), (1, 500_000)]).oldest_kept(), 0);
    let mut large = inner(&[(0, MAX_ENTRIES + 5), (1, 5)]);
    assert_eq!(large.oldest_kept(), 0);
    large.write(&path).unwrap();
    assert_eq!(DigestMemo::open(&path).len(), MAX_ENTRIES + 5);
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
        find(&memo, &[stamp(1)]);
        memo.save().unwrap();
    }
    let memo = DigestMemo::open(&path);
    let found = find(&memo, &[stamp(1), stamp(2)]);
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
    assert_eq!(find(&memo, &[late]), [Some(known(1))]);
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
        rounds in vec((vec((any_stamp(), 0_u8..9), 0..12), vec(any_stamp(), 0..20), any::<bool>(), any::<bool>()), 1..6),
    ) {
        let (_dir, path) = at_hand();
        let mut memo = DigestMemo::open(&path);
        let mut map = std::collections::BTreeMap::new();
        for (learned, asked, spilled, again) in rounds {
            let clock = Clock { dev: 7, is_local: true };
            let files = learned.iter().map(|&(stamp, byte)| (stamp, known(byte)));
            memo.record(now_nanos(), clock, files.clone());
            map.extend(files);
            let expected: Vec<_> = asked.iter().map(|stamp| map.get(stamp).copied()).collect();
            if spilled {
                memo.lock().write_down(&path);
            }
            prop_assert_eq!(find(&memo, &asked), expected);
            if again {
                memo.save().unwrap();
                prop_assert_eq!(memo.len(), map.len());
                memo = DigestMemo::open(&path);
            }
        }
    }
}
