use proptest::prelude::*;

use super::*;

fn name(text: &str) -> PipeName {
    text.parse().unwrap()
}

fn pattern(text: &str) -> NamePattern {
    text.parse().unwrap()
}

fn name_error(text: &str) -> ParseNameError {
    text.parse::<PipeName>().unwrap_err()
}

/// What `matches` should say, written for being obviously right and nothing else.
fn matches_naively(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', '*'] => !name.is_empty(),
        ['*', rest @ ..] => (0..=name.len())
            .take_while(|taken| !name[..*taken].contains(&'/'))
            .any(|taken| matches_naively(rest, &name[taken..])),
        [first, rest @ ..] => name.first() == Some(first) && matches_naively(rest, &name[1..]),
    }
}

/// Any characters that names may have, with segments and lengths that they may have.
fn any_name() -> impl Strategy<Value = String> {
    "[a-zé漢0-9._:@~-]{1,12}(/[a-zé漢0-9._:@~-]{1,12}){0,4}"
        .prop_filter("a name", |text| text.parse::<PipeName>().is_ok())
}

/// Few letters and short segments, so that matches are frequent.
fn dense_name() -> impl Strategy<Value = String> {
    "[ab]{1,5}(/[ab]{1,4}){0,3}"
}

fn dense_pattern() -> impl Strategy<Value = String> {
    "[ab]{0,2}([*][ab]{1,2}){0,3}[*]?(/[ab]?[*]?[ab]){0,2}(/[*]{2}|/[*])?"
        .prop_filter("a pattern", |text| text.parse::<NamePattern>().is_ok())
}

#[test]
fn ordinary_names_are_accepted_and_printed_as_written() {
    for text in ["x", "inbox/photos", "build.log", "...", "a/b/c/d", "naïve/漢字", "-", "a:b", "~"]
    {
        assert_eq!(name(text).to_string(), text);
        assert_eq!(name(text).as_ref(), text);
    }
}

#[test]
fn the_longest_name_is_accepted_and_one_byte_more_is_not() {
    let longest = "é".repeat(127) + "x";
    assert_eq!(longest.len(), PIPE_NAME_BYTES_MAX);
    assert_eq!(name(&longest).as_str(), longest);

    let error = name_error(&(longest + "x"));
    assert_eq!(error, ParseNameError::TooLong { bytes: PIPE_NAME_BYTES_MAX + 1 });
}

#[test]
fn a_missing_or_empty_part_is_refused_with_its_place() {
    assert_eq!(name_error(""), ParseNameError::Empty);
    for (text, at) in [("/", 0), ("/a", 0), ("a/", 2), ("a//b", 2), ("é//", 3)] {
        assert_eq!(name_error(text), ParseNameError::EmptySegment { at }, "{text}");
    }
}

#[test]
fn a_dot_segment_is_refused_with_its_place() {
    for (text, at) in [(".", 0), ("..", 0), ("a/./b", 2), ("a/..", 2), ("../a", 0)] {
        assert_eq!(name_error(text), ParseNameError::DotSegment { at }, "{text}");
    }
}

#[test]
fn characters_that_a_terminal_obeys_are_refused_with_their_place() {
    let characters = "\0\n\t\u{1b}\u{7f}\u{85}\u{9b}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\
        \u{202e}\u{2066}\u{2069}";

    for character in characters.chars() {
        let error = name_error(&format!("é/{character}"));
        assert_eq!(error, ParseNameError::Control { at: 3, character });
        assert!(!error.to_string().contains(character), "printed raw: {character:?}");
    }
}

#[test]
fn white_space_is_refused_with_its_place() {
    for space in [' ', '\u{a0}', '\u{2003}', '\u{202f}', '\u{3000}'] {
        assert_eq!(name_error(&format!("ab{space}")), ParseNameError::Whitespace { at: 2 });
    }
}

#[test]
fn characters_of_patterns_and_shells_are_refused_with_their_place() {
    for character in ['*', '?', '[', ']', '\\'] {
        let error = name_error(&format!("a/{character}b"));
        assert_eq!(error, ParseNameError::Special { at: 2, character });
        assert!(error.to_string().contains(&format!("{character} at byte 2")));
    }
}

