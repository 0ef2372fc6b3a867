//! The generated messages of `qpipe.proto`. Nothing outside of [`crate::wire`] and
//! [`crate::ticket`] sees them: parsing turns them into the types that the rest works with.

#![allow(missing_docs, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/qpipe.v1.rs"));
