//! Counts that every request changes, in a cache line of each thread's own: a line that two threads write goes to and fro
//! between them, at the price of some hundred instructions each time.

use std::{cell::Cell, sync::OnceLock};

/// Threads past this number share stripes: what is read is the sum, and memory is not without end.
const STRIPES_MAX: usize = 8;

thread_local! {
    /// Which stripe the thread counts in, and how many there are.
    static MINE: Cell<(usize, usize)> = const { Cell::new((0, 1)) };
}

/// The calling thread is number `index` of `of` that count what every request counts. One that never says so counts
/// with the first.
pub fn count_as(index: usize, of: usize) {
    let of = of.clamp(1, STRIPES_MAX);
    MINE.set((index % of, of));
}

/// One `T` for each thread. The others but the first come with the first use by one of them: what a single thread uses
/// takes the memory of one.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Striped<T> {
    first: Line<T>,
    others: OnceLock<Box<[Line<T>]>>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line<T>(T);

impl<T: Default> Striped<T> {
    /// That of the calling thread.
    pub fn mine(&self) -> &T {
        match MINE.get() {
            (0, _) => &self.first.0,
            (index, of) => {
                let others = self.others.get_or_init(|| (1..of).map(|_| Line::default()).collect());
                &others[(index - 1) % others.len()].0
            }
        }
    }

    /// Those of all threads that have one.
    pub fn each(&self) -> impl Iterator<Item = &T> {
        let others = self.others.get().into_iter().flatten();
        std::iter::once(&self.first).chain(others).map(|line| &line.0)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering::Relaxed},
        thread,
    };

    use super::*;

    fn total(count: &Striped<AtomicU64>) -> u64 {
        count.each().map(|one| one.load(Relaxed)).sum()
    }

    #[test]
    fn what_every_thread_counts_adds_up() {
        for threads in [1, 2, 7, 8, 9, 20] {
            let count = Striped::<AtomicU64>::default();
            thread::scope(|scope| {
                for index in 0..threads {
                    let count = &count;
                    scope.spawn(move || {
                        count_as(index, threads);
                        (0..1000).for_each(|_| _ = count.mine().fetch_add(1, Relaxed));
                    });
                }
            });
            assert_eq!(total(&count), 1000 * threads as u64);
            assert_eq!(count.each().count(), threads.min(STRIPES_MAX));
        }
    }

    #[test]
    fn a_single_thread_and_one_that_never_said_who_it_is_share_the_first() {
        let count = Striped::<AtomicU64>::default();
        thread::scope(|scope| {
            scope.spawn(|| count.mine().fetch_add(1, Relaxed));
            scope.spawn(|| {
                count_as(0, 16);
                count.mine().fetch_add(1, Relaxed)
            });
        });
        assert_eq!((count.each().count(), total(&count)), (1, 2));
    }

    #[test]
    fn threads_of_another_number_find_a_stripe_too() {
        let count = Striped::<AtomicU64>::default();
        for (index, of) in [(1, 2), (7, 8), (3, 4)] {
            thread::scope(|scope| {
                scope.spawn(|| {
                    count_as(index, of);
                    count.mine().fetch_add(1, Relaxed)
                });
            });
        }
        assert_eq!(total(&count), 3);
    }
}
