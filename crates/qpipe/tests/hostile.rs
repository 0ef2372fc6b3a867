//! Bad input from the network: a hostile peer, made of quinn, rustls and raw bytes, against a live
//! node that serves an honest session at the same time.
//!
//! Every case ends with the same questions ([`rig::Rig::end`]): did the honest pipe carry every byte
//! and its EOF, did anything panic, is every byte of memory given back, are the sessions gone?
//!
//! | file | what the peer does |
//! | --- | --- |
//! | `noise` | sends datagrams that are no QUIC, or not this QUIC |
//! | `strangers` | fails the handshake, Hello, or the ticket |
//! | `hellos` | resumes what is not its own, or not there, or in another's name |
//! | `facts` | states what cannot be true |
//! | `streams` | breaks the framing of pipe streams, or the Limit |
//! | `cuts` | cuts pipe streams, and sends others than it was asked for |
//! | `opens` | opens and closes without end, never reads, never completes |
//! | `dialled` | all of it as the side that was dialled |
//! | `fuzz` | mutates what is valid, by a fixed seed |

#[path = "hostile/cuts.rs"]
mod cuts;
#[path = "hostile/dialled.rs"]
mod dialled;
#[path = "hostile/facts.rs"]
mod facts;
#[path = "hostile/fuzz.rs"]
mod fuzz;
#[path = "hostile/hellos.rs"]
mod hellos;
#[path = "hostile/noise.rs"]
mod noise;
#[path = "hostile/opens.rs"]
mod opens;
#[path = "hostile/peer.rs"]
mod peer;
#[path = "hostile/raw.rs"]
mod raw;
#[path = "hostile/rig.rs"]
mod rig;
#[path = "hostile/strangers.rs"]
mod strangers;
#[path = "hostile/streams.rs"]
mod streams;
