//! Empty: the program is the binary target. The daemon's build depends on this library only so that cargo
//! sees when the program has to be built again.
#![no_std]
