//! The actors and what their threads share.

mod budget;
