//! The protocol core against an oracle: facts, wire format, hostile peers, and two sessions that
//! talk to each other.

mod control;
mod crossings;
mod drawn;
mod explore;
mod facts;
mod frames;
mod hostile;
mod hostile_groups;
mod hostile_streams;
mod lone;
mod pair;
mod resumed;
mod scale;
mod world;
