//! A server of the network block device protocol, over anything that is an [`Export`].
//!
//! Fixed newstyle, with structured replies, `base:allocation`, and TLS where there are certificates. [`wire`] reads and writes the bytes and knows no
//! transport; [`serve_connection`] serves one client over any stream, with bounded memory, and [`Room`] bounds what
//! all take together.

mod connection;
mod export;
mod handshake;
mod reply;
mod server;
mod tls;
pub mod wire;

#[cfg(test)]
mod tests;

pub use export::{Export, Pieces, Status, ZeroHow};
pub use handshake::Exports;
pub use server::{ConnectionError, Pause, Room, serve_connection};
pub use tls::{Tls, TlsError};
