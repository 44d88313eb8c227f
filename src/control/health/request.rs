//! The little that matters of an HTTP/1 request (RFC 9112 section 2): where its head ends, and whether it wants a body back.

/// Bytes of a head: request line and header fields. Whoever needs more wants something else.
pub(super) const HEAD_BYTES_MAX: usize = 8192;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Not all of a head.
    Unfinished,
    /// More than a head may have.
    TooLong,
    /// No HTTP/1 request.
    Malformed,
    /// A whole head.
    Whole {
        /// HEAD asks for the header fields alone.
        wants_body: bool,
    },
}

impl Head {
    /// Reads the first bytes of a connection.
    pub(super) fn of(bytes: &[u8]) -> Self {
        // Empty lines before a request are passed over (RFC 9112 section 2.2).
        let head = bytes.trim_ascii_start();
        if !ends(head) {
            return match bytes.len() {
                HEAD_BYTES_MAX.. => Self::TooLong,
                _ => Self::Unfinished,
            };
        }
        let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
        let words = [words.next(), words.next(), words.next(), words.next()];
        match words {
            [Some(method), Some(_), Some(version), None] if version.starts_with(b"HTTP/1.") => {
                Self::Whole {
                    wants_body: method != b"HEAD",
                }
            }
            _ => Self::Malformed,
        }
    }
}

/// True if there is an empty line; lines may end without a carriage return (RFC 9112 section 2.2).
fn ends(head: &[u8]) -> bool {
    let has = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
    has(b"\n\r\n") || has(b"\n\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: Head = Head::Whole { wants_body: true };

    #[test]
    fn a_head_ends_with_an_empty_line() {
        let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for length in 0..text.len() {
            assert_eq!(Head::of(&text[..length]), Head::Unfinished, "{length}");
        }
        assert_eq!(Head::of(text), WHOLE);
        assert_eq!(Head::of(b"\r\n\nGET / HTTP/1.0\n\nrest"), WHOLE);
    }

    #[test]
    fn only_head_wants_no_body() {
        assert_eq!(
            Head::of(b"HEAD / HTTP/1.1\r\n\r\n"),
            Head::Whole { wants_body: false }
        );
        assert_eq!(Head::of(b"head / HTTP/1.1\r\n\r\n"), WHOLE);
    }

    #[test]
    fn a_head_has_a_bound() {
        assert_eq!(Head::of(&[b'x'; HEAD_BYTES_MAX - 1]), Head::Unfinished);
        assert_eq!(Head::of(&[b'x'; HEAD_BYTES_MAX]), Head::TooLong);
        assert_eq!(Head::of(&[b'\n'; HEAD_BYTES_MAX]), Head::TooLong);
    }

    proptest! {
        #[test]
        fn more_bytes_never_take_back_what_was_said(bytes in proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\r'), Just(b' '), any::<u8>()], 0..200,
        ), line in any::<bool>()) {
            let mut all = if line { b"GET / HTTP/1.1".to_vec() } else { Vec::new() };
            all.extend(bytes);
            let mut said = Head::Unfinished;
            for length in 0..=all.len() {
                let now = Head::of(&all[..length]);
                prop_assert!(said == Head::Unfinished || said == now);
                said = now;
            }
        }
    }
}
