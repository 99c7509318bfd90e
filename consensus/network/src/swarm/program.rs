//! Which program a peer says it is (libp2p's identify). Nothing follows from it.

use libp2p::{Multiaddr, identify, identity::PublicKey};

/// What is shown of a text of a peer's.
const SHOWN_CHARS: usize = 64;

/// What this node says. Where it listens it leaves to the log.
pub(super) fn behaviour(key: PublicKey, network: &str) -> identify::Behaviour {
    let config = identify::Config::new(network.into(), key)
        .with_agent_version(concat!("switchyard/", env!("CARGO_PKG_VERSION")).into())
        .with_hide_listen_addrs(true)
        // Peers are dialled where the log says.
        .with_cache_size(0);
    identify::Behaviour::new(config)
}

/// What is logged of a text that a peer has chosen.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(SHOWN_CHARS).collect()
}

/// Where a peer sees this node, as it says.
pub(super) fn observed(address: &Multiaddr) -> String {
    shown(&address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_is_short_and_of_one_line() {
        assert_eq!(shown("switchyard/0.1.0"), "switchyard/0.1.0");
        assert_eq!(shown("a\nb\u{1b}[31m c\u{202e}é"), "ab[31mc");
        assert_eq!(shown(&"x".repeat(4096)).len(), SHOWN_CHARS);
    }
}
