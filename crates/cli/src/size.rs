//! Sizes on the command line.

use dyad_types::MIB;

/// Reads a size in bytes: a number, optionally with KiB, MiB, GiB, TiB or their first letters.
///
/// # Errors
///
/// A sentence about the text if it is not such a size or exceeds 64 bits.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
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

/// Reads a size in whole MiB. It is not rounded: a VM gets exactly the memory that was asked for, or is refused.
///
/// # Errors
///
/// A sentence about the text if it is not a size, not whole MiB, or more than 2³² MiB.
pub(crate) fn mebibytes(text: &str) -> Result<u32, String> {
    let bytes = bytes(text)?;
    if bytes % MIB != 0 {
        return Err(format!("\"{text}\" is not whole MiB: write it like 2GiB or 512MiB"));
    }
    u32::try_from(bytes / MIB).map_err(|_| format!("\"{text}\" is more than any VM can have"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("10GiB"), Ok(10 << 30));
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("1 tib"), Ok(1 << 40));
        for bad in ["", "GiB", "10GB", "1.5G", "-1", "99999999999T"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_never_rounded() {
        assert_eq!(mebibytes("2GiB"), Ok(2048));
        assert_eq!(mebibytes("67108864"), Ok(64));
        for odd in ["100", "1500K", "67108865"] {
            assert_eq!(mebibytes(odd), Err(format!("\"{odd}\" is not whole MiB: write it like 2GiB or 512MiB")));
        }
        assert!(mebibytes("8192T").unwrap_err().contains("more than any VM"));
        assert!(mebibytes("lots").unwrap_err().contains("is not a size"));
    }
}
