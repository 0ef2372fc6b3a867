//! Everything that can happen to one pipe, or to two: a breadth-first search of the states that two
//! sessions, the programs at the pipes' ends and the network between them can reach.
//!
//! A state is known by the path of steps that leads to it, which is run again for each of its
//! successors; it is recognised by a fingerprint of all that decides what can follow. At every step
//! the oracle looks on, and from every state the faults are called off, and everything has to
//! settle. Where a plot has more states of one depth than `QPIPE_WIDTH` says, so many of them are
//! followed, always the same; 0 follows all.

mod pairs;
mod plot;

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use pairs::Pair;
use plot::{Act, Plot, Story};

/// What a search came to.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    steps: usize,
    depth: usize,
    /// Whether no state was left out.
    is_whole: bool,
    pairs: BTreeSet<Pair>,
}

/// Searches the states of a plot, of each depth at most `width`.
fn explore(plot: &Plot, width: usize) -> Found {
    let mut found = Found { is_whole: true, ..Found::default() };
    let mut known = HashSet::from([fingerprint(&Story::new(plot))]);
    let mut level: Vec<(u64, Vec<Act>)> = vec![(0, Vec::new())];
    while !level.is_empty() {
        let mut next = Vec::new();
        for (_, path) in &level {
            let story = Story::replay(plot, path);
            let acts = story.acts();
            found.states += 1;
            found.pairs.extend(settle(story, path));
            for act in acts {
                found.steps += 1;
                let mut story = Story::replay(plot, path);
                guarded(path, Some(act), || story.act(act));
                let print = fingerprint(&story);
                if known.insert(print) {
                    next.push((print, [&path[..], &[act]].concat()));
                }
            }
        }
        if next.len() > width {
            // Fingerprints are as good as random, and the same in every run.
            next.sort_unstable_by_key(|(print, _)| *print);
            next.truncate(width);
            found.is_whole = false;
        }
        found.depth += usize::from(!next.is_empty());
        level = next;
    }
    found
}

/// Calls the faults off: everything comes to an end, and these are the ends.
fn settle(mut story: Story, path: &[Act]) -> Vec<Pair> {
    guarded(path, None, || story.world.finish());
    let world = &story.world;
    story.ids.iter().map(|id| Pair::of(world, &world.pipes[id])).collect()
}

/// Says how it came to a panic.
fn guarded(path: &[Act], act: Option<Act>, what: impl FnOnce()) {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
    if let Err(panic) = done {
        let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
        let text = text.or(panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        panic!("after {path:?}, then {act:?}: {text}");
    }
}

/// Two stories with the same fingerprint have the same future.
fn fingerprint(story: &Story) -> u64 {
    let mut text = format!("{:?} ", story.left);
    for node in &story.world.nodes {
        if node.is_crashed {
            text.push('-');
            continue;
        }
        let at = text.len();
        let rest = (&node.offers, node.is_over, node.is_finished);
        write!(text, "{:?} {rest:?} ", node.session).unwrap();
        if story.ids.len() > 1 {
            sort_pipes(&mut text, at);
        }
    }
    for link in story.world.links.iter().filter(|link| link.is_of_use()) {
        write!(text, "{link:?} ").unwrap();
    }
    write!(text, "{:?}", story.world.pipes).unwrap();
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A session keeps its pipes in no order: here they get one, from `at` on.
fn sort_pipes(text: &mut String, at: usize) {
    let Some(from) = text[at..].find("pipes: {").map(|found| at + found + 8) else { return };
    let (mut depth, mut cuts) = (0, vec![from]);
    for (index, byte) in text.as_bytes()[from..].iter().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' if depth == 0 => {
                cuts.push(from + index);
                break;
            }
            b'}' | b')' | b']' => depth -= 1,
            b',' if depth == 0 => cuts.push(from + index),
            _ => {}
        }
    }
    let mut parts: Vec<String> = cuts
        .windows(2)
        .map(|cut| text[cut[0]..cut[1]].trim_matches([',', ' ']).to_owned())
        .collect();
    parts.sort_unstable();
    text.replace_range(from..*cuts.last().unwrap(), &parts.join(", "));
}

/// How many states of one depth are followed where `QPIPE_WIDTH` does not say.
const WIDTH: usize = 60;

fn width() -> usize {
    let asked = std::env::var("QPIPE_WIDTH").ok().and_then(|width| width.parse().ok());
    match asked {
        Some(0) => usize::MAX,
        asked => asked.unwrap_or(WIDTH),
    }
}

/// Searches the plots; says what was found in each.
fn search(plots: &[Plot]) -> BTreeSet<Pair> {
    let mut pairs = BTreeSet::new();
    for plot in plots {
        let found = explore(plot, plot.width(width()));
        let Found { states, steps, depth, is_whole, .. } = found;
        let rest = if is_whole { "all" } else { "not all" };
        say(&format!("{plot:?}: {states} states ({rest}), {steps} steps, depth {depth}"));
        assert!(states > 100, "only {states} states");
        pairs.extend(found.pairs);
    }
    pairs
}

/// Says a figure, for whoever runs the tests with `--nocapture`.
#[expect(clippy::disallowed_macros, reason = "a figure of a test")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[test]
fn one_pipe_ends_in_pairs_that_the_specification_lists_and_in_all_of_them() {
    let reached = search(&Plot::of_one_pipe());
    pairs::compare(&reached);
}

#[test]
fn two_pipes_of_a_group_settle_from_every_state() {
    search(&Plot::of_two_pipes());
}
