/// Defines a type for a number that identifies something. It has the size, the order, the text and the serialised form
/// of a `u64`. A crate that uses the macro must depend on serde.
#[macro_export]
macro_rules! number {
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident;) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(transparent)]
        #[repr(transparent)]
        $visibility struct $name(pub u64);

        impl $name {
            /// The next higher number.
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

        /// Shows the plain number, as logs and reports do.
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
