//! The xtcp library.
