//! Shell patterns with `*`, `?` and `[a-z]`, as `modules.alias` uses them.

pub struct Pattern<'a>(pub &'a str);

impl Pattern<'_> {
    /// Whether the pattern matches the whole `text`.
    pub fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut text) = (self.0.as_bytes(), text.as_bytes());
        // The position for the next try when a later part does not match: behind the last star, one byte of text further.
        let mut retry: Option<(&[u8], &[u8])> = None;
        loop {
            if let Some(rest) = pattern.strip_prefix(b"*") {
                retry = Some((rest, text));
                pattern = rest;
                continue;
            }
            if pattern.is_empty() && text.is_empty() {
                return true;
            }
            match text.first().and_then(|&byte| match_byte(pattern, byte)) {
                Some(rest) => (pattern, text) = (rest, &text[1..]),
                None => match retry {
                    Some((after, from)) if !from.is_empty() => {
                        retry = Some((after, &from[1..]));
                        (pattern, text) = (after, &from[1..]);
                    }
                    _ => return false,
                },
            }
        }
    }
}

/// Matches one byte of text. Returns the rest of the pattern, or `None` if the byte does not match.
fn match_byte(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (&head, rest) = pattern.split_first()?;
    match head {
        b'?' => Some(rest),
        b'[' => {
            let end = rest.iter().position(|&b| b == b']')?;
            in_class(&rest[..end], byte).then_some(&rest[end + 1..])
        }
        _ => (head == byte).then_some(rest),
    }
}

/// Whether a byte is in a set such as `0-9A`.
fn in_class(mut set: &[u8], byte: u8) -> bool {
    loop {
        match set {
            [low, b'-', high, rest @ ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                set = rest;
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return true;
                }
                set = rest;
            }
            [] => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern(pattern).matches(text)
    }

    #[test]
    fn aliases_of_real_devices_match_their_patterns() {
        let virtio = "virtio:d00000001v00001AF4";
        assert!(matches("virtio:d00000001v*", virtio));
        assert!(!matches("virtio:d00000002v*", virtio));
        let pci = "pci:v00008086d000025ABsv00001AF4sd00001100bc08sc80i00";
        assert!(matches("pci:v00008086d000025ABsv*sd*bc*sc*i*", pci));
        assert!(!matches("pci:v*d*sv*sd*bc01sc06i01*", pci));
        assert!(matches(
            "cpu:type:x86,ven*fam*mod*:feature:*00C2*",
            "cpu:type:x86,ven0002fam0019mod0001:feature:,0000,00C2,00C3"
        ));
        assert!(matches("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb:v1d0Ap2d1dc00dsc00dp00ic08isc06ip50in00"));
        assert!(matches("usb:v03F0p0[0-9A]24d*", "usb:v03F0p0A24d0100"));
        assert!(!matches("usb:v03F0p0[0-9A]24d*", "usb:v03F0p0B24d0100"));
    }

    #[test]
    fn empty_texts_stars_and_broken_sets_are_handled() {
        assert!(matches("", ""));
        assert!(matches("*", ""));
        assert!(matches("a*b*c", "a-b-b-c"));
        assert!(!matches("a*b*c", "a-b-b"));
        assert!(matches("a?c", "abc"));
        assert!(!matches("a?c", "ac"));
        assert!(!matches("a", "ab"));
        assert!(!matches("[a-c", "b"));
    }
}
