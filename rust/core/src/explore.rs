//! [`explore`]: walks a tree on several threads, one folder at a time each.
//!
//! `pack` and `select` say what a folder is and what is kept of it; this hands folders out, stops
//! at the first error, and gives the results back in an order that does not depend on the threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::cancel::Cancel;
use crate::{Error, Result};

/// Number of threads for work that is bound by the processor: the cores at hand, within reason.
pub fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 6))
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

struct Queue<J> {
    jobs: Vec<(usize, J)>,
    busy: usize,
    failed: Option<Error>,
}

/// Visits `first` (index 0) and everything that the visits find; returns the results by index.
pub fn explore<J: Send, T: Send>(
    threads: usize,
    cancel: &Cancel,
    first: J,
    visit: impl Fn(J, &mut Found<'_, J>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next_id = AtomicUsize::new(1);
    let queue = Mutex::new(Queue {
        jobs: vec![(0, first)],
        busy: 0,
        failed: None,
    });
    let changed = Condvar::new();
    let run = |jobs: usize| {
        let mut results = Vec::new();
        for _ in 0..jobs {
            let Some((id, job)) = take(&queue, &changed) else {
                break;
            };
            let mut found = Found {
                next_id: &next_id,
                jobs: Vec::new(),
            };
            let result = cancel.check().and_then(|()| visit(job, &mut found));
            let mut queue = lock(&queue);
            queue.busy -= 1;
            match result {
                Ok(result) => {
                    results.push((id, result));
                    queue.jobs.append(&mut found.jobs);
                }
                Err(error) => {
                    queue.failed.get_or_insert(error);
                }
            }
            changed.notify_all();
        }
        results
    };
    let mut results = run(ALONE);
    if lock(&queue).jobs.is_empty() {
        return finish(queue, results);
    }
    results.extend(std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| scope.spawn(|| run(usize::MAX)))
            .collect();
        let mut results = run(usize::MAX);
        for other in others {
            results.extend(
                other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            );
        }
        results
    }));
    finish(queue, results)
}

/// The results in their order, or the first error.
fn finish<J, T>(queue: Mutex<Queue<J>>, mut results: Vec<(usize, T)>) -> Result<Vec<T>> {
    let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = queue.failed {
        return Err(error);
    }
    results.sort_unstable_by_key(|(id, _)| *id);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn take<J>(queue: &Mutex<Queue<J>>, changed: &Condvar) -> Option<(usize, J)> {
    let mut queue = lock(queue);
    loop {
        if queue.failed.is_some() {
            return None;
        }
        if let Some(job) = queue.jobs.pop() {
            queue.busy += 1;
            return Some(job);
        }
        if queue.busy == 0 {
            return None;
        }
        queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

fn lock<J>(queue: &Mutex<Queue<J>>) -> MutexGuard<'_, Queue<J>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
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
