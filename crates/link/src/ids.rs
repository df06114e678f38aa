//! The identifiers of pairs and keys.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// `N` bytes from the kernel's random generator.
///
/// # Panics
/// If the kernel has no random generator; no secret can be created then.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel's random generator answers");
    bytes
}

/// The error of a text that is not the hexadecimal form of the expected id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not an id of {digits} hexadecimal digits; copy the whole id and try again")]
pub struct ParseIdError {
    digits: usize,
}

/// Decodes `N` bytes from hexadecimal digits; colons and white space between the digits are ignored.
fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let error = ParseIdError { digits: N * 2 };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':' && !byte.is_ascii_whitespace()).collect();
    if digits.len() != N * 2 {
        return Err(error);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let high = char::from(pair[0]).to_digit(16).ok_or(error.clone())?;
        let low = char::from(pair[1]).to_digit(16).ok_or(error.clone())?;
        *byte = u8::try_from(high * 16 + low).map_err(|_| error.clone())?;
    }
    Ok(bytes)
}

/// Identifies a pair; drawn at random when the pair's first node is set up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PairId(pub u128);

impl PairId {
    /// An id of 128 random bits from the kernel.
    #[must_use]
    pub fn generate() -> Self {
        Self(u128::from_be_bytes(random_bytes()))
    }
}

impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairId({self})")
    }
}

impl FromStr for PairId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

/// SHA-256 of a certificate in DER form, by which peers are pinned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate, given in DER form.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(Self)
    }
}

/// The secret of a pair, created by the first node and given to the second one at pairing. It authenticates datagrams.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairKey(pub [u8; 32]);

impl PairKey {
    /// A new key from the kernel's random generator.
    #[must_use]
    pub fn generate() -> Self {
        Self(random_bytes())
    }
}

impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_printed_and_parsed_is_unchanged() {
        let pair = PairId::generate();
        assert_eq!(pair.to_string().parse(), Ok(pair));
        let print = Fingerprint::of(b"certificate");
        assert_eq!(print.to_string().parse(), Ok(print));
        assert_eq!(print.to_string().to_uppercase().parse(), Ok(print));
    }

    #[test]
    fn a_text_of_the_wrong_length_or_alphabet_is_no_id() {
        assert!("abcd".parse::<PairId>().is_err());
        assert!("zz".repeat(16).parse::<PairId>().is_err());
        assert!("é".repeat(16).parse::<PairId>().is_err());
    }

    #[test]
    fn a_pair_key_is_never_printed() {
        assert_eq!(format!("{:?}", PairKey([7; 32])), "PairKey(secret)");
    }
}
