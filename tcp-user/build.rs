//! Builds the XDP program; the library includes the object that this leaves in `OUT_DIR`.

use aya_build::{Package, Toolchain};

fn main() -> anyhow::Result<()> {
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tcp-ebpf");
    // aya-build looks at the program's own crate only; these are what else it is made of.
    for made_of in ["../tcp-common/Cargo.toml", "../tcp-common/src", "../Cargo.toml", "../Cargo.lock"] {
        println!("cargo:rerun-if-changed={made_of}");
    }
    let program = Package { name: "tcp-ebpf", root_dir, ..Package::default() };
    // By name: a toolchain that only happens to be the default may lack rust-src.
    aya_build::build_ebpf([program], Toolchain::Custom("nightly"))
}
