//! Bells: no work is left that nobody was woken for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Flag, explore_all, part, together};
use crate::actors::bell::Bell;

/// W-08, H-35
#[test]
fn work_that_came_before_the_bell_rang_is_looked_at() {
    explore_all(|| {
        let bell = Arc::new(Bell::default());
        let work = [(); 2].map(|()| Arc::new(Flag::new(false)));
        let seen = [(); 2].map(|()| Arc::new(Flag::new(false)));
        let rings = |number: usize| {
            let (bell, work) = (bell.clone(), work[number].clone());
            part(move || {
                work.store(true, Ordering::Relaxed);
                bell.ring();
            })
        };
        let (answered, looked, noted) = (bell.clone(), work.clone(), seen.clone());
        let answers = part(move || {
            answered.answer();
            for (work, seen) in looked.iter().zip(&noted) {
                seen.store(work.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        });
        together([rings(0), rings(1), answers]);
        for seen in &seen {
            assert!(
                bell.is_ringing() || seen.load(Ordering::Relaxed),
                "nobody looks at it"
            );
        }
    });
}

/// W-08: of those who ring together, one wakes the actor.
#[test]
fn one_of_many_wakes() {
    explore_all(|| {
        let bell = Arc::new(Bell::default());
        let wakes = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let ring = || {
            let (bell, wakes) = (bell.clone(), wakes.clone());
            part(move || {
                wakes.fetch_add(u64::from(bell.ring()), Ordering::Relaxed);
            })
        };
        together([ring(), ring()]);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
    });
}
