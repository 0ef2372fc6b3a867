//! Changes of host A's address at stated times.

use std::cmp::Reverse;

use anyhow::{Context, Result};

use crate::{
    cli::Settings,
    lab::Lab,
    roam::{GAP, Roamer},
    units::Nanos,
};

/// What is to happen to host A's address, and when: the soonest last.
pub(crate) struct Schedule {
    events: Vec<(Nanos, Event)>,
}

#[derive(Clone, Copy)]
enum Event {
    Translate,
    Leave,
    Join,
}

impl Schedule {
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut events = Vec::new();
        events.extend(settings.roam.iter().map(|time| (*time, Event::Translate)));
        for time in &settings.roam_real {
            events.push((*time, Event::Leave));
            events.push((*time + GAP.as_nanos() as Nanos, Event::Join));
        }
        events.sort_by_key(|(time, _)| Reverse(*time));
        Self { events }
    }

    /// Does what is due and returns when the next event is.
    pub(crate) fn run(&mut self, lab: &Lab) -> Result<Option<Nanos>> {
        while let Some((time, event)) = self.events.last().copied() {
            if time > lab.now() {
                return Ok(Some(time));
            }
            self.events.pop();
            if let Some(roamer) = lab.roamer() {
                event.happen(roamer).context("roaming")?;
            }
        }
        Ok(None)
    }
}

impl Event {
    fn happen(self, roamer: &Roamer) -> Result<()> {
        match self {
            Self::Translate => drop(roamer.translate()),
            Self::Leave => roamer.leave()?,
            Self::Join => drop(roamer.join()?),
        }
        Ok(())
    }
}
