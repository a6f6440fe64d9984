//! A set's actor inside an actix application: messages to its address mean the same as the handle's methods.
//!
//! `cargo run --example actix_messages`
#![expect(clippy::print_stdout, reason = "examples show what happens")]

use std::error::Error;
use std::sync::Arc;

use actix::{Actor, Arbiter, Context, Handler, Message, ResponseFuture};
use bytes::Bytes;
use cachalot::backend::MemoryBackend;
use cachalot::message::{Flush, GetStatus, Read, Write};
use cachalot::{Cache, CacheError, ObjectExtent, ObjectSet, ReadRequest, SetOptions, WriteRequest};

/// An actor of the application that keeps lines of text in a set.
struct Notebook {
    set: ObjectSet,
    end_bytes: u64,
}

impl Actor for Notebook {
    type Context = Context<Self>;
}

/// Appends a line; answers with where it starts.
#[derive(Message)]
#[rtype(result = "Result<u64, CacheError>")]
struct Append(&'static str);

impl Handler<Append> for Notebook {
    type Result = ResponseFuture<Result<u64, CacheError>>;

    fn handle(&mut self, Append(line): Append, _: &mut Context<Self>) -> Self::Result {
        let (set, at) = (self.set.clone(), self.end_bytes);
        self.end_bytes += line.len() as u64;
        Box::pin(async move {
            set.write_at(at, Bytes::from_static(line.as_bytes()))
                .await?;
            Ok(at)
        })
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The application's own threads carry the cache's actors.
    let arbiter = Arbiter::new();
    let store = Arc::new(MemoryBackend::new());
    let cache = Cache::builder(store)
        .arbiters(vec![arbiter.handle()])
        .start()?;
    let set = cache.open(SetOptions::new("notes")).await?;

    // The application's actor uses the handle.
    let notebook = Notebook {
        set: set.clone(),
        end_bytes: 0,
    }
    .start();
    let first = notebook.send(Append("call me ")).await??;
    let second = notebook.send(Append("Ishmael")).await??;
    println!("lines at {first} and {second}");
    assert_eq!((first, second), (0, 8));

    // The same bytes by message, to the set's actor itself.
    let extent = |offset, len| ObjectExtent::new(0, offset, len);
    let read = ReadRequest {
        extents: vec![extent(0, 15)?],
        ..ReadRequest::default()
    };
    let text = set.addr()?.send(Read(read)).await??.into_bytes();
    println!("read by message: {text:?}");
    assert_eq!(text, "call me Ishmael");

    let write = WriteRequest {
        extents: vec![extent(8, 7)?],
        data: Bytes::from_static(b"anytime"),
        ..WriteRequest::default()
    };
    set.addr()?.send(Write(write)).await??;
    let text = set.read_at(0, 15).await?.into_bytes();
    println!("read by handle: {text:?}");
    assert_eq!(text, "call me anytime");

    let flushed = set.addr()?.send(Flush::default()).await??;
    let status = set.addr()?.send(GetStatus).await??;
    println!(
        "already clean: {}; dirty after the flush: {}",
        flushed.already_clean, status.is_dirty_or_committing
    );
    assert!(!flushed.already_clean && !status.is_dirty_or_committing);

    cache.close().await?;
    arbiter.stop();
    Ok(())
}
