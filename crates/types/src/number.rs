/// Defines a type for a number that names something: it has the size, the order, the text and the serialised form of a
/// `u64`. The calling crate depends on serde.
#[macro_export]
macro_rules! number {
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident;) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(transparent)]
        #[repr(transparent)]
        $visibility struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            $visibility fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// Adds one to a counter and returns the new number.
            $visibility fn advance(&mut self) -> Self {
                *self = self.next();
                *self
            }
        }

        /// The plain number: logs and reports show it so.
        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Debug::fmt(&self.0, f)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}