#[test]
fn a_name_that_begins_like_a_ticket_is_refused() {
    assert_eq!(name_error("qpipe1"), ParseNameError::Ticket);
    assert_eq!(name_error("qpipe1abc/d"), ParseNameError::Ticket);
    assert_eq!(name_error("QPipe1abc"), ParseNameError::Ticket);
    assert_eq!(name("qpipe").as_str(), "qpipe");
    assert_eq!(name("a/qpipe1").as_str(), "a/qpipe1");
}

#[test]
fn a_star_stays_within_its_segment() {
    let inbox = pattern("inbox/*");

    assert!(inbox.matches(&name("inbox/x")));
    assert!(!inbox.matches(&name("inbox")));
    assert!(!inbox.matches(&name("inbox/x/y")));
    assert!(!inbox.matches(&name("outbox/x")));
    assert!(pattern("*/x").matches(&name("inbox/x")));
    assert!(!pattern("*").matches(&name("inbox/x")));
}

#[test]
fn a_star_inside_a_segment_takes_any_run_also_none() {
    let logs = pattern("log-*-*.gz");

    assert!(logs.matches(&name("log-a-b.gz")));
    assert!(logs.matches(&name("log--.gz")));
    assert!(!logs.matches(&name("log-.gz")));
    assert!(!pattern("ab*ba").matches(&name("aba")), "the ends may not overlap");
    assert!(!pattern("*ab*ab*").matches(&name("xaby")), "nothing is taken twice");
}

#[test]
fn a_double_star_takes_the_whole_rest_but_not_nothing() {
    let logs = pattern("logs/**");

    assert!(logs.matches(&name("logs/a")));
    assert!(logs.matches(&name("logs/a/b/c")));
    assert!(!logs.matches(&name("logs")));
    assert!(!logs.matches(&name("logsa/b")));
    assert!(pattern("**").matches(&name("a")));
    assert!(pattern("**").matches(&name("a/b")));
}

#[test]
fn a_double_star_elsewhere_is_refused_with_its_place() {
    for (text, at) in [("**/a", 0), ("a**", 1), ("a/**b", 2), ("a/b**", 3), ("***", 0)] {
        let error = text.parse::<NamePattern>().unwrap_err();
        assert_eq!(error, ParsePatternError::Rest { at }, "{text}");
    }
}

#[test]
fn a_pattern_keeps_the_other_rules_of_names() {
    for (text, error) in [
        ("", ParseNameError::Empty),
        ("a//*", ParseNameError::EmptySegment { at: 2 }),
        ("../*", ParseNameError::DotSegment { at: 0 }),
        ("a?", ParseNameError::Special { at: 1, character: '?' }),
        ("qpipe1*", ParseNameError::Ticket),
    ] {
        assert_eq!(text.parse::<NamePattern>(), Err(ParsePatternError::Name(error)), "{text}");
    }
}

#[test]
fn a_pattern_full_of_stars_is_refuted_without_exponential_search() {
    let stars = pattern(&("a*".repeat(PIPE_NAME_BYTES_MAX / 2) + "b"));
    let almost = name(&"a".repeat(PIPE_NAME_BYTES_MAX));

    assert!(!stars.matches(&almost));
}

proptest! {
    #[test]
    fn what_parses_prints_as_it_was_written(text in "\\PC{0,40}|[ab./*]{0,20}") {
        if let Ok(name) = text.parse::<PipeName>() {
            prop_assert_eq!(name.to_string(), text.clone());
        }
        if let Ok(pattern) = text.parse::<NamePattern>() {
            prop_assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn every_name_is_a_pattern_that_matches_itself(text in any_name()) {
        prop_assert!(pattern(&text).matches(&name(&text)));
    }

    #[test]
    fn a_pattern_without_a_star_matches_nothing_else(a in dense_name(), b in dense_name()) {
        prop_assert_eq!(pattern(&a).matches(&name(&b)), a == b);
    }

    #[test]
    fn matching_agrees_with_the_naive_matcher(a in dense_pattern(), b in dense_name()) {
        let (chars_a, chars_b) = (a.chars().collect::<Vec<_>>(), b.chars().collect::<Vec<_>>());

        let expected = matches_naively(&chars_a, &chars_b);

        prop_assert_eq!(pattern(&a).matches(&name(&b)), expected, "{} on {}", a, b);
    }
}
