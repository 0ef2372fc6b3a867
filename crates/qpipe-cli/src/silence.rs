//! What the user is told of hosts that are not heard, and of those that are back.

use std::time::Duration;

use qpipe::{Notice, NoticeKind};
use qpipe_node::Config;

use crate::say;

/// Tells it, unless the user wants to hear nothing.
pub(crate) fn tell(notice: &Notice, config: &Config) {
    say::note(sentence(notice, config));
}

fn sentence(notice: &Notice, config: &Config) -> String {
    let name = name(notice, config);
    match notice.kind {
        NoticeKind::Back { after } => of_return(&name, after),
        NoticeKind::Silent { silent, left } => of_silence(&name, silent, left),
        _ => format!("{name}: {:?}", notice.kind),
    }
}

/// What the user calls the host that a notice is about.
pub(crate) fn name(notice: &Notice, config: &Config) -> String {
    let alias = || config.alias_by_fingerprint(&notice.host).map(ToString::to_string);
    notice.peer.clone().or_else(alias).unwrap_or_else(|| match notice.address {
        Some(address) => format!("the host at {address}"),
        None => notice.host.to_string(),
    })
}

/// The sentence for a host that is not heard, and is waited for a while longer.
pub(crate) fn of_silence(name: &str, silent: Duration, left: Duration) -> String {
    format!(
        "nothing heard from {name} for {}: is the network up? Nothing is lost; waiting {} more \
         (--give-up)",
        whole(silent),
        whole(left)
    )
}

/// The sentence for a host that is heard again.
pub(crate) fn of_return(name: &str, after: Duration) -> String {
    format!("{name} is back after {}", whole(after))
}

/// Whole seconds are enough for people.
fn whole(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs_f64().round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_its_end_are_one_line_each() {
        let kind = NoticeKind::Silent {
            silent: Duration::from_millis(15_020),
            left: Duration::from_millis(584_980),
        };
        let host = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".parse().unwrap();
        let address = "192.0.2.7:7473".parse().ok();
        let notice = Notice { host, peer: Some("b".to_owned()), address, kind };
        let config = Config::default();
        assert_eq!(
            sentence(&notice, &config),
            "nothing heard from b for 15s: is the network up? Nothing is lost; waiting 9m 45s more \
             (--give-up)"
        );
        let kind = NoticeKind::Back { after: Duration::from_secs(17) };
        let back = Notice { peer: None, kind, ..notice };
        assert_eq!(sentence(&back, &config), "the host at 192.0.2.7:7473 is back after 17s");
    }
}
