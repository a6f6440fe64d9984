//! The cache's rules as plain synchronous code.

mod layout;

pub use layout::{FileRanges, Layout, ObjectRuns, Run, Runs};
