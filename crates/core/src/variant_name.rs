//! Prints an enum value without its fields: they may hold guests' data, password hashes or one-time codes.

use std::fmt::{self, Write};

/// The name of a value's variant as its `Debug` form. Formatting stops at the first character behind the name.
pub struct VariantName<'a, T>(pub &'a T);

impl<T: fmt::Debug> fmt::Debug for VariantName<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = FirstWord(String::new());
        // `FirstWord` returns an error to end the formatting behind the name.
        let _ = write!(name, "{:?}", self.0);
        f.write_str(&name.0)
    }
}

struct FirstWord(String);

impl Write for FirstWord {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if !letter.is_alphanumeric() {
                return Err(fmt::Error);
            }
            self.0.push(letter);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_form_is_the_name_without_fields() {
        assert_eq!(format!("{:?}", VariantName(&Some("secret"))), "Some");
        assert_eq!(format!("{:?}", VariantName(&dyad_control::Request::Status)), "Status");
        let enrol = dyad_control::Enrol { address: "witness".into(), code: "12345".into() };
        assert_eq!(format!("{:?}", VariantName(&dyad_control::Request::Enrol(enrol))), "Enrol");
    }
}
