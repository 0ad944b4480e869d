//! [`explore`]: walks a tree on several threads, one folder at a time each.
//!
//! `pack` and `select` say what a folder is and what is kept of it; this hands folders out, stops
//! at the first error, and gives the results back in an order that does not depend on the threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::cancel::Cancel;
use crate::{Error, Result};

/// Number of threads for work that is bound by the processor: the cores at hand, within reason.
/// They are counted once: that reads the control groups' limits.
pub fn thread_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let cores = std::thread::available_parallelism();
        cores.map_or(2, |cores| cores.get().clamp(2, 6))
    })
}

/// Hands out the folders below the one being visited.
pub struct Found<'a, J> {
    next_id: &'a AtomicUsize,
    jobs: Vec<(usize, J)>,
}

impl<J> Found<'_, J> {
    /// Has a folder visited later; returns the index of its result.
    pub fn folder(&mut self, job: J) -> usize {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.jobs.push((id, job));
        id
    }
}

/// Jobs that the calling thread does before it asks for help: most trees have no more.
const ALONE: usize = 8;

/// What the threads share. Each keeps the folders that it finds to itself, and goes on with them;
/// only while another one has none does it hand half of them over. So they rarely meet.
struct Shared<J> {
    queue: Mutex<Queue<J>>,
    changed: Condvar,
    /// Threads that wait for jobs.
    hungry: AtomicUsize,
    failed: AtomicBool,
}

struct Queue<J> {
    jobs: Vec<(usize, J)>,
    /// Threads that have jobs, and so may find more.
    busy: usize,
    error: Option<Error>,
}

/// Visits `first` (index 0) and everything that the visits find; returns the results by index.
pub fn explore<J: Send, T: Send>(
    threads: usize,
    cancel: &Cancel,
    first: J,
    visit: impl Fn(J, &mut Found<'_, J>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let visit = |job, found: &mut Found<'_, J>, (): &mut ()| visit(job, found);
    explore_with(threads, cancel, first, |_| (), visit).map(|(results, _)| results)
}

/// The same, where each thread has something of its own, made by `own` of its number, that the
/// visits fill; returns these too, by number.
pub fn explore_with<J: Send, T: Send, S: Send>(
    threads: usize,
    cancel: &Cancel,
    first: J,
    own: impl Fn(usize) -> S + Sync,
    visit: impl Fn(J, &mut Found<'_, J>, &mut S) -> Result<T> + Sync,
) -> Result<(Vec<T>, Vec<S>)> {
    let next_id = AtomicUsize::new(1);
    let shared = Shared::new(first);
    let run = |limit: usize, own: &mut S| {
        let mut results = Vec::new();
        let mut found = Found {
            next_id: &next_id,
            jobs: Vec::new(),
        };
        while results.len() < limit && shared.fill(&mut found.jobs) {
            while let Some((id, job)) = found.jobs.pop() {
                match cancel.check().and_then(|()| visit(job, &mut found, own)) {
                    Ok(result) => results.push((id, result)),
                    Err(error) => shared.fail(error),
                }
                if shared.failed.load(Ordering::Relaxed) {
                    found.jobs.clear();
                }
                if results.len() >= limit {
                    break;
                }
                shared.feed(&mut found.jobs);
            }
            shared.give_back(&mut found.jobs);
        }
        results
    };
    let mut owned = vec![own(0)];
    let mut results = run(ALONE, &mut owned[0]);
    if !shared.lock().jobs.is_empty() {
        results.extend(std::thread::scope(|scope| {
            let help = |number| {
                let mut own = own(number);
                (run(usize::MAX, &mut own), own)
            };
            let others: Vec<_> = (1..threads)
                .map(|number| scope.spawn(move || help(number)))
                .collect();
            let mut results = run(usize::MAX, &mut owned[0]);
            for other in others {
                let more = other.join();
                let (more, own) = more.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                results.extend(more);
                owned.push(own);
            }
            results
        }));
    }
    Ok((shared.finish(results)?, owned))
}

impl<J> Shared<J> {
    fn new(first: J) -> Self {
        Self {
            queue: Mutex::new(Queue {
                jobs: vec![(0, first)],
                busy: 0,
                error: None,
            }),
            changed: Condvar::new(),
            hungry: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        }
    }

    /// Waits for jobs and takes one; false where none is left and nobody can find more.
    fn fill(&self, jobs: &mut Vec<(usize, J)>) -> bool {
        let mut queue = self.lock();
        loop {
            if queue.error.is_some() {
                return false;
            }
            if let Some(job) = queue.jobs.pop() {
                queue.busy += 1;
                jobs.push(job);
                return true;
            }
            if queue.busy == 0 {
                return false;
            }
            self.hungry.fetch_add(1, Ordering::Relaxed);
            let woken = self.changed.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
            self.hungry.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Hands over half of the jobs where another thread has none: the oldest, which hold the most.
    fn feed(&self, jobs: &mut Vec<(usize, J)>) {
        if jobs.len() > 1 && self.hungry.load(Ordering::Relaxed) > 0 {
            let half = jobs.len() / 2;
            self.lock().jobs.extend(jobs.drain(..half));
            self.changed.notify_all();
        }
    }

    /// Ends what `fill` began: this thread is no longer busy.
    fn give_back(&self, jobs: &mut Vec<(usize, J)>) {
        let mut queue = self.lock();
        queue.jobs.append(jobs);
        queue.busy -= 1;
        self.changed.notify_all();
    }

    fn fail(&self, error: Error) {
        self.lock().error.get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The results in their order, or the first error.
    fn finish<T>(self, mut results: Vec<(usize, T)>) -> Result<Vec<T>> {
        let queue = self.queue.into_inner();
        let queue = queue.unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = queue.error {
            return Err(error);
        }
        results.sort_unstable_by_key(|(id, _)| *id);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_folder_is_visited_once_and_results_stand_at_their_index() {
        for threads in [1, 2, 8] {
            let results = explore(threads, &Cancel::default(), 0_u32, |depth, found| {
                let below: Vec<usize> = (0..if depth < 6 { 3 } else { 0 })
                    .map(|_| found.folder(depth + 1))
                    .collect();
                Ok((depth, below))
            })
            .unwrap();
            assert_eq!(
                results.len(),
                (0..=6).map(|n| 3_usize.pow(n)).sum::<usize>()
            );
            for (depth, below) in &results {
                assert!(below.iter().all(|&id| results[id].0 == depth + 1));
            }
        }
    }

    #[test]
    fn an_error_ends_the_walk() {
        let result = explore(4, &Cancel::default(), 0_u32, |depth, found| {
            found.folder(depth + 1);
            if depth == 50 {
                return Err(Error::Interrupted);
            }
            Ok(())
        });
        assert!(matches!(result, Err(Error::Interrupted)));
    }

    #[test]
    fn a_cancelled_walk_stops() {
        let cancel = Cancel::default();
        let result = explore(2, &cancel, 0_u32, |depth, found| {
            found.folder(depth + 1);
            if depth == 10 {
                cancel.stop();
            }
            Ok(())
        });
        assert!(matches!(result, Err(Error::Interrupted)));
    }
}
