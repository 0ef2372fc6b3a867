//! A congestion controller for quinn that keeps a model of the path: how much it delivers, and how
//! long its empty round trip is. docs/congestion.md tells how it works and how it was evaluated.
//!
//! It does no I/O and reads no clock: quinn says what was sent, acknowledged and lost, and when.
//! Nothing in it is random, so that a simulation of it can be repeated.
//!
//! | module | what |
//! | --- | --- |
//! | `model` | the controller: rounds, phases, what is done about queues, the window that follows |
//! | `contest` | holding a share beside senders that keep a queue full (RFC 9438) |
//! | `policer` | telling a token bucket from random loss |
//! | `rate` | delivery-rate samples (draft-ietf-ccwg-bbr, section 4.1) |
//! | `filter` | the largest rate and the smallest round trip of late |

#![forbid(unsafe_code)]

mod contest;
mod filter;
mod model;
mod policer;
mod rate;

pub use model::{Model, ModelFactory};

#[cfg(test)]
mod tests;
