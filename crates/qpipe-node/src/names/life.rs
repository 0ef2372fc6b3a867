//! The life of a named pipe, from its first open to its end.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::task::JoinSet;

use super::{At, Shape};
use crate::fd::{Sink, Source};
use crate::join::{Client, From, Hub, Leg, Spliced, To, carry_at, join, splice};
use crate::local::Event;

/// The life of a pipe in both directions: two openers, who wait for each other.
pub(super) async fn duplex(at: &At) {
    let shape = Shape::Duplex;
    let mut waiting: Option<Leg> = None;
    loop {
        let come = match &waiting {
            None => at.newcomers(shape).await,
            Some(leg) => tokio::select! {
                biased;
                () = leg.absent() => {
                    waiting = None;
                    at.leave(shape);
                    if at.is_over(shape) {
                        return;
                    }
                    continue;
                }
                come = at.newcomers(shape) => come,
            },
        };
        for (_, leg) in come {
            match waiting.take() {
                None => waiting = Some(leg),
                Some(first) => {
                    at.join(shape);
                    // As long as both are there, nobody else comes.
                    return join(first, leg).await;
                }
            }
        }
    }
}

/// The life of a pipe of one direction; and the next one, where somebody comes just when it ends.
pub(super) async fn pipe(at: &At) {
    let shape = Shape::Write;
    while let Some(legs) = gather(at).await {
        for (_, leg) in &legs {
            leg.tell_joined();
        }
        at.join(shape);
        let rest = match two_programs(legs) {
            Ok(two) => spliced(at, two).await,
            Err(legs) => Some(legs),
        };
        match rest {
            Some(legs) => return meet(at, legs).await,
            None if at.is_over(shape) => return,
            None => at.begin_anew(shape),
        }
    }
}

/// Waits until a writer and a reader are there. None if all have left.
async fn gather(at: &At) -> Option<Vec<(Shape, Leg)>> {
    let mut legs: Vec<(Shape, Leg)> = Vec::new();
    loop {
        let has = |wanted| legs.iter().any(|(shape, _)| *shape == wanted);
        if has(Shape::Write) && has(Shape::Read) {
            return Some(legs);
        }
        tokio::select! {
            biased;
            gone = first_absent(&legs) => {
                let (shape, _) = legs.remove(gone);
                at.leave(shape);
                if legs.is_empty() && at.is_over(shape) {
                    return None;
                }
            }
            come = at.newcomers(Shape::Write) => legs.extend(come),
        }
    }
}

/// Waits until one of those who wait leaves: which.
async fn first_absent(legs: &[(Shape, Leg)]) -> usize {
    let mut absent: Vec<_> = legs.iter().map(|(_, leg)| Box::pin(leg.absent())).collect();
    poll_fn(|cx| {
        let gone = absent.iter_mut().position(|absent| absent.as_mut().poll(cx).is_ready());
        gone.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// A writer and a reader, both programs of this host.
struct Two {
    from: Source,
    sends: Arc<Client>,
    to: Sink,
    receives: Arc<Client>,
}

/// These legs, if they are just those of two programs of this host.
fn two_programs(mut legs: Vec<(Shape, Leg)>) -> Result<Two, Vec<(Shape, Leg)>> {
    let is_so = legs.len() == 2 && legs.iter().all(|(_, leg)| leg.can_be_spliced());
    if !is_so {
        return Err(legs);
    }
    legs.sort_by_key(|(shape, _)| *shape == Shape::Read);
    let reader = legs.pop().map(|(_, leg)| (leg.to, leg.client));
    let writer = legs.pop().map(|(_, leg)| (leg.from, leg.client));
    match (writer, reader) {
        (
            Some((Some(From::Local(from)), Some(sends))),
            Some((Some(To::Local(to)), Some(receives))),
        ) => Ok(Two { from, sends, to, receives }),
        // What programs hand over is local.
        _ => Err(Vec::new()),
    }
}

/// Moves bytes inside the kernel while nobody else is there: the legs, when somebody comes; none when
/// it is over.
async fn spliced(at: &At, two: Two) -> Option<Vec<(Shape, Leg)>> {
    let Two { from, sends, to, receives } = two;
    sends.knows().await;
    receives.knows().await;
    match splice(from, &sends, to, &receives, at.called(Shape::Write)).await {
        Spliced::Ended(ending) => {
            let (sent, received) = ending.both();
            sends.tell(Event::Ended { sent: Some(sent), received: None });
            receives.tell(Event::Ended { sent: None, received: Some(received) });
            at.leave(Shape::Write);
            at.leave(Shape::Read);
            None
        }
        Spliced::Third(two) => {
            let (from, to) = *two;
            Some(vec![
                (Shape::Write, Leg::of_program(Some(from), None, sends)),
                (Shape::Read, Leg::of_program(None, Some(to), receives)),
            ])
        }
    }
}

/// Carries what any number of writers write to any number of readers, until all is over.
async fn meet(at: &At, legs: Vec<(Shape, Leg)>) {
    let hub = Arc::new(Hub::with_capacity(at.capacity));
    let mut tasks = JoinSet::new();
    let begin = |tasks: &mut JoinSet<Shape>, shape: Shape, leg: Leg| {
        let carried = carry_at(&hub, leg);
        tasks.spawn(async move {
            carried.await;
            shape
        });
    };
    for (shape, leg) in legs {
        begin(&mut tasks, shape, leg);
    }
    let mut is_over = false;
    loop {
        let left = hub.left();
        if left.readers == 0 && (is_over || at.is_over(Shape::Read)) {
            is_over = true;
            hub.break_off();
        } else if left.writers == 0 && !is_over && at.is_over(Shape::Write) {
            is_over = true;
            hub.close();
        }
        if is_over && tasks.is_empty() {
            return;
        }
        tokio::select! {
            come = at.newcomers(Shape::Write), if !is_over => for (shape, leg) in come {
                leg.tell_joined();
                begin(&mut tasks, shape, leg);
            },
            Some(ended) = tasks.join_next() => if let Ok(shape) = ended {
                at.leave(shape);
            },
            _ = hub.other_than(left) => {}
        }
    }
}
