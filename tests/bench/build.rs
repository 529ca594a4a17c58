//! Builds the generator's and the client's XDP programs; the library includes the objects that this leaves in
//! `OUT_DIR`.

use aya_build::{Package, Toolchain};

fn main() -> anyhow::Result<()> {
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/ebpf");
    for made_of in ["../../Cargo.toml", "../../Cargo.lock"] {
        println!("cargo:rerun-if-changed={made_of}");
    }
    let programs = Package { name: "bench-ebpf", root_dir, ..Package::default() };
    // By name: a toolchain that only happens to be the default may lack rust-src.
    aya_build::build_ebpf([programs], Toolchain::Custom("nightly"))
}
