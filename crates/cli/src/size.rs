//! Parsing of sizes on the command line.

use dyad_types::MIB;

/// Parses a size and returns it in bytes. The text is a number, optionally with KiB, MiB, GiB or TiB or their first letters.
///
/// # Errors
///
/// The text is no such size, or the size needs more than 64 bits.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("\"{text}\" is not a size: write it like 10GiB or 512MiB");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let shift = match text[digits..].trim().to_ascii_lowercase().trim_end_matches("ib") {
        "" | "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(bad()),
    };
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// Parses a size of whole MiB and returns it in MiB. It is not rounded: a VM gets exactly the memory that was asked for.
///
/// # Errors
///
/// The text is no size, or the size is no whole number of MiB, or 2³² MiB or more.
pub(crate) fn parse_mebibytes(text: &str) -> Result<u32, String> {
    let bytes = parse_bytes(text)?;
    if bytes % MIB != 0 {
        return Err(format!("\"{text}\" is not a whole number of MiB: write it like 2GiB or 512MiB"));
    }
    u32::try_from(bytes / MIB).map_err(|_| format!("\"{text}\" is more than any VM can have"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_and_without_units_are_parsed() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("10GiB"), Ok(10 << 30));
        assert_eq!(parse_bytes("512M"), Ok(512 << 20));
        assert_eq!(parse_bytes("1 tib"), Ok(1 << 40));
        for bad in ["", "GiB", "10GB", "1.5G", "-1", "99999999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_that_is_not_whole_mib_is_refused() {
        assert_eq!(parse_mebibytes("2GiB"), Ok(2048));
        assert_eq!(parse_mebibytes("67108864"), Ok(64));
        for odd in ["100", "1500K", "67108865"] {
            assert_eq!(
                parse_mebibytes(odd),
                Err(format!("\"{odd}\" is not a whole number of MiB: write it like 2GiB or 512MiB"))
            );
        }
        assert!(parse_mebibytes("8192T").unwrap_err().contains("more than any VM"));
        assert!(parse_mebibytes("lots").unwrap_err().contains("is not a size"));
    }
}
