//! Named counters: an enum whose every variant has a name for people and a counter. [`crate::drops`] and
//! [`crate::figures`] are two of them. Counting needs no exclusive borrow, so that whoever sees something may count it.

/// Declares an enum, the name of each variant, and the counters of all of them.
macro_rules! counted {
    (
        $(#[$enum_doc:meta])* enum $name:ident;
        $(#[$counters_doc:meta])* struct $counters:ident;
        $($(#[$doc:meta])* $variant:ident => $text:literal,)+
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// Every variant, in declaration order.
            pub(crate) const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The name that `xtcp stats` prints.
            pub(crate) const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        $(#[$counters_doc])*
        #[derive(Clone, Debug)]
        pub(crate) struct $counters([core::cell::Cell<u64>; $name::ALL.len()]);

        impl Default for $counters {
            fn default() -> Self {
                $counters([const { core::cell::Cell::new(0) }; $name::ALL.len()])
            }
        }

        impl $counters {
            pub(crate) fn count(&self, what: $name) {
                let counter = &self.0[what as usize];
                counter.set(counter.get() + 1);
            }

            /// Every name and how often it was counted.
            pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                $name::ALL.iter().map(|&what| (what.name(), self.0[what as usize].get()))
            }
        }
    };
}

pub(crate) use counted;
