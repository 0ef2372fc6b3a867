//! The library between two nodes over real QUIC.

mod cancelled;
mod children;
mod contract;
mod endings;
mod many;
#[path = "../pair/mod.rs"]
mod pair;
mod strangers;
