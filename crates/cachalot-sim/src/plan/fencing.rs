//! Drawing which sets write through until their first flush, and which are taken over by another client. What is drawn
//! here comes from dice of its own, so that the rest of a seed's run is what it was without it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Op, Patience, Plan, Step, Ways};

impl Plan {
    pub(super) fn draw_fencing(&mut self, mut last_step: u32) {
        let mut dice = StdRng::seed_from_u64(self.seed.rotate_left(17) ^ 0xF3);
        for set in &mut self.sets {
            set.until_flush = dice.random_range(0..4) == 0;
        }
        if !self.is_faulty {
            return;
        }
        for set in 0..self.sets.len() {
            // What becomes of the rest's bytes when the set is given up is told by a purge's rules.
            let can_be_given_up = matches!(self.sets[set].ways, Ways::Plain | Ways::Purges);
            if !can_be_given_up || dice.random_range(0..3) == 0 {
                continue;
            }
            for _ in 0..dice.random_range(1..=3) {
                let reads = dice.random_range(0..3) == 0;
                let pause = Duration::from_millis([0, 1, 50, 1000][dice.random_range(0..4)]);
                let fence = Op::Fence { set, reads };
                insert(
                    &mut dice,
                    &mut self.operator,
                    &mut last_step,
                    (pause, fence),
                );
            }
            for _ in 0..dice.random_range(0..=6) {
                let caller = dice.random_range(0..self.callers.len());
                let give_up = (Duration::ZERO, Op::GiveUp { set });
                insert(
                    &mut dice,
                    &mut self.callers[caller],
                    &mut last_step,
                    give_up,
                );
            }
        }
    }
}

/// Puts a step among others.
fn insert(
    dice: &mut StdRng,
    steps: &mut Vec<Step>,
    last_step: &mut u32,
    (pause, op): (Duration, Op),
) {
    *last_step += 1;
    let step = Step {
        id: *last_step,
        pause,
        op,
        patience: Patience::Endless,
    };
    steps.insert(dice.random_range(0..=steps.len()), step);
}
