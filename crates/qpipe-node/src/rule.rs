//! What a peer may do: one verb and one pattern of names.

use std::fmt;
use std::str::FromStr;

use qpipe_proto::{NamePattern, PipeName};

/// One thing that a peer may do on this node, written `send:inbox/*`, `recv:logs/**` or `list:**`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// What the peer may do.
    pub verb: Verb,
    /// With which pipes.
    pub pattern: NamePattern,
}

/// What a [`Rule`] allows, seen from the peer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verb {
    /// The peer is told that the pipe is there and what becomes of it.
    List,
    /// The peer reads from the pipe.
    Recv,
    /// The peer writes into the pipe.
    Send,
}

impl Verb {
    /// All of them, in the order in which rules are shown.
    pub(crate) const ALL: [Verb; 3] = [Verb::Send, Verb::Recv, Verb::List];

    /// The word for it, on the command line, in files and in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Recv => "recv",
            Self::Send => "send",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Rule {
    /// Whether this rule lets a peer do `verb` with the pipe `name`.
    pub fn allows(&self, verb: Verb, name: &PipeName) -> bool {
        self.verb == verb && self.pattern.matches(name)
    }
}

impl FromStr for Rule {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (verb, pattern) = text.split_once(':').ok_or(ParseRuleError::Verb)?;
        let verb = match verb {
            "list" => Verb::List,
            "recv" => Verb::Recv,
            "send" => Verb::Send,
            _ => return Err(ParseRuleError::Verb),
        };
        let pattern = pattern.parse::<NamePattern>();
        let pattern = pattern.map_err(|error| ParseRuleError::Pattern(error.to_string()))?;
        Ok(Self { verb, pattern })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.verb, self.pattern)
    }
}

/// Why a text is not a [`Rule`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseRuleError {
    /// What follows the colon is not a pattern of pipe names.
    #[error("{0}")]
    Pattern(String),
    /// It does not begin with a known verb and a colon.
    #[error("a rule is `send:PATTERN`, `recv:PATTERN` or `list:PATTERN`, as send:inbox/*")]
    Verb,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_back_as_they_are_written() {
        for text in ["send:inbox/*", "recv:logs/**", "send:x", "list:**"] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn rule_allows_its_own_verb_and_names_only() {
        let rule: Rule = "send:inbox/*".parse().unwrap();
        let name = |text: &str| text.parse::<PipeName>().unwrap();

        assert!(rule.allows(Verb::Send, &name("inbox/x")));
        assert!(!rule.allows(Verb::Recv, &name("inbox/x")));
        assert!(!rule.allows(Verb::List, &name("inbox/x")));
        assert!(!rule.allows(Verb::Send, &name("outbox/x")));
    }

    #[test]
    fn what_is_no_rule_says_what_one_looks_like() {
        for text in ["", "inbox/*", "write:inbox/*", "SEND:inbox/*"] {
            assert_eq!(text.parse::<Rule>(), Err(ParseRuleError::Verb), "{text:?}");
        }
        assert!(matches!("send:".parse::<Rule>(), Err(ParseRuleError::Pattern(_))));
    }
}
