//! Closed lists of codes, each of which is a word on the wire.

/// Defines an enum of codes. On the wire and in texts a code is its word. A word of another version becomes the code
/// `Unrecognised`, which each list has.
macro_rules! wire_codes {
    ($(#[$list_doc:meta])* $list:ident; $($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        $(#[$list_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $list {
            $($(#[$doc])* $name,)*
        }

        impl $list {
            /// Every code, in the order of the list.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word on the wire.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The code of a word; `Unrecognised` for a word of another version.
            #[must_use]
            pub fn from_word(word: &str) -> Self {
                match word { $($word => Self::$name,)* _ => Self::Unrecognised }
            }
        }

        impl std::fmt::Display for $list {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl serde::Serialize for $list {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> serde::Deserialize<'de> for $list {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer).map(|word| Self::from_word(&word))
            }
        }
    };
}

pub(crate) use wire_codes;
